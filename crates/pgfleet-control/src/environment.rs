//! The environment of a service: its own connection strings, and nobody else's.

use pgfleet_events::registry::Routing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{Error, ErrorKind};
use crate::manifest::{Broker, Builtin, Leads, Pool, ServerUrl, Service, StreamPlace, TenantUse, env_name};
use crate::provision::budget::Shares;
use crate::roles::Login;
use crate::solution::Solution;

/// The administrator's connection string, for a service that may make its database.
const ADMIN_URL: &str = "PGFLEET_ADMIN_URL";

/// Whether a service migrates when it starts, as the library reads it.
const AUTO_MIGRATE: &str = "PGFLEET_SOLUTION__AUTO_MIGRATE";

impl Solution {
    /// Returns the variables that a service is started with.
    ///
    /// | variable | |
    /// |---|---|
    /// | `PGFLEET_<SERVICE>_URL` | its database, as its application role |
    /// | `PGFLEET_<SERVICE>_MIGRATOR_URL` | the same as its migrator, with `auto_migrate` |
    /// | `PGFLEET_ADMIN_URL` | the administrator, with `auto_migrate` on a local server |
    /// | `PGFLEET_<SERVICE>_READ_URL` | the replicas, separated by blanks |
    /// | `PGFLEET_<SERVICE>_CONNECTIONS` | its connection names, separated by commas; `name@service` for those of another service's database |
    /// | `PGFLEET_<SERVICE>_CONNECTION_<NAME>_URL` | one that leads to another service's database, by `uses` |
    /// | `PGFLEET_<SERVICE>_POOL` | how its pool behaves, as pairs of a connection string |
    /// | `PGFLEET_<SERVICE>_SCHEMA` | the schema of its tables, when it is not `public` |
    /// | `PGFLEET_<SERVICE>_MODULE_<NAME>_SCHEMA` | the schema of a module's tables, when the manifest names one |
    /// | `PGFLEET_<SERVICE>_BUDGET` | the most connections that it may hold on its server |
    /// | `PGFLEET_<SERVICE>_CONTROL_URL` | with `tenants = "own"`: the control database, as its application role |
    /// | `PGFLEET_<SERVICE>_KEY` | with `tenants = "own"`: the key of what it reads there; several, separated by commas, while the key is changed |
    /// | `PGFLEET_<SERVICE>_EVENTS_BROKER` | with an outbox or an inbox: what carries its messages, as `broker` in the manifest |
    /// | `PGFLEET_<SERVICE>_EVENTS_URL` | where that is: the bus database as its application role, or the broker; none in one process |
    /// | `PGFLEET_<SERVICE>_EVENTS_NAME` | the name under which the solution's messages live on the broker: the solution's |
    /// | `PGFLEET_<SERVICE>_EVENTS_SCHEMA` | the schema of the bus database's tables, when the manifest names one for streams and queues |
    /// | `PGFLEET_<SERVICE>_STREAMS` | with `streams` in the manifest: which streams and queues are in memory, as JSON |
    /// | `PGFLEET_SOLUTION__AUTO_MIGRATE` | whether it migrates when it starts |
    ///
    /// Connection strings are URLs that libpq and the drivers of other languages read.
    ///
    /// # Errors
    ///
    /// No password is known yet, or a replica's URL cannot be used.
    pub fn environment(&self, service: &Service) -> Result<Vec<(String, SecretString)>, Error> {
        let mut variables = vec![(service.url_variable(), self.address(service, Login::App)?.expose_url())];
        let migrates = self.manifest.solution.auto_migrate;
        if migrates {
            variables.push((service.migrator_url_variable(), self.address(service, Login::Migrator)?.expose_url()));
            if matches!(self.manifest.server_of(service).url, ServerUrl::Local) {
                variables.push((ADMIN_URL.to_owned(), self.server(&service.server).admin.expose_url()));
            }
        }
        variables.push((AUTO_MIGRATE.to_owned(), migrates.to_string().into()));
        variables.push((service.variable("POOL"), pool_text(&service.pool).into()));
        if service.schema != "public" {
            variables.push((service.variable("SCHEMA"), service.schema.clone().into()));
        }
        variables.extend(self.module_schemas(service));
        variables.extend(self.replica_variable(service)?);
        variables.extend(self.connection_variables(service)?);
        if let Some(share) = self.share(service) {
            variables.push((service.variable("BUDGET"), share.to_string().into()));
        }
        variables.extend(self.tenant_variables(service)?);
        variables.extend(self.event_variables(service)?);
        variables.extend(routing(service).map(|text| (service.variable("STREAMS"), text.into())));
        Ok(variables)
    }

    /// Says what carries a service's messages; nothing when it has none.
    fn event_variables(&self, service: &Service) -> Result<Vec<(String, SecretString)>, Error> {
        if !service.has_messages() {
            return Ok(Vec::new());
        }
        let events = &self.manifest.events;
        let mut variables = vec![(service.variable("EVENTS_BROKER"), events.broker.as_str().into())];
        let url = match (events.broker, self.manifest.bus()) {
            (Broker::Postgres, Some(bus)) => Some(self.guest_address(service, bus)?.expose_url()),
            (Broker::Rabbitmq | Broker::Nats, _) => events.url.clone(),
            (Broker::Postgres | Broker::InProcess, _) => None,
        };
        variables.extend(url.map(|url| (service.variable("EVENTS_URL"), url)));
        variables.push((service.variable("EVENTS_NAME"), self.manifest.solution.name.clone().into()));
        let schema = self.manifest.bus_schema();
        if self.manifest.bus().is_some() && Builtin::EventStreaming.schema() != Some(schema) {
            variables.push((service.variable("EVENTS_SCHEMA"), schema.to_owned().into()));
        }
        Ok(variables)
    }

    /// Returns how many connections a service's program may hold on its server: its role's limit, less a tenth for
    /// people, for looking after its tenants and for tries of the isolation; none when the budget is `auto`
    /// and the server was not looked at.
    pub fn share(&self, service: &Service) -> Option<u32> {
        let limit =
            Shares::of(&self.manifest, &service.server, self.capacity(&service.server))?.limit(&service.name)?;
        Some((limit - limit.div_ceil(10)).max(1))
    }

    /// Says where the tables of a service's modules are, where that is not where the library has them by itself.
    fn module_schemas(&self, service: &Service) -> Vec<(String, SecretString)> {
        let modules = service.modules.iter().filter_map(|name| self.manifest.modules.get(name));
        let named = modules.filter_map(|module| {
            let schema = module.schema.as_deref()?;
            let usual = module.builtin.and_then(Builtin::schema) == Some(schema);
            let variable = format!("MODULE_{}_SCHEMA", env_name(&module.name));
            (!usual).then(|| (service.variable(&variable), schema.to_owned().into()))
        });
        named.collect()
    }

    fn replica_variable(&self, service: &Service) -> Result<Option<(String, SecretString)>, Error> {
        let own = self.address(service, Login::App)?;
        let mut urls: Vec<String> = Vec::new();
        for replica in &self.manifest.server_of(service).replicas {
            let address = own.by_way_of(replica.expose_secret()).map_err(|error| {
                Error::new(ErrorKind::Configuration, format!("server {}, `replicas`: {error}", service.server))
            })?;
            let address = address.with_database(&service.database).with_user(own.user(), own.password().cloned());
            urls.push(address.expose_url().expose_secret().to_owned());
        }
        Ok((!urls.is_empty()).then(|| (service.variable("READ_URL"), urls.join(" ").into())))
    }

    fn connection_variables(&self, service: &Service) -> Result<Vec<(String, SecretString)>, Error> {
        let mut variables = Vec::new();
        let mut names = Vec::new();
        for (name, leads) in self.manifest.connections_of(service) {
            match leads {
                Leads::Own => names.push(name.to_owned()),
                Leads::To(other) => {
                    // Without tenants of its own it has one database for all.
                    let host = if other.tenants == TenantUse::Own { "" } else { "/host" };
                    names.push(format!("{name}@{}{host}", other.name));
                    let url = self.guest_address(service, other)?.expose_url();
                    variables.push((service.variable(&format!("CONNECTION_{}_URL", env_name(name))), url));
                }
            }
        }
        if !names.is_empty() {
            variables.push((service.variable("CONNECTIONS"), names.join(",").into()));
        }
        Ok(variables)
    }
}

/// Writes where streams and queues are, as the library reads it; nothing where the manifest says nothing.
fn routing(service: &Service) -> Option<String> {
    if service.streams.is_empty() {
        return None;
    }
    let (mut routing, mut routes) = (Routing::new(StreamPlace::Postgres.as_str()), service.streams.clone());
    if let Some(others) = routes.remove("*") {
        others.as_str().clone_into(&mut routing.default);
    }
    routing.routes = routes.into_iter().map(|(pattern, place)| (pattern, place.as_str().to_owned())).collect();
    // A map of texts is JSON whatever is in it.
    serde_json::to_string(&routing).ok()
}

/// Writes how a pool behaves as pairs that the library reads as it reads a connection string.
fn pool_text(pool: &Pool) -> String {
    format!(
        "pool_max={} pool_min={} idle_timeout={}ms connect_timeout={} command_timeout={}ms",
        pool.max,
        pool.min,
        pool.idle_timeout.as_millis(),
        // Whole seconds, as libpq has them.
        pool.connect_timeout.as_secs().max(1),
        pool.command_timeout.as_millis()
    )
}
