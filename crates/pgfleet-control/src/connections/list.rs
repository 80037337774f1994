//! Every connection name of every service.

use serde::Serialize;

use super::mapped;
use crate::manifest::Service;
use crate::roles::{Login, Roles};
use crate::solution::Solution;

/// One connection name of one service, without a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The service that asks.
    pub service: String,
    /// The connection name.
    pub connection: String,
    /// Why it leads there: `main`, `mapped` to its own database, or `uses` of another service.
    pub kind: &'static str,
    /// The service whose database it is.
    pub holder: String,
    /// The server's name in the manifest.
    pub server: String,
    /// Where services reach it: `host:port`.
    pub address: String,
    /// The database.
    pub database: String,
    /// The role that asks.
    pub role: String,
    /// Whether a tenant's string can take its place.
    pub tenants: bool,
}

impl Solution {
    /// Lists every connection name of these services, of all when none is named.
    ///
    /// # Errors
    ///
    /// An unknown service.
    pub fn connections(&self, services: &[String]) -> Result<Vec<Listed>, crate::Error> {
        let mut all = Vec::new();
        for service in self.services(services)? {
            all.push(self.listed(service, &service.name, service));
            all.extend(
                mapped(&self.manifest, service)
                    .into_iter()
                    .map(|mapped| self.listed(service, mapped.name, mapped.holder)),
            );
        }
        Ok(all)
    }

    fn listed(&self, service: &Service, connection: &str, holder: &Service) -> Listed {
        let kind = match (service.name == connection, service.name == holder.name) {
            (true, _) => "main",
            (false, true) => "mapped",
            (false, false) => "uses",
        };
        Listed {
            service: service.name.clone(),
            connection: connection.to_owned(),
            kind,
            holder: holder.name.clone(),
            server: holder.server.clone(),
            address: self.server(&holder.server).services.server(),
            database: holder.database.clone(),
            role: Roles::of(&service.name).login(Login::App).to_owned(),
            tenants: super::has_tenants(service) && super::has_tenants(holder),
        }
    }
}
