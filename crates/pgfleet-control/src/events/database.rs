//! Which database is meant.

use pgfleet_events_postgres::{Options, Store};
use pgfleet_postgres::Purpose;
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};

use crate::error::{Error, ErrorKind};
use crate::manifest::{Builtin, Service};
use crate::roles::Login;
use crate::solution::Solution;

/// A database with streams and queues, an outbox or an inbox.
#[derive(Debug)]
pub struct EventDatabase {
    /// The service whose it is.
    pub service: String,
    /// The tenant whose data is in it; none for the service's own database.
    pub tenant: Option<String>,
    /// The schema of the module's tables.
    pub schema: String,
    pool: Pool,
    /// As the administrator, who sees what others hold; none on a server that is not the solution's.
    overseer: Option<Pool>,
}

/// How many connections a command holds at most.
const CONNECTIONS: usize = 4;

impl Solution {
    /// Finds the database with a module and connects to it: that of the service that is named, else of the only one that
    /// has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: nobody has the module, several have it and none is named, or the service or tenant
    /// does not exist or has no password yet.
    pub async fn event_database(
        &self,
        module: Builtin,
        service: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<EventDatabase, Error> {
        self.event_database_as(module, service, tenant, Login::App).await
    }

    /// Does what [`event_database`](Self::event_database) does, as another one of the service's roles: an index is made by
    /// the migrator.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn event_database_as(
        &self,
        module: Builtin,
        service: Option<&str>,
        tenant: Option<&str>,
        login: Login,
    ) -> Result<EventDatabase, Error> {
        let service = self.having(module, service)?;
        let mut address = self.address(service, login)?;
        let mut server = service.server.clone();
        if let Some(tenant) = tenant {
            let catalogue = self.tenant_catalogue().await?;
            let found = self.refuse_unknown_tenant(&catalogue, tenant).await;
            let targets = match found {
                Ok(()) => self.targets_of_tenant(&catalogue, tenant).await,
                Err(error) => Err(error),
            };
            catalogue.close().await;
            // Without a database of its own, it is in the service's.
            if let Some(target) = targets?.iter().find(|target| target.services.contains(&service.name)) {
                address = self.address_in(target, &service.name, login)?;
                server.clone_from(&target.server);
            }
        }
        let known = self.manifest.modules.get(module.name()).and_then(|module| module.schema.as_deref());
        let schema = known.unwrap_or(&service.schema).to_owned();
        let budget = Budget::new(address.server(), CONNECTIONS);
        let options = PoolOptions { max: CONNECTIONS, min: 0, ..PoolOptions::default() };
        let pool = |address| Pool::new(&budget, address, Purpose::new("pgfleet events"), options.clone());
        let found = self.servers().find(|(name, _)| *name == server);
        let overseer = found.map(|(_, found)| pool(found.admin.with_database(address.database())));
        Ok(EventDatabase {
            service: service.name.clone(),
            tenant: tenant.map(str::to_owned),
            schema,
            pool: pool(address),
            overseer,
        })
    }

    fn having(&self, module: Builtin, named: Option<&str>) -> Result<&Service, Error> {
        let name = module.name();
        if let Some(named) = named {
            let service = crate::jobs::find_service(&self.manifest, named)?;
            if service.has(module) {
                return Ok(service);
            }
            let message = format!("service {named} does not have the module `{name}`");
            let hint = format!("add it to `modules` of [services.{named}], then: pgfleet migrate");
            return Err(Error::new(ErrorKind::Configuration, message).hinted(hint));
        }
        // The bus has streams, too, and whoever means it names it.
        let having: Vec<&Service> = self.manifest.declared_services().filter(|service| service.has(module)).collect();
        match (&having[..], self.manifest.bus().filter(|bus| bus.has(module))) {
            ([only], _) => Ok(only),
            ([], Some(bus)) => Ok(bus),
            ([], None) => Err(Error::new(ErrorKind::Configuration, format!("no service has the module `{name}`"))
                .hinted(format!("add it to `modules` of a service: modules = [\"{name}\"], then: pgfleet migrate"))),
            (several, _) => {
                let names: Vec<&str> = several.iter().map(|service| service.name.as_str()).collect();
                Err(Error::new(ErrorKind::Configuration, format!("several services have the module `{name}`"))
                    .hinted(format!("say which: --service {}", names.join(" or --service "))))
            }
        }
    }

    async fn refuse_unknown_tenant(&self, catalogue: &crate::catalogue::Catalogue, name: &str) -> Result<(), Error> {
        let tenants = self.read_tenants(catalogue.connection(), None).await?;
        crate::tenants::find(&tenants, name).map(|_| ())
    }
}

impl EventDatabase {
    /// Returns its streams and queues.
    pub fn store(&self) -> Store {
        Store::new(self.pool.clone(), Options { schema: self.schema.clone(), ..Options::default() })
    }

    /// Returns where it is asked what others hold.
    pub(super) fn overseer(&self) -> &Pool {
        self.overseer.as_ref().unwrap_or(&self.pool)
    }

    /// Returns the pool of its connections.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
