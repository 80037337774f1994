//! Which database of a tenant is meant, and whether it can be moved.

use pgfleet_postgres::{Connection, Purpose, Type, connect};

use super::fence::APPLICATION;
use super::record::Move;
use super::run::Mover;
use crate::connections::near;
use crate::error::{Error, ErrorKind};
use crate::physical::Physical;
use crate::roles::Login;
use crate::targets::FleetTarget;
use crate::tenants::TenantState;

/// A database that is to be moved.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) server: String,
    pub(super) database: String,
    pub(super) services: Vec<String>,
    /// The strings of the tenant that lead there.
    pub(super) connections: Vec<String>,
    pub(super) physical: Physical,
    /// Whether pgfleet made it.
    pub(super) own: bool,
}

impl Mover<'_> {
    /// Opens a session of a move.
    pub(super) async fn session(&self, server: &str, database: Option<&str>) -> Result<Connection, Error> {
        let admin = &self.solution.server(server).admin;
        let address = database.map_or_else(|| admin.clone(), |database| admin.with_database(database));
        let purpose = Purpose::new(APPLICATION).setting("lock_timeout", "60s").setting("statement_timeout", "0");
        connect(&address, &purpose).await.map_err(|error| {
            let place = database.map(|database| format!(", database {database}")).unwrap_or_default();
            Error::postgres(format!("cannot reach server {server}{place}"), &error)
        })
    }

    /// Refuses a server that tenants' databases may not be moved to.
    pub(super) fn check_destination(&self, server: &str, holds_tenants: bool) -> Result<(), Error> {
        let names: Vec<&str> = self.solution.servers().map(|(name, _)| name).collect();
        if !names.contains(&server) {
            return Err(Error::new(ErrorKind::Configuration, format!("there is no server `{server}` in the manifest"))
                .hinted(near(server, &names)));
        }
        if holds_tenants && !self.solution.manifest.holds_tenants(server) {
            return Err(Error::new(ErrorKind::Configuration, format!("server `{server}` holds no tenants' databases"))
                .hinted("add it to `servers` of [tenants], then: pgfleet provision"));
        }
        Ok(())
    }

    /// Finds the databases of a tenant; of one service when it is named.
    pub(super) async fn sources(&self, tenant: &str, service: Option<&str>) -> Result<Vec<Source>, Error> {
        let state = self.solution.tenant(tenant).await?.state;
        if !matches!(state, TenantState::Active | TenantState::Disabled) {
            let message =
                format!("tenant {tenant} is {}: only one that is active or disabled can be moved", state.word());
            return Err(Error::new(ErrorKind::Failed, message));
        }
        if let Some(service) = service {
            crate::jobs::find_service(&self.solution.manifest, service)?;
        }
        let targets = self.solution.tenant_targets(self.catalogue, &[state]).await?;
        let its = |target: &&FleetTarget| {
            let whose = target.tenant == tenant || target.shared_with.iter().any(|other| other == tenant);
            whose && service.is_none_or(|service| target.services.iter().any(|name| name == service))
        };
        let mut sources = Vec::new();
        for target in targets.iter().filter(its) {
            sources.push(self.source(tenant, target).await?);
        }
        if sources.is_empty() {
            let of = service.map(|service| format!(" for service {service}")).unwrap_or_default();
            let message = format!("tenant {tenant} has no database of its own{of}");
            return Err(Error::new(ErrorKind::Failed, message)
                .cause("what it has is in the services' own databases")
                .hinted(format!(
                    "give it one (its data stays where it is): pgfleet tenant set-connection {tenant} STRING"
                )));
        }
        Ok(sources)
    }

    /// Looks at one database of a tenant.
    async fn source(&self, tenant: &str, target: &FleetTarget) -> Result<Source, Error> {
        let (server, database) = target.key();
        if !self.solution.servers().any(|(name, _)| name == server) {
            let message =
                format!("database {database} of tenant {tenant} is on {server}, which is not in the manifest");
            return Err(Error::new(ErrorKind::Configuration, message)
                .hinted("its data can be moved once the manifest has the server: [servers.NAME] with its URL"));
        }
        let shared: Vec<&str> = std::iter::once(&target.tenant)
            .chain(&target.shared_with)
            .map(String::as_str)
            .filter(|other| *other != tenant)
            .collect();
        if !shared.is_empty() {
            let message = format!("database {database} is also tenant {}'s", shared.join("'s and tenant "));
            return Err(Error::new(ErrorKind::Failed, message).cause("what belongs to whom is not known here"));
        }
        let session = self.session(server, Some(database)).await?;
        let physical = Physical::of(&session).await;
        session.close().await;
        let physical =
            physical.map_err(|error| Error::postgres(format!("cannot look at database {database}"), &error))?;
        let hosts = self.solution.host_databases().await?;
        if let Some(host) = hosts.iter().find(|host| host.physical.is_same(&physical)) {
            let whose = host.service.as_deref().map_or("pgfleet's own", |_| "a service's own");
            return Err(Error::new(
                ErrorKind::Failed,
                format!("database {database} of tenant {tenant} is {whose}: it cannot be moved"),
            ));
        }
        let connections = self.strings_to(tenant, server, &physical).await?;
        let rows = self
            .catalogue
            .connection()
            .query(
                "SELECT 1 FROM control.tenant_databases WHERE server = $1 AND database = $2 AND tenant = $3",
                &[(&server, Type::TEXT), (&database, Type::TEXT), (&tenant, Type::TEXT)],
            )
            .await
            .map_err(|error| super::record::failed(&error))?;
        Ok(Source {
            server: server.to_owned(),
            database: database.to_owned(),
            services: target.services.clone(),
            connections,
            physical,
            own: !rows.is_empty(),
        })
    }

    /// Finds the strings of a tenant that lead to a database.
    async fn strings_to(&self, tenant: &str, server: &str, physical: &Physical) -> Result<Vec<String>, Error> {
        let rows = self
            .catalogue
            .connection()
            .query(
                "SELECT connection, key_id, sealed, server, system_identifier, coalesce(database_oid, 0::oid) \
                 FROM control.tenant_strings WHERE tenant = $1 ORDER BY connection",
                &[(&tenant, Type::TEXT)],
            )
            .await
            .map_err(|error| super::record::failed(&error))?;
        let keys = self.solution.keys()?;
        let mut names = Vec::new();
        for row in rows {
            let (name, own): (String, &str) = (row.get(0), row.get(3));
            let (identifier, oid): (&str, u32) = (row.get(4), row.get(5));
            let leads_there = if identifier.is_empty() {
                // Nobody looked where it leads; then the text has to say it.
                let text = keys.open(row.get(1), row.get(2), &crate::tenants::context(tenant, &name))?;
                let holder = if name.is_empty() {
                    crate::connections::tenant_services(&self.solution.manifest).next()
                } else {
                    crate::connections::holders(&self.solution.manifest, &name)?.first().copied()
                };
                match holder {
                    Some(holder) => {
                        let address = self.solution.text_address(holder, own, &text, tenant, Login::App)?;
                        self.solution.server_at(&address) == server && address.database() == physical.database
                    }
                    None => false,
                }
            } else {
                identifier == physical.system_identifier && oid == physical.oid
            };
            if leads_there {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Source {
    /// Returns what a move began with.
    pub(super) fn of(work: &Move) -> Self {
        Self {
            server: work.from_server.clone(),
            database: work.from_database.clone(),
            services: work.services.clone(),
            connections: work.connections.clone(),
            physical: Physical {
                system_identifier: work.from_identifier.clone(),
                database: work.from_database.clone(),
                oid: work.from_oid,
                server_version: 0,
            },
            own: work.from_own,
        }
    }
}
