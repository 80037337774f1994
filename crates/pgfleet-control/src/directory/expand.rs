//! What a service reads of a tenant's string: as it is, or written out for the service.
//!
//! The string of a database that pgfleet made names the database alone; the server stands beside it. On
//! a service's own server it is handed on like that, and completed by the service. Elsewhere the service
//! has a role with another password, so it is told all: host, port, TLS, role and password. Whether
//! what it was told still holds is seen by a fingerprint, without opening a single string.

use std::collections::HashMap;

use pgfleet_postgres::Address;
use pgfleet_sql::checksum::raw_hash;
use secrecy::{ExposeSecret as _, SecretString};

use crate::connections::tenant_services;
use crate::error::Error;
use crate::roles::Login;
use crate::solution::Solution;

/// The fingerprint on a service's own server, where nothing is written out.
const OWN: &str = "own";

/// How the strings of databases that pgfleet made are written out now: one fingerprint for each service
/// and server, as columns to be bound.
#[derive(Default)]
pub(super) struct Expansions {
    pub(super) services: Vec<String>,
    pub(super) servers: Vec<String>,
    pub(super) fingerprints: Vec<String>,
    by_place: HashMap<(String, String), String>,
}

impl Expansions {
    /// Collects them for all services with tenants; a server where a service has no password is left out.
    pub(super) fn of(solution: &Solution) -> Self {
        let mut found = Self::default();
        for service in tenant_services(&solution.manifest) {
            for (server, _) in solution.servers() {
                let fingerprint = if server == service.server {
                    OWN.to_owned()
                } else if let Ok(address) = solution.address_on(server, service, Login::App) {
                    // Which database is in the tenant's own row, which says itself when it was changed.
                    raw_hash(written_out(&address.with_database("")).expose_secret().as_bytes())
                } else {
                    continue;
                };
                found.services.push(service.name.clone());
                found.servers.push(server.to_owned());
                found.fingerprints.push(fingerprint.clone());
                found.by_place.insert((service.name.clone(), server.to_owned()), fingerprint);
            }
        }
        found
    }

    /// Writes a string out for a service; returns it with its fingerprint.
    ///
    /// # Errors
    ///
    /// The server is not in the manifest, or the service has no password there.
    pub(super) fn expand(
        &self,
        solution: &Solution,
        service: &str,
        server: &str,
        text: SecretString,
        tenant: &str,
    ) -> Result<(SecretString, &str), Error> {
        if server.is_empty() {
            return Ok((text, ""));
        }
        let found = crate::jobs::find_service(&solution.manifest, service)?;
        let address = solution.text_address(found, server, &text, tenant, Login::App)?;
        let fingerprint = self.by_place.get(&(service.to_owned(), server.to_owned())).map_or("", String::as_str);
        Ok((if fingerprint == OWN { text } else { written_out(&address) }, fingerprint))
    }
}

/// Writes an address out, with its password, so that a service's own one adds nothing to where it leads
/// and how that is protected.
fn written_out(address: &Address) -> SecretString {
    let pairs = address.expose_pairs();
    // The pairs hold it only where somebody said it; what is said twice counts the second time.
    format!("sslmode={} {}", address.tls_mode().word(), pairs.expose_secret()).into()
}
