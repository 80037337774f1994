//! Closing a tenant's database: nobody can connect, and everything in it stays.

use std::time::Duration;

use pgfleet_postgres::{Connection, Type, quote_ident, quote_literal};

use super::OwnDatabase;
use super::bench::Bench;
use super::dropping::forget;
use super::read::UTC;
use super::remove::Keep;
use crate::error::Error;
use crate::provision::tenant::{Seen, desired_tenant_database, owner, tenant_mark};
use crate::solution::Solution;
use crate::templates::Shape;

/// What became of a database that was to be closed.
#[derive(Debug)]
pub(super) enum Closed {
    /// Nobody can connect; dropped after this time.
    Shut(Option<String>),
    /// There is none.
    NotThere,
    /// It is somebody else's, with its comment.
    Foreign(String),
}

impl Solution {
    /// Closes a database of a tenant and notes when it may be dropped.
    pub(super) async fn close_own(
        &self,
        bench: &mut Bench,
        tenant: &str,
        own: &OwnDatabase,
        keep: Keep,
    ) -> Result<Closed, Error> {
        let admin = &bench.admin(self, &own.server).await?.connection;
        let Some(seen) = Seen::of(admin, &own.database).await? else {
            forget(&bench.catalogue, own).await?;
            return Ok(Closed::NotThere);
        };
        if !self.is_own(own, &seen) {
            // A row that was never followed by a database of ours.
            forget(&bench.catalogue, own).await?;
            return Ok(Closed::Foreign(seen.comment));
        }
        let mark = tenant_mark(&self.manifest.solution.name, tenant);
        close(admin, &own.database, &mark).await.map_err(|error| {
            Error::postgres(format!("cannot close database {} of tenant {tenant}", own.database), &error)
        })?;
        let kept = match keep {
            Keep::AsConfigured => self.manifest.tenants.drop_after,
            Keep::For(time) => time,
            Keep::Not => Duration::ZERO,
        };
        let seconds = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
        // One that was closed before keeps its date, unless another is asked for.
        let anew = keep != Keep::AsConfigured;
        let rows = bench
            .catalogue
            .connection()
            .query(
                &format!(
                    "UPDATE control.tenant_databases SET state = 'closed', closed_at = coalesce(closed_at, now()), \
                     drop_after = CASE WHEN $4 OR drop_after IS NULL THEN now() + $3::bigint * interval '1 second' \
                                       ELSE drop_after END, database_oid = $5 \
                     WHERE server = $1 AND database = $2 \
                     RETURNING to_char(drop_after AT TIME ZONE 'UTC', {UTC})"
                ),
                &[
                    (&own.server, Type::TEXT),
                    (&own.database, Type::TEXT),
                    (&seconds, Type::INT8),
                    (&anew, Type::BOOL),
                    (&seen.oid, Type::OID),
                ],
            )
            .await
            .map_err(|error| Error::postgres("cannot change the tenants", &error))?;
        bench.catalogue.forget_standings(&own.server, &own.database).await?;
        Ok(Closed::Shut(rows.first().and_then(|row| row.get(0))))
    }

    /// Returns whether a database is the one that was made for a tenant of this solution.
    pub(super) fn is_own(&self, own: &OwnDatabase, seen: &Seen) -> bool {
        match own.oid {
            Some(oid) => oid == seen.oid && seen.is_marked(&self.manifest.solution.name),
            None => seen.is_marked(&self.manifest.solution.name) || seen.is_half_made(self.owner_of(own).as_deref()),
        }
    }

    /// Returns the role that owns such a database; none for the administrator.
    fn owner_of(&self, own: &OwnDatabase) -> Option<String> {
        let services = Shape::of(&self.manifest, &own.services);
        // The manifest has one of them no longer: then it is nobody's but the administrator's, as far as is known.
        let services = services.of_manifest(&self.manifest).unwrap_or_default();
        owner(&desired_tenant_database(&self.manifest, &services, &own.database)).map(str::to_owned)
    }
}

/// Closes a database and ends the sessions in it.
pub(super) async fn close(admin: &Connection, database: &str, mark: &str) -> Result<(), pgfleet_postgres::Error> {
    let quoted = quote_ident(database);
    // Closed first, so that nobody comes in behind those who are sent away.
    admin
        .execute_all(&format!(
            "COMMENT ON DATABASE {quoted} IS {}; ALTER DATABASE {quoted} ALLOW_CONNECTIONS false",
            quote_literal(mark)
        ))
        .await?;
    end_sessions(admin, database).await
}

/// Ends the sessions in a database, and waits until they have.
///
/// An administrator who is no superuser may end those of roles of which he has the rights: he takes them
/// for the one transaction.
async fn end_sessions(admin: &Connection, database: &str) -> Result<(), pgfleet_postgres::Error> {
    // What kind of process it is he may not see; one that has a user is no background worker.
    let sessions = format!(
        "FROM pg_catalog.pg_stat_activity a WHERE a.datname = {} AND a.usesysid IS NOT NULL \
         AND a.pid <> pg_catalog.pg_backend_pid()",
        quote_literal(database)
    );
    let lacking = format!("SELECT DISTINCT a.usename {sessions} AND NOT pg_catalog.pg_has_role(a.usesysid, 'USAGE')");
    let rows = admin.simple(&lacking).await?;
    let roles: Vec<String> = rows.iter().filter_map(|row| row.get(0)).map(quote_ident).collect();
    let mut sql = format!("SELECT pg_catalog.pg_terminate_backend(a.pid, 5000) {sessions}");
    if !roles.is_empty() {
        let roles = roles.join(", ");
        let inherit = if admin.server_version() >= 160_000 { " WITH INHERIT TRUE" } else { "" };
        sql = format!("GRANT {roles} TO CURRENT_USER{inherit}; {sql}; REVOKE {roles} FROM CURRENT_USER");
    }
    admin.execute_all(&sql).await
}
