//! How a tenant leaves: its databases are closed, kept for a while, and dropped.
//!
//! Until they are dropped everything can be had back. What is dropped is marked as this solution's and is
//! the very database that was made; a database that somebody else made is never touched.

use std::time::Duration;

use pgfleet_postgres::{Connection, Type};
use serde::Serialize;

use super::bench::Bench;
use super::closing::Closed;
use super::verbs::{execute, lock, touch};
use super::{Tenant, TenantState};
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::solution::Solution;

/// What happens to the databases of a tenant that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// They are kept closed as long as `drop_after` of `[tenants]` says.
    AsConfigured,
    /// They are kept closed so long.
    For(Duration),
    /// They are dropped at once.
    Not,
}

/// What deleting a tenant did.
#[derive(Debug, Clone, Serialize)]
pub struct Removed {
    /// The tenant.
    pub tenant: String,
    /// The databases that nobody can connect to any more, with their servers.
    pub closed: Vec<String>,
    /// The databases that were dropped.
    pub dropped: Vec<String>,
    /// The databases that stay as they are, and why.
    pub left: Vec<String>,
    /// When the closed ones may be dropped, in UTC.
    pub drop_after: Option<String>,
    /// Whether the tenant is gone, and its name free.
    pub gone: bool,
}

impl Solution {
    /// Deletes a tenant: services refuse it, nobody can connect to the databases that were made for it,
    /// and after a while those are dropped. Then its name is free again.
    ///
    /// A database that another tenant shares becomes the other's, and one that was given by a string
    /// stays as it is. A tenant without databases of its own is gone at once. Asking again goes on with
    /// what was left half done.
    ///
    /// # Errors
    ///
    /// There is no such tenant; a server refuses. The tenant is `deleting` then.
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on.
    pub async fn delete_tenant(&self, name: &str, keep: Keep) -> Result<Removed, Error> {
        let mut bench = Bench::open(self, false).await?;
        let removed = async {
            bench.hold(name).await?;
            let removed = Box::pin(self.delete_held(&mut bench, name, keep)).await;
            bench.release(name).await;
            removed
        };
        let removed = removed.await;
        bench.close().await;
        removed
    }

    pub(super) async fn delete_held(&self, bench: &mut Bench, name: &str, keep: Keep) -> Result<Removed, Error> {
        let (tenant, mut left) = self.begin_delete(&bench.catalogue, name, keep).await?;
        let mut removed = Removed {
            tenant: name.to_owned(),
            closed: Vec::new(),
            dropped: Vec::new(),
            left: Vec::new(),
            drop_after: None,
            gone: false,
        };
        for own in &tenant.databases {
            let closed = self.close_own(bench, name, own, keep).await;
            if let Err(error) = &closed {
                note_error(&bench.catalogue, name, error).await;
            }
            match closed? {
                Closed::Shut(after) => {
                    removed.closed.push(format!("{} on {}", own.database, own.server));
                    removed.drop_after = after;
                }
                Closed::NotThere => {}
                Closed::Foreign(comment) => left.push(format!(
                    "{} on {} is not ours ({})",
                    own.database,
                    own.server,
                    if comment.is_empty() { "nobody marked it" } else { &comment }
                )),
            }
        }
        if keep == Keep::Not {
            for own in &tenant.databases {
                self.drop_own(bench, name, own).await?;
            }
            removed.dropped = std::mem::take(&mut removed.closed);
            removed.drop_after = None;
        }
        removed.left = left;
        removed.gone = self.end_delete(&bench.catalogue, name).await?;
        Ok(removed)
    }

    /// Has services refuse a tenant, and gives databases that another tenant shares to that one; returns
    /// the tenant as it was, and what was given away.
    async fn begin_delete(
        &self,
        catalogue: &Catalogue,
        name: &str,
        keep: Keep,
    ) -> Result<(Tenant, Vec<String>), Error> {
        let connection = catalogue.connection();
        catalogue.begin().await?;
        let work = async {
            lock(connection).await?;
            let mut tenant = self.read_tenant(connection, name).await?;
            // Refuses one that is being moved.
            touch(connection, name).await?;
            let mut left: Vec<String> = tenant
                .strings
                .iter()
                .filter(|string| string.server.is_empty())
                .map(|string| format!("{} was given by a string", string.shown))
                .collect();
            for (own, other) in sharers(connection, name).await? {
                execute(
                    connection,
                    "UPDATE control.tenant_databases SET tenant = $3 WHERE server = $1 AND database = $2",
                    &[(&own.0, Type::TEXT), (&own.1, Type::TEXT), (&other, Type::TEXT)],
                )
                .await?;
                left.push(format!("{} on {} is tenant {other}'s, too", own.1, own.0));
                tenant.databases.retain(|database| (&database.server, &database.database) != (&own.0, &own.1));
            }
            if !matches!(tenant.state, TenantState::Deleting | TenantState::Quarantined) {
                let names: Vec<&str> = tenant.databases.iter().map(|own| own.database.as_str()).collect();
                let detail = serde_json::json!({
                    "from": tenant.state.word(), "databases": names, "left": left, "now": keep == Keep::Not,
                });
                catalogue.audit("tenant delete", name, &detail, self.options()).await?;
            }
            execute(
                connection,
                "UPDATE control.tenants SET state = 'deleting', error = NULL, updated_at = now() WHERE name = $1",
                &[(&name, Type::TEXT)],
            )
            .await?;
            Ok((tenant, left))
        };
        let result = Box::pin(work).await;
        catalogue.end(result).await
    }

    /// Ends deleting a tenant: it is in quarantine while it has databases, and gone when it has none.
    pub(super) async fn end_delete(&self, catalogue: &Catalogue, name: &str) -> Result<bool, Error> {
        catalogue.begin().await?;
        let work = async {
            let connection = catalogue.connection();
            lock(connection).await?;
            let tenant = self.read_tenant(connection, name).await?;
            if !tenant.databases.is_empty() {
                let sql = "UPDATE control.tenants SET state = 'quarantined', error = NULL, updated_at = now() \
                           WHERE name = $1 AND state = 'deleting'";
                execute(connection, sql, &[(&name, Type::TEXT)]).await?;
                return Ok(false);
            }
            for sql in ["DELETE FROM control.targets WHERE tenant = $1", "DELETE FROM control.tenants WHERE name = $1"]
            {
                execute(connection, sql, &[(&name, Type::TEXT)]).await?;
            }
            let strings: Vec<_> = tenant.strings.iter().map(|string| (&string.connection, &string.shown)).collect();
            let detail = serde_json::json!({
                "display_name": tenant.display_name, "created_at": tenant.created_at, "strings": strings,
            });
            catalogue.audit("tenant gone", name, &detail, self.options()).await?;
            Ok(true)
        };
        let result = Box::pin(work).await;
        catalogue.end(result).await
    }
}

/// Finds the databases made for a tenant to which another tenant's string leads, too.
async fn sharers(connection: &Connection, tenant: &str) -> Result<Vec<((String, String), String)>, Error> {
    let rows = connection
        .query(
            "SELECT DISTINCT ON (d.server, d.database) d.server, d.database, s.tenant \
             FROM control.tenant_databases d JOIN control.tenant_strings s ON s.tenant <> d.tenant \
               AND s.system_identifier = d.system_identifier \
               AND (s.database_oid = d.database_oid OR s.database = d.database) \
             WHERE d.tenant = $1 AND d.system_identifier <> '' ORDER BY d.server, d.database, s.tenant",
            &[(&tenant, Type::TEXT)],
        )
        .await
        .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}

/// Notes why a tenant could not be deleted.
async fn note_error(catalogue: &Catalogue, tenant: &str, error: &Error) {
    let text = std::iter::once(error.to_string()).chain(error.causes().iter().cloned()).collect::<Vec<_>>().join(": ");
    let sql = "UPDATE control.tenants SET error = $2, attempts = attempts + 1 WHERE name = $1 AND state = 'deleting'";
    // That it cannot be noted is no second error: the first is told.
    let _noted = execute(catalogue.connection(), sql, &[(&tenant, Type::TEXT), (&text, Type::TEXT)]).await;
}
