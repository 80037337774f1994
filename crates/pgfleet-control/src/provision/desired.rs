//! What should be on one server.

use crate::manifest::{Manifest, Service};
use crate::roles::Roles;

/// What should be on one server.
#[derive(Debug, Clone)]
pub struct DesiredServer {
    /// The solution, written into the comments of what we make.
    pub solution: String,
    /// The server's name in the manifest.
    pub server: String,
    /// The services whose databases live here.
    pub databases: Vec<DesiredDatabase>,
    /// The control database, when it lives here.
    pub control: Option<String>,
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
    /// The module whose schema it may use.
    pub module: String,
}

impl DesiredServer {
    /// Collects what the manifest wants on a server.
    pub fn of(manifest: &Manifest, server: &str) -> Self {
        let here = |service: &&Service| service.server == server;
        let databases = manifest
            .services
            .iter()
            .filter(here)
            .map(|service| DesiredDatabase {
                service: service.name.clone(),
                name: service.database.clone(),
                schema: service.schema.clone(),
                roles: Roles::of(&service.name),
                extensions: service.extensions.clone(),
                guests: guests(manifest, service),
            })
            .collect();
        let control = (manifest.control.server == server).then(|| manifest.control.database.clone());
        Self { solution: manifest.solution.name.clone(), server: server.to_owned(), databases, control }
    }

    /// Returns the comment that marks a role or database as ours.
    pub fn mark(&self, service: &str) -> String {
        format!("pgfleet: solution {}, service {service}", self.solution)
    }
}

/// Returns who declared the use of a module of this service.
fn guests(manifest: &Manifest, owner: &Service) -> Vec<Guest> {
    let mut guests = Vec::new();
    for service in manifest.services.iter().filter(|service| service.server == owner.server) {
        for uses in service.uses.iter().filter(|uses| uses.service == owner.name) {
            guests.push(Guest {
                service: service.name.clone(),
                role: Roles::of(&service.name).app,
                module: uses.module.clone(),
            });
        }
    }
    guests
}
