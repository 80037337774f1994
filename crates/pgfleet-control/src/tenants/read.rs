//! Reading tenants and their strings from the control database.

use std::collections::BTreeMap;

use pgfleet_postgres::{Connection, Row, ToSql, Type};
use secrecy::SecretString;

use super::{OwnDatabase, SameAs, Tenant, TenantState, TenantString, context, unknown};
use crate::catalogue::Catalogue;
use crate::connections::{readable, tenant_services};
use crate::error::{Error, ErrorKind};
use crate::fleet::TargetState;
use crate::physical::Physical;
use crate::solution::Solution;
use crate::standing::{self, Standing};

/// How times are written.
pub(super) const UTC: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'";

impl Solution {
    /// Lists the tenants by name.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or cannot be read.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let read = self.read_tenants(catalogue.connection(), None).await;
        catalogue.close().await;
        read.map(|tenants| self.judged(tenants))
    }

    /// Takes what is at the head of other files than those that are here for behind.
    fn judged(&self, mut tenants: Vec<Tenant>) -> Vec<Tenant> {
        // Without files that can be read what is remembered stands as it is.
        let prints = self.prints(&[]).unwrap_or_default();
        for standing in tenants.iter_mut().flat_map(|tenant| &mut tenant.standings) {
            let other = prints.get(&standing.service).is_some_and(|print| standing.plan.as_deref() != Some(print));
            if standing.state == TargetState::Current && other {
                standing.state = TargetState::Behind;
            }
        }
        tenants
    }

    /// Returns one tenant.
    ///
    /// # Errors
    ///
    /// There is none of that name; and as [`tenants`](Self::tenants).
    pub async fn tenant(&self, name: &str) -> Result<Tenant, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let read = self.read_tenant(catalogue.connection(), name).await;
        catalogue.close().await;
        let mut judged = self.judged(vec![read?]);
        judged.pop().ok_or_else(|| unknown(&[], name))
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

    /// Reads the tenants by name; with `only`, that one, if there is one of that name.
    pub(crate) async fn read_tenants(&self, connection: &Connection, only: Option<&str>) -> Result<Vec<Tenant>, Error> {
        let failed = |error: &pgfleet_postgres::Error| Error::postgres("cannot read the tenants", error);
        let values: &[(&(dyn ToSql + Sync), Type)] = &[(&only, Type::TEXT)];
        let (tenants, strings, databases) = (tenants_sql(), strings_sql(only.is_some()), databases_sql());
        let rows = futures_util::future::try_join4(
            connection.query(&tenants, values),
            connection.query(&strings, values),
            connection.query(&databases, values),
            connection.query(PROPERTIES, values),
        );
        let rows = async { rows.await.map_err(|error| failed(&error)) };
        let ((tenants, strings, databases, properties), standings) =
            futures_util::future::try_join(rows, standing::read(connection, only)).await?;
        let mut tenants: Vec<Tenant> = tenants.iter().map(tenant_of).collect::<Result<_, _>>()?;
        let strings: Vec<(String, TenantString)> = strings.iter().map(string_of).collect();
        let same = Same::of(&strings);
        let mut by_tenant: BTreeMap<String, Vec<TenantString>> = BTreeMap::new();
        for (tenant, mut string) in strings {
            string.same_as = same.as_that(&tenant, &string);
            by_tenant.entry(tenant).or_default().push(string);
        }
        let mut made: BTreeMap<String, Vec<OwnDatabase>> = BTreeMap::new();
        for row in &databases {
            made.entry(row.get(0)).or_default().push(database_of(row));
        }
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in &properties {
            given.entry(row.get(0)).or_default().push(row.get(1));
        }
        let mut stand: BTreeMap<String, Vec<Standing>> = BTreeMap::new();
        for standing in standings {
            stand.entry(standing.tenant.clone()).or_default().push(standing);
        }
        let readable: Vec<_> = tenant_services(&self.manifest)
            .map(|service| (service.name.clone(), readable(&self.manifest, service)))
            .collect();
        for tenant in &mut tenants {
            tenant.strings = by_tenant.remove(&tenant.name).unwrap_or_default();
            tenant.databases = made.remove(&tenant.name).unwrap_or_default();
            tenant.properties = given.remove(&tenant.name).unwrap_or_default();
            tenant.standings = stand.remove(&tenant.name).unwrap_or_default();
            for string in &mut tenant.strings {
                let readers = readable.iter().filter(|(_, names)| names.contains(string.connection.as_str()));
                string.readers = readers.map(|(service, _)| service.clone()).collect();
            }
        }
        Ok(tenants)
    }

    /// Reads one tenant.
    ///
    /// # Errors
    ///
    /// There is none of that name, with the one that was probably meant.
    pub(crate) async fn read_tenant(&self, connection: &Connection, name: &str) -> Result<Tenant, Error> {
        match self.read_tenants(connection, Some(name)).await?.pop() {
            Some(tenant) => Ok(tenant),
            None => Err(no_tenant(connection, name).await),
        }
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

/// Says that there is no tenant of a name, with the one that was probably meant.
pub(super) async fn no_tenant(connection: &Connection, name: &str) -> Error {
    let names = match connection.query("SELECT name FROM control.tenants ORDER BY name", &[]).await {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        // The name is wrong whether or not the others can be read.
        Err(_) => Vec::new(),
    };
    unknown(&names.iter().map(String::as_str).collect::<Vec<_>>(), name)
}

/// The names of tenants' properties.
const PROPERTIES: &str =
    "SELECT tenant, name FROM control.tenant_properties WHERE $1 IS NULL OR tenant = $1 ORDER BY tenant, name";

fn tenants_sql() -> String {
    format!(
        "SELECT name, display_name, state, to_char(created_at AT TIME ZONE 'UTC', {UTC}), \
         to_char(updated_at AT TIME ZONE 'UTC', {UTC}), error, attempts FROM control.tenants \
         WHERE $1 IS NULL OR name = $1 ORDER BY name"
    )
}

/// The strings of all tenants; or of the one that is asked for, and those of others that lead to the same databases.
fn strings_sql(one: bool) -> String {
    let (from, which) = if one { (strings_of_one("$1"), "") } else { (ALL_STRINGS.to_owned(), "WHERE $1 IS NULL ") };
    format!(
        "SELECT s.tenant, s.connection, s.shown, s.system_identifier, s.database, coalesce(s.database_oid, 0::oid), \
         coalesce(s.server_version, 0), to_char(s.checked_at AT TIME ZONE 'UTC', {UTC}), s.shared, s.server \
         FROM {from} {which}ORDER BY s.tenant, s.connection"
    )
}

/// All strings, as `s`.
pub(crate) const ALL_STRINGS: &str = "control.tenant_strings s";

/// The strings, as `s`, of the tenant that a parameter names, and those of others that lead to the same databases.
///
/// Found by what the tenant's own lead to: asking of every string whether it leads there would take longer
/// for each tenant the more of them there are.
pub(crate) fn strings_of_one(parameter: &str) -> String {
    let others = |same: &str| {
        format!(
            "SELECT t.tenant, t.connection FROM control.tenant_strings o JOIN control.tenant_strings t \
             ON t.system_identifier = o.system_identifier AND {same} \
             WHERE o.tenant = {parameter} AND o.system_identifier <> ''"
        )
    };
    format!(
        "(SELECT tenant, connection FROM control.tenant_strings WHERE tenant = {parameter} UNION {} UNION {}) AS k \
         JOIN control.tenant_strings s ON s.tenant = k.tenant AND s.connection = k.connection",
        others("t.database_oid = o.database_oid"),
        others("t.database = o.database")
    )
}

fn databases_sql() -> String {
    format!(
        "SELECT tenant, server, database, connection, services, state, database_oid, \
         to_char(closed_at AT TIME ZONE 'UTC', {UTC}), to_char(drop_after AT TIME ZONE 'UTC', {UTC}), \
         system_identifier FROM control.tenant_databases WHERE $1 IS NULL OR tenant = $1 \
         ORDER BY tenant, connection, made_at, server, database"
    )
}

fn tenant_of(row: &Row) -> Result<Tenant, Error> {
    Ok(Tenant {
        name: row.get(0),
        display_name: row.get(1),
        state: TenantState::read(row.get(2))?,
        created_at: row.get(3),
        updated_at: row.get(4),
        error: row.get(5),
        attempts: u32::try_from(row.get::<_, i32>(6)).unwrap_or_default(),
        strings: Vec::new(),
        databases: Vec::new(),
        properties: Vec::new(),
        standings: Vec::new(),
    })
}

fn string_of(row: &Row) -> (String, TenantString) {
    let checked_at: Option<String> = row.get(7);
    let physical = Physical {
        system_identifier: row.get(3),
        database: row.get(4),
        oid: row.get(5),
        server_version: u32::try_from(row.get::<_, i32>(6)).unwrap_or_default(),
    };
    let string = TenantString {
        connection: row.get(1),
        shown: row.get(2),
        physical: checked_at.is_some().then_some(physical),
        checked_at,
        shared: row.get(8),
        server: row.get(9),
        same_as: Vec::new(),
        readers: Vec::new(),
    };
    (row.get(0), string)
}

fn database_of(row: &Row) -> OwnDatabase {
    OwnDatabase {
        server: row.get(1),
        database: row.get(2),
        connection: row.get(3),
        services: row.get(4),
        state: row.get(5),
        oid: row.get(6),
        closed_at: row.get(7),
        drop_after: row.get(8),
        system_identifier: row.get(9),
    }
}

/// Which strings lead to one database.
struct Same {
    /// By oid and by name, so that thousands of strings are not compared with each other.
    places: BTreeMap<(String, String), Vec<SameAs>>,
}

impl Same {
    fn keys(physical: &Physical) -> [(String, String); 2] {
        let system = &physical.system_identifier;
        [(system.clone(), format!("oid {}", physical.oid)), (system.clone(), format!("name {}", physical.database))]
    }

    fn of(strings: &[(String, TenantString)]) -> Self {
        let mut places: BTreeMap<(String, String), Vec<SameAs>> = BTreeMap::new();
        for (tenant, string) in strings {
            for key in string.physical.iter().flat_map(Self::keys) {
                let place = SameAs { tenant: tenant.clone(), connection: string.connection.clone() };
                places.entry(key).or_default().push(place);
            }
        }
        Self { places }
    }

    /// Returns the other strings that lead where this one does.
    fn as_that(&self, tenant: &str, string: &TenantString) -> Vec<SameAs> {
        let mut same: Vec<SameAs> = Vec::new();
        for key in string.physical.iter().flat_map(Self::keys) {
            for place in self.places.get(&key).into_iter().flatten() {
                let itself = place.tenant == tenant && place.connection == string.connection;
                if !itself && !same.contains(place) {
                    same.push(place.clone());
                }
            }
        }
        same
    }
}
