//! Reading tenants and their strings from the control database.

use std::collections::BTreeMap;

use pgfleet_postgres::{Connection, Type};
use secrecy::SecretString;

use super::{SameAs, Tenant, TenantState, TenantString, context, find};
use crate::catalogue::Catalogue;
use crate::connections::{readable, tenant_services};
use crate::error::{Error, ErrorKind};
use crate::physical::Physical;
use crate::solution::Solution;

/// How times are written.
const UTC: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'";

impl Solution {
    /// Lists the tenants by name.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or cannot be read.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let read = self.read_tenants(catalogue.connection()).await;
        catalogue.close().await;
        read
    }

    /// Returns one tenant.
    ///
    /// # Errors
    ///
    /// There is none of that name; and as [`tenants`](Self::tenants).
    pub async fn tenant(&self, name: &str) -> Result<Tenant, Error> {
        find(&self.tenants().await?, name).cloned()
    }

    /// Lists the tenants; none where nothing was provisioned yet.
    pub(crate) async fn tenants_if_any(&self) -> Result<Vec<Tenant>, Error> {
        match self.tenants().await {
            Err(error) if error.kind() == ErrorKind::Configuration => Ok(Vec::new()),
            other => other,
        }
    }

    /// Opens the control database for work on tenants.
    pub(crate) async fn tenant_catalogue(&self) -> Result<Catalogue, Error> {
        let control = &self.manifest.control;
        let not_yet = || {
            Error::new(
                ErrorKind::Configuration,
                format!("the control database {} knows no tenants yet", control.database),
            )
            .hinted("bring it to this version: pgfleet provision")
        };
        self.catalogue_if_any().await?.ok_or_else(not_yet)
    }

    pub(crate) async fn read_tenants(&self, connection: &Connection) -> Result<Vec<Tenant>, Error> {
        let failed = |error: &pgfleet_postgres::Error| Error::postgres("cannot read the tenants", error);
        let rows = connection
            .query(
                &format!(
                    "SELECT name, display_name, state, to_char(created_at AT TIME ZONE 'UTC', {UTC}), \
                     to_char(updated_at AT TIME ZONE 'UTC', {UTC}) FROM control.tenants ORDER BY name"
                ),
                &[],
            )
            .await
            .map_err(|error| failed(&error))?;
        let mut tenants = Vec::with_capacity(rows.len());
        for row in rows {
            let word: String = row.get(2);
            let state = TenantState::of_word(&word).ok_or_else(|| {
                Error::new(
                    ErrorKind::Failed,
                    format!("a tenant is in state `{word}`, which this version does not know"),
                )
            })?;
            tenants.push(Tenant {
                name: row.get(0),
                display_name: row.get(1),
                state,
                created_at: row.get(3),
                updated_at: row.get(4),
                strings: Vec::new(),
            });
        }
        let strings = connection
            .query(
                &format!(
                    "SELECT tenant, connection, shown, system_identifier, database, coalesce(database_oid, 0::oid), \
                     coalesce(server_version, 0), to_char(checked_at AT TIME ZONE 'UTC', {UTC}), shared \
                     FROM control.tenant_strings ORDER BY tenant, connection"
                ),
                &[],
            )
            .await
            .map_err(|error| failed(&error))?;
        let mut by_tenant: BTreeMap<String, Vec<TenantString>> = BTreeMap::new();
        for row in strings {
            let (system_identifier, checked_at): (String, Option<String>) = (row.get(3), row.get(7));
            let physical = Physical {
                system_identifier,
                database: row.get(4),
                oid: row.get(5),
                server_version: u32::try_from(row.get::<_, i32>(6)).unwrap_or_default(),
            };
            by_tenant.entry(row.get(0)).or_default().push(TenantString {
                connection: row.get(1),
                shown: row.get(2),
                physical: checked_at.is_some().then_some(physical),
                checked_at,
                shared: row.get(8),
                same_as: Vec::new(),
                readers: Vec::new(),
            });
        }
        for tenant in &mut tenants {
            tenant.strings = by_tenant.remove(&tenant.name).unwrap_or_default();
        }
        find_same(&mut tenants);
        let readable: Vec<_> = tenant_services(&self.manifest)
            .map(|service| (service.name.clone(), readable(&self.manifest, service)))
            .collect();
        for string in tenants.iter_mut().flat_map(|tenant| &mut tenant.strings) {
            let readers = readable.iter().filter(|(_, names)| names.contains(string.connection.as_str()));
            string.readers = readers.map(|(service, _)| service.clone()).collect();
        }
        Ok(tenants)
    }

    /// Opens the strings of a tenant.
    pub(crate) async fn open_strings<'a>(
        &self,
        tenant: &'a Tenant,
    ) -> Result<Vec<(&'a TenantString, SecretString)>, Error> {
        if tenant.strings.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys()?;
        let catalogue = self.tenant_catalogue().await?;
        let rows = catalogue
            .connection()
            .query(
                "SELECT connection, key_id, sealed FROM control.tenant_strings WHERE tenant = $1",
                &[(&tenant.name, Type::TEXT)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
        catalogue.close().await;
        let mut opened = Vec::with_capacity(rows.len());
        for row in rows {
            let connection: &str = row.get(0);
            // One that came since then is left to the next look.
            let Some(string) = tenant.strings.iter().find(|string| string.connection == connection) else { continue };
            opened.push((string, keys.open(row.get(1), row.get(2), &context(&tenant.name, connection))?));
        }
        Ok(opened)
    }
}

/// Finds out which strings lead to one database.
fn find_same(tenants: &mut [Tenant]) {
    // By oid and by name, so that thousands of strings are not compared with each other.
    let mut places: BTreeMap<(String, String), Vec<SameAs>> = BTreeMap::new();
    let keys = |physical: &Physical| {
        let system = &physical.system_identifier;
        [(system.clone(), format!("oid {}", physical.oid)), (system.clone(), format!("name {}", physical.database))]
    };
    for tenant in tenants.iter() {
        for string in &tenant.strings {
            for key in string.physical.iter().flat_map(keys) {
                let place = SameAs { tenant: tenant.name.clone(), connection: string.connection.clone() };
                places.entry(key).or_default().push(place);
            }
        }
    }
    for tenant in tenants {
        for string in &mut tenant.strings {
            for key in string.physical.iter().flat_map(keys) {
                for place in places.get(&key).into_iter().flatten() {
                    let itself = place.tenant == tenant.name && place.connection == string.connection;
                    if !itself && !string.same_as.contains(place) {
                        string.same_as.push(place.clone());
                    }
                }
            }
        }
    }
}
