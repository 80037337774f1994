//! The connection names of services: which there are, where they lead, and why.
//!
//! The order of the rules is that of [`pgfleet_route::Rules`], which services decide by, too.

mod explain;
mod list;
mod test;

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind};
use crate::manifest::{Leads, Manifest, Service, TenantUse};

pub use explain::{Explained, ExplainedStep, Visitor};
pub use list::Listed;
pub use test::{Tested, Tls};

/// A connection name that a service has beside its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapped<'a> {
    /// The name.
    pub(crate) name: &'a str,
    /// The service whose database holds it.
    pub(crate) holder: &'a Service,
}

/// Returns the names that lead to a service's own database, and to those of the services whose
/// modules it uses.
pub(crate) fn mapped<'a>(manifest: &'a Manifest, service: &'a Service) -> Vec<Mapped<'a>> {
    let names = manifest.connections_of(service).into_iter().filter(|(name, _)| *name != service.name);
    let mapped = names.map(|(name, leads)| match leads {
        Leads::Own => Mapped { name, holder: service },
        Leads::To(holder) => Mapped { name, holder },
    });
    mapped.collect()
}

/// Returns whether a service has data in tenants' databases.
pub(crate) fn has_tenants(service: &Service) -> bool {
    service.tenants == TenantUse::Own
}

/// Returns the services that have data in tenants' databases.
pub(crate) fn tenant_services(manifest: &Manifest) -> impl Iterator<Item = &Service> {
    manifest.services.iter().filter(|service| has_tenants(service))
}

/// Returns which strings of a tenant a service may read: the default, its own, those of the names
/// that it can ask for, and of the services that hold them.
///
/// A service without data in tenants' databases reads none, and nobody reads one for it.
pub(crate) fn readable<'a>(manifest: &'a Manifest, service: &'a Service) -> BTreeSet<&'a str> {
    if !has_tenants(service) {
        return BTreeSet::new();
    }
    let names = mapped(manifest, service).into_iter().filter(|mapped| has_tenants(mapped.holder));
    let names = names.flat_map(|mapped| [mapped.name, mapped.holder.name.as_str()]);
    ["", service.name.as_str()].into_iter().chain(names).collect()
}

/// Finds the services whose databases hold a connection name: one that is mapped there, or all that
/// have the module of that name.
///
/// # Errors
///
/// A name that no service has, with the one that was probably meant.
pub(crate) fn holders<'a>(manifest: &'a Manifest, connection: &str) -> Result<Vec<&'a Service>, Error> {
    if let Some(service) = manifest.service(connection) {
        return Ok(vec![service]);
    }
    let holds = |service: &Service| {
        mapped(manifest, service).iter().any(|mapped| mapped.name == connection && mapped.holder.name == service.name)
    };
    let holders: Vec<&Service> = manifest.services.iter().filter(|service| holds(service)).collect();
    if !holders.is_empty() {
        return Ok(holders);
    }
    let names: Vec<&str> = names(manifest).into_iter().collect();
    Err(Error::new(ErrorKind::Configuration, format!("there is no service or connection named `{connection}`"))
        .hinted(near(connection, &names)))
}

/// Returns every name that a tenant's string can be for: the services' and the connections'.
pub fn names(manifest: &Manifest) -> BTreeSet<&str> {
    let own = manifest.services.iter().map(|service| service.name.as_str());
    own.chain(manifest.services.iter().flat_map(|service| mapped(manifest, service)).map(|mapped| mapped.name))
        .collect()
}

/// Returns the hint for a name that is not there.
pub(crate) fn near(name: &str, names: &[&str]) -> String {
    let alike = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase());
    let best = names.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match best.filter(|best| alike(best) > 0.8) {
        Some(best) => format!("did you mean `{best}`?"),
        None if names.is_empty() => "there are none yet".to_owned(),
        None if names.len() > 12 => format!("there are {}: {}, …", names.len(), names[..12].join(", ")),
        None => format!("there are: {}", names.join(", ")),
    }
}
