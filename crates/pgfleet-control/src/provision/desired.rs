//! What should be on one server.

use std::collections::BTreeSet;

use super::budget::{Capacity, Shares};
use crate::connections::has_tenants;
use crate::manifest::{Budget, Manifest, Service};
use crate::roles::{Login, Roles};

/// What should be on one server.
#[derive(Debug, Clone)]
pub struct DesiredServer {
    /// The solution, written into the comments of what we make.
    pub solution: String,
    /// The server's name in the manifest.
    pub server: String,
    /// The services' own databases that live here.
    pub databases: Vec<DesiredDatabase>,
    /// The services that have all their roles here: for a database of their own, or for tenants'.
    pub residents: Vec<Resident>,
    /// Other services that use a database here, or ask for their tenants.
    pub visitors: Vec<Visitor>,
    /// The control database, when it lives here.
    pub control: Option<String>,
    /// The application roles that may connect to the control database, for asking for their tenants.
    pub readers: Vec<String>,
    /// The connections of all services together.
    pub budget: Budget,
}

/// A service that has all its roles on a server.
#[derive(Debug, Clone)]
pub struct Resident {
    /// The service.
    pub service: String,
    /// Its roles.
    pub roles: Roles,
    /// The schema of its tables, in all its databases.
    pub schema: String,
    /// Whether it has data in tenants' databases, made and removed without asking its roles.
    pub tenants: bool,
    /// Its `pool.max`.
    pub pool: u32,
}

/// A service that only visits: its application role is here, and nothing else of it.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The service.
    pub service: String,
    /// Its roles.
    pub roles: Roles,
    /// Its `pool.max`.
    pub pool: u32,
}

/// One service's database.
#[derive(Debug, Clone)]
pub struct DesiredDatabase {
    /// The service.
    pub service: String,
    /// The database.
    pub name: String,
    /// The schema of its tables.
    pub schema: String,
    /// The service's roles.
    pub roles: Roles,
    /// Extensions, made by the administrator.
    pub extensions: Vec<String>,
    /// Other services' application roles that may connect, with the schema that each may use.
    pub guests: Vec<Guest>,
}

/// A declared exception to the isolation of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The service that is let in.
    pub service: String,
    /// Its application role.
    pub role: String,
    /// The module that it may use.
    pub module: String,
    /// The schema of the module.
    pub schema: String,
}

impl DesiredServer {
    /// Collects what the manifest wants on a server.
    pub fn of(manifest: &Manifest, server: &str) -> Self {
        let here = manifest.services.iter().filter(|service| service.server == server);
        let databases =
            here.map(|service| DesiredDatabase::of(service, &service.database, guests(manifest, service))).collect();
        let resides = |service: &&Service| resides(manifest, service, server);
        let residents = manifest.services.iter().filter(resides).map(|service| Resident {
            service: service.name.clone(),
            roles: Roles::of(&service.name),
            schema: service.schema.clone(),
            tenants: has_tenants(service),
            pool: service.pool.max,
        });
        let control = manifest.control.server == server;
        let visits = |service: &&Service| {
            let owner = |name: &str| manifest.service(name).is_some_and(|owner| owner.server == server);
            let uses_one_here = service.uses.iter().any(|uses| owner(&uses.service));
            !resides(service) && (uses_one_here || (control && has_tenants(service)))
        };
        let readers = manifest.services.iter().filter(|service| control && has_tenants(service));
        let readers = readers.map(|service| Roles::of(&service.name).app).collect();
        let visitors = manifest.services.iter().filter(visits).map(|service| Visitor {
            service: service.name.clone(),
            roles: Roles::of(&service.name),
            pool: service.pool.max,
        });
        Self {
            solution: manifest.solution.name.clone(),
            server: server.to_owned(),
            databases,
            residents: residents.collect(),
            visitors: visitors.collect(),
            control: control.then(|| manifest.control.database.clone()),
            readers,
            budget: manifest.servers.get(server).map_or(Budget::Auto, |server| server.budget),
        }
    }

    /// Returns the logins that belong on the server: service, its roles, what for.
    pub fn logins(&self) -> impl Iterator<Item = (&str, &Roles, Login)> {
        let own = self.residents.iter().flat_map(|resident| {
            Login::ALL.into_iter().map(move |login| (resident.service.as_str(), &resident.roles, login))
        });
        let visiting = self.visitors.iter().map(|visitor| (visitor.service.as_str(), &visitor.roles, Login::App));
        own.chain(visiting)
    }

    /// Returns all roles of the services on the server, their twins included.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let owners = self.residents.iter().map(|resident| resident.roles.owner.as_str());
        owners.chain(self.logins().flat_map(|(_, roles, login)| roles.both(login)))
    }

    /// Shares the server's connections out; none when the budget is `auto` and the capacity unknown.
    pub fn shares(&self, capacity: Option<Capacity>) -> Option<Shares> {
        let own = self.residents.iter().map(|resident| (resident.service.as_str(), resident.pool));
        let visiting = self.visitors.iter().map(|visitor| (visitor.service.as_str(), visitor.pool));
        Shares::among(self.budget, &own.chain(visiting).collect::<Vec<_>>(), capacity)
    }

    /// Returns how the comments of all roles of the solution, and of its services' databases, begin. Those
    /// of tenants' databases begin otherwise: see `tenant_mark`.
    pub fn family(&self) -> String {
        format!("pgfleet: solution {}, service ", self.solution)
    }

    /// Returns the comment that marks a role or database as ours.
    pub fn mark(&self, service: &str) -> String {
        format!("{}{service}", self.family())
    }
}

impl DesiredDatabase {
    /// Says what a database of a service should be, its own one or a tenant's.
    pub(super) fn of(service: &Service, name: &str, guests: Vec<Guest>) -> Self {
        Self {
            service: service.name.clone(),
            name: name.to_owned(),
            schema: service.schema.clone(),
            roles: Roles::of(&service.name),
            extensions: service.extensions.clone(),
            guests,
        }
    }

    /// Returns the rights on the database itself that its service's roles and its guests have.
    pub(super) fn rights(&self) -> BTreeSet<(&str, &'static str)> {
        let mut wanted = BTreeSet::new();
        for role in [&self.roles.migrator, &self.roles.app] {
            wanted.extend([(role.as_str(), "CONNECT"), (role.as_str(), "TEMPORARY")]);
        }
        wanted.insert((&self.roles.readonly, "CONNECT"));
        wanted.extend(self.guests.iter().map(|guest| (guest.role.as_str(), "CONNECT")));
        wanted
    }
}

/// Whether a service has all its roles on a server.
fn resides(manifest: &Manifest, service: &Service, server: &str) -> bool {
    service.server == server || (has_tenants(service) && manifest.holds_tenants(server))
}

/// Returns who declared the use of a module of this service.
pub(super) fn guests(manifest: &Manifest, owner: &Service) -> Vec<Guest> {
    let mut guests = Vec::new();
    for service in &manifest.services {
        for uses in service.uses.iter().filter(|uses| uses.service == owner.name) {
            guests.push(Guest {
                service: service.name.clone(),
                role: Roles::of(&service.name).app,
                module: uses.module.clone(),
                schema: manifest
                    .modules
                    .get(&uses.module)
                    .and_then(|module| module.schema.clone())
                    .unwrap_or_else(|| uses.module.clone()),
            });
        }
    }
    guests
}
