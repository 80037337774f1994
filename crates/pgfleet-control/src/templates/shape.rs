//! Which services share a database.

use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::manifest::{Manifest, Service, TenantDatabases};

/// A set of services whose data is in one database, in the manifest's order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape(Vec<String>);

impl Shape {
    /// Makes the shape of these services.
    pub fn of(manifest: &Manifest, services: &[String]) -> Self {
        let in_it = |service: &&Service| services.contains(&service.name);
        Self(tenant_services(manifest).filter(in_it).map(|service| service.name.clone()).collect())
    }

    /// Returns the shapes of a tenant's databases, with the name of the string that leads to each: empty
    /// for the default.
    ///
    /// `services` says which of them get databases of the tenant's own; all that have data in tenants'
    /// databases when it is empty.
    ///
    /// # Errors
    ///
    /// A service that has no data in tenants' databases.
    pub fn all(manifest: &Manifest, services: &[String]) -> Result<Vec<(String, Self)>, Error> {
        let own: Vec<&str> = tenant_services(manifest).map(|service| service.name.as_str()).collect();
        if let Some(other) = services.iter().find(|service| !own.contains(&service.as_str())) {
            let service = crate::jobs::find_service(manifest, other)?;
            let message = format!("service {} has no data in tenants' databases", service.name);
            return Err(Error::new(ErrorKind::Configuration, message)
                .hinted(format!("if it has, say tenants = \"own\" in [services.{}]", service.name)));
        }
        let wanted: Vec<String> = own
            .iter()
            .filter(|name| services.is_empty() || services.iter().any(|s| s == *name))
            .map(|s| (*s).to_owned())
            .collect();
        Ok(match manifest.tenants.databases {
            TenantDatabases::One if wanted.is_empty() => Vec::new(),
            TenantDatabases::PerService => wanted.into_iter().map(|name| (name.clone(), Self(vec![name]))).collect(),
            // A default string would lead the others there, too.
            TenantDatabases::One if wanted.len() < own.len() => {
                wanted.into_iter().map(|name| (name.clone(), Self(vec![name]))).collect()
            }
            TenantDatabases::One => vec![(String::new(), Self(wanted))],
        })
    }

    /// Returns every shape that a tenant's database may have.
    pub(crate) fn every(manifest: &Manifest) -> Vec<Self> {
        let own: Vec<String> = tenant_services(manifest).map(|service| service.name.clone()).collect();
        let mut all: Vec<Self> = own.iter().map(|name| Self(vec![name.clone()])).collect();
        if manifest.tenants.databases == TenantDatabases::One && own.len() > 1 {
            all.push(Self(own));
        }
        all
    }

    /// Returns the services.
    pub fn services(&self) -> &[String] {
        &self.0
    }

    /// Returns its name: `product`, `identity+product`.
    pub fn name(&self) -> String {
        self.0.join("+")
    }

    /// Returns the services as the manifest has them.
    ///
    /// # Errors
    ///
    /// One that it has no longer.
    pub(crate) fn of_manifest<'a>(&self, manifest: &'a Manifest) -> Result<Vec<&'a Service>, Error> {
        self.0.iter().map(|name| crate::jobs::find_service(manifest, name)).collect()
    }
}
