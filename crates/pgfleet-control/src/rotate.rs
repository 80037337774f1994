//! Putting a new key in the place of an old one.
//!
//! Every row names the key that sealed it, and is opened with that one. So it does not matter which
//! rows are under which key while a rotation is under way, nor whether it was finished: what is stored
//! meanwhile is under the new key, and whoever has both keys reads everything.

use pgfleet_postgres::{Connection, Type};

use crate::error::Error;
use crate::seal::KeyRing;
use crate::tenants::{context, property_context};

/// Where something is under another key than the present one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stale {
    /// Passwords of roles.
    pub(crate) credentials: bool,
    /// Tenants' connection strings.
    pub(crate) strings: bool,
    /// Tenants' seed properties.
    pub(crate) properties: bool,
}

impl Stale {
    pub(crate) fn any(self) -> bool {
        self.credentials || self.strings || self.properties
    }
}

/// Looks for what is under another key than the one of this name.
///
/// `credentials`: whether passwords of roles are in this database at all.
pub(crate) async fn stale(connection: &Connection, key_id: &str, credentials: bool) -> Result<Stale, Error> {
    let rows = connection
        .query(
            "SELECT $2 AND EXISTS (SELECT FROM control.credentials WHERE key_id <> $1), \
             EXISTS (SELECT FROM control.tenant_strings WHERE key_id <> $1), \
             EXISTS (SELECT FROM control.tenant_properties WHERE key_id <> $1)",
            &[(&key_id, Type::TEXT), (&credentials, Type::BOOL)],
        )
        .await
        .map_err(|error| failed(&error))?;
    let flag = |at: usize| rows.first().is_some_and(|row| row.get(at));
    Ok(Stale { credentials: flag(0), strings: flag(1), properties: flag(2) })
}

/// Returns whether any tenant has a sealed property, which also one without a database of its own may.
pub(crate) async fn has_properties(connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM control.tenant_properties)";
    let rows = connection.query(sql, &[]).await.map_err(|error| failed(&error))?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Seals with the present key what is under another one; returns how many rows.
///
/// Within the caller's transaction, row by row: no secret is anywhere but in one row's hands.
///
/// # Errors
///
/// A key that a row names is not here.
pub(crate) async fn reseal(connection: &Connection, keys: &KeyRing, credentials: bool) -> Result<usize, Error> {
    let mut tables = vec![
        Table { name: "tenant_strings", key: ["tenant", "connection"], context: context as fn(&str, &str) -> String },
        Table { name: "tenant_properties", key: ["tenant", "name"], context: property_context },
    ];
    if credentials {
        let context = |server: &str, role: &str| format!("{server}/{role}");
        tables.insert(0, Table { name: "credentials", key: ["server", "role"], context });
    }
    let mut count = 0;
    for table in &tables {
        count += table.reseal(connection, keys).await?;
    }
    Ok(count)
}

/// A table with sealed rows, each bound to what its key's two columns say.
struct Table {
    name: &'static str,
    key: [&'static str; 2],
    context: fn(&str, &str) -> String,
}

impl Table {
    async fn reseal(&self, connection: &Connection, keys: &KeyRing) -> Result<usize, Error> {
        let (table, [first, second]) = (self.name, self.key);
        let select = format!(
            "SELECT {first}, {second}, key_id, sealed FROM control.{table} WHERE key_id <> $1 \
             ORDER BY {first}, {second} FOR UPDATE"
        );
        let update =
            format!("UPDATE control.{table} SET key_id = $3, sealed = $4 WHERE {first} = $1 AND {second} = $2");
        let rows = connection.query(&select, &[(&keys.id(), Type::TEXT)]).await.map_err(|error| failed(&error))?;
        for row in &rows {
            let (first, second): (&str, &str) = (row.get(0), row.get(1));
            let context = (self.context)(first, second);
            let sealed = keys.seal(&keys.open(row.get(2), row.get(3), &context)?, &context)?;
            let values = [
                (&first as _, Type::TEXT),
                (&second as _, Type::TEXT),
                (&keys.id() as _, Type::TEXT),
                (&sealed as _, Type::BYTEA),
            ];
            connection.execute(&update, &values).await.map_err(|error| failed(&error))?;
        }
        Ok(rows.len())
    }
}

fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot seal with the new key", error)
}
