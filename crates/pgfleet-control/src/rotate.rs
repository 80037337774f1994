//! Putting a new key in the place of an old one.
//!
//! Every row names the key that sealed it, and is opened with that one. So it does not matter which
//! rows are under which key while a rotation is under way, nor whether it was finished: what is stored
//! meanwhile is under the new key, and whoever has both keys reads everything.

use pgfleet_postgres::{Connection, Type};

use crate::error::Error;
use crate::seal::KeyRing;
use crate::tenants::context;

/// Where something is under another key than the present one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stale {
    /// Passwords of roles.
    pub(crate) credentials: bool,
    /// Tenants' connection strings.
    pub(crate) strings: bool,
}

impl Stale {
    pub(crate) fn any(self) -> bool {
        self.credentials || self.strings
    }
}

/// Looks for what is under another key than the one of this name.
///
/// `credentials`: whether passwords of roles are in this database at all.
pub(crate) async fn stale(connection: &Connection, key_id: &str, credentials: bool) -> Result<Stale, Error> {
    let rows = connection
        .query(
            "SELECT $2 AND EXISTS (SELECT FROM control.credentials WHERE key_id <> $1), \
             EXISTS (SELECT FROM control.tenant_strings WHERE key_id <> $1)",
            &[(&key_id, Type::TEXT), (&credentials, Type::BOOL)],
        )
        .await
        .map_err(|error| failed(&error))?;
    let flag = |at: usize| rows.first().is_some_and(|row| row.get(at));
    Ok(Stale { credentials: flag(0), strings: flag(1) })
}

/// Seals with the present key what is under another one; returns how many rows.
///
/// Within the caller's transaction, row by row: no secret is anywhere but in one row's hands.
///
/// # Errors
///
/// A key that a row names is not here.
pub(crate) async fn reseal(connection: &Connection, keys: &KeyRing, credentials: bool) -> Result<usize, Error> {
    let mut count = 0;
    if credentials {
        let rows = connection
            .query(
                "SELECT server, role, key_id, sealed FROM control.credentials WHERE key_id <> $1 \
                 ORDER BY server, role FOR UPDATE",
                &[(&keys.id(), Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?;
        for row in &rows {
            let (server, role): (&str, &str) = (row.get(0), row.get(1));
            let context = format!("{server}/{role}");
            let sealed = keys.seal(&keys.open(row.get(2), row.get(3), &context)?, &context)?;
            let update = "UPDATE control.credentials SET key_id = $3, sealed = $4 WHERE server = $1 AND role = $2";
            write(connection, update, [server, role], keys, &sealed).await?;
        }
        count += rows.len();
    }
    let rows = connection
        .query(
            "SELECT tenant, connection, key_id, sealed FROM control.tenant_strings WHERE key_id <> $1 \
             ORDER BY tenant, connection",
            &[(&keys.id(), Type::TEXT)],
        )
        .await
        .map_err(|error| failed(&error))?;
    for row in &rows {
        let (tenant, name): (&str, &str) = (row.get(0), row.get(1));
        let context = context(tenant, name);
        let sealed = keys.seal(&keys.open(row.get(2), row.get(3), &context)?, &context)?;
        let update = "UPDATE control.tenant_strings SET key_id = $3, sealed = $4 WHERE tenant = $1 AND connection = $2";
        write(connection, update, [tenant, name], keys, &sealed).await?;
    }
    Ok(count + rows.len())
}

async fn write(
    connection: &Connection,
    update: &str,
    [first, second]: [&str; 2],
    keys: &KeyRing,
    sealed: &[u8],
) -> Result<(), Error> {
    connection
        .execute(
            update,
            &[(&first, Type::TEXT), (&second, Type::TEXT), (&keys.id(), Type::TEXT), (&sealed, Type::BYTEA)],
        )
        .await
        .map_err(|error| failed(&error))?;
    Ok(())
}

fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot seal with the new key", error)
}
