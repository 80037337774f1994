//! How a tenant leaves: its databases are closed, kept for a while, and dropped.
//!
//! Until they are dropped everything can be had back. What is dropped is marked as this solution's and is
//! the very database that was made; a database that somebody else made is never touched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_migrate::Observer;
use pgfleet_postgres::{Connection, Type, quote_ident, quote_literal};
use serde::Serialize;

use super::bench::Bench;
use super::life::Half;
use super::read::UTC;
use super::verbs::{execute, lock, touch};
use super::workshop::Workshop;
use super::{Done, OwnDatabase, Tenant, TenantState, properties, replaced};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::provision::tenant::{Seen, desired_tenant_database, owner, tenant_mark};
use crate::solution::Solution;
use crate::templates::Shape;

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

/// A database that was due to be dropped.
#[derive(Debug, Clone, Serialize)]
pub struct Dropped {
    /// The tenant.
    pub tenant: String,
    /// The server.
    pub server: String,
    /// The database.
    pub database: String,
    /// Why it could not be dropped; none when it is gone.
    pub error: Option<String>,
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
        let services = services.of_manifest(&self.manifest).unwrap_or_default();
        owner(&desired_tenant_database(&self.manifest, &services, &own.database)).map(str::to_owned)
    }

    /// Drops a database of a tenant that is closed; nothing when it is not there.
    pub(super) async fn drop_own(&self, bench: &mut Bench, tenant: &str, own: &OwnDatabase) -> Result<(), Error> {
        let connection = bench.catalogue.connection();
        let noted = execute(
            connection,
            "UPDATE control.tenant_databases SET state = 'dropping' WHERE server = $1 AND database = $2 \
             AND tenant = $3 AND state IN ('closed', 'dropping')",
            &[(&own.server, Type::TEXT), (&own.database, Type::TEXT), (&tenant, Type::TEXT)],
        )
        .await?;
        if noted == 0 {
            return Ok(());
        }
        let admin = &bench.admin(self, &own.server).await?.connection;
        match Seen::of(admin, &own.database).await? {
            Some(seen) if self.is_own(own, &seen) => {
                drop_marked(admin, &own.database).await?;
            }
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Failed,
                    format!("cannot drop database {} on {}", own.database, own.server),
                )
                .cause("another database has taken its name: it is not the one that was made for the tenant")
                .hinted(format!("rename it, then: pgfleet tenant delete {tenant} --now")));
            }
            None => {}
        }
        forget(&bench.catalogue, own).await?;
        let detail = serde_json::json!({ "server": own.server, "database": own.database });
        bench.catalogue.audit("tenant drop", tenant, &detail, self.options()).await
    }

    /// Ends deleting a tenant: it is in quarantine while it has databases, and gone when it has none.
    async fn end_delete(&self, catalogue: &Catalogue, name: &str) -> Result<bool, Error> {
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

    /// Has a deleted tenant back: its databases are opened, brought to the head of the files, and services
    /// serve it again. One that was disabled before is disabled.
    ///
    /// A tenant that is served is led back to the databases that were made for it and closed when it was
    /// given other strings; those strings are replaced. Without such a database nothing is changed.
    ///
    /// # Errors
    ///
    /// It is being made or moved; a database is gone; as [`create_tenants`](Self::create_tenants).
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on; what it has begun to open is not dropped meanwhile.
    pub async fn restore_tenant(&self, name: &str, observer: &Arc<dyn Observer>) -> Result<Done, Error> {
        let mut bench = Bench::open(self, false).await?;
        let restored = async {
            bench.hold(name).await?;
            let restored = Box::pin(self.restore_held(&mut bench, name, observer)).await;
            bench.release(name).await;
            restored
        };
        let restored = restored.await;
        bench.close().await;
        restored
    }

    async fn restore_held(&self, bench: &mut Bench, name: &str, observer: &Arc<dyn Observer>) -> Result<Done, Error> {
        let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
        match tenant.state {
            TenantState::Quarantined | TenantState::Deleting => {}
            TenantState::Active | TenantState::Disabled => {
                return Box::pin(self.lead_back(bench, tenant, observer)).await;
            }
            state => {
                let message = format!("tenant {name} is {}: it was not deleted", state.word());
                return Err(Error::new(ErrorKind::Failed, message)
                    .hinted(format!("go on with it: pgfleet tenant migrate {name}")));
            }
        }
        let databases = replaced::led(&tenant);
        for own in &databases {
            replaced::keep(bench.catalogue.connection(), own).await?;
        }
        let workshop = Workshop::of(self, observer).await?;
        let to = match was(&bench.catalogue, name).await?.as_deref() {
            Some("disabled") => TenantState::Disabled,
            _ => TenantState::Active,
        };
        let values = properties::read(bench.catalogue.connection(), &self.keys()?, name).await?;
        let strings = tenant.strings.iter().filter(|string| string.server.is_empty());
        let half = Half {
            name: tenant.name.clone(),
            given: strings.map(|string| string.connection.clone()).collect::<BTreeSet<_>>(),
            databases,
            values,
        };
        let notes = workshop.finish(bench, half, to).await?;
        let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
        Ok(Done { tenant, changed: true, notes })
    }

    /// Drops the databases whose time has come, one after the other, since each makes the server write a
    /// checkpoint; tenants that have none left are gone.
    ///
    /// # Errors
    ///
    /// The control database cannot be read. What cannot be dropped is reported, and tried the next time.
    pub async fn drop_due_databases(&self) -> Result<Vec<Dropped>, Error> {
        let mut bench = Bench::open(self, false).await?;
        let dropped = Box::pin(self.drop_due(&mut bench)).await;
        bench.close().await;
        dropped
    }

    pub(super) async fn drop_due(&self, bench: &mut Bench) -> Result<Vec<Dropped>, Error> {
        let mut all = Vec::new();
        for (tenant, server, database) in due(&bench.catalogue).await? {
            if self.options().stop.is_asked() {
                break;
            }
            // Somebody works on it: it may be wanted back.
            if !bench.try_hold(&tenant).await? {
                continue;
            }
            let result = Box::pin(self.drop_one_due(bench, &tenant, &server, &database)).await;
            bench.release(&tenant).await;
            let error = match result {
                Ok(true) => None,
                Ok(false) => continue,
                Err(error) => {
                    Some(std::iter::once(error.to_string()).chain(error.causes().to_vec()).collect::<Vec<_>>())
                }
            };
            all.push(Dropped { tenant, server, database, error: error.map(|texts| texts.join(": ")) });
        }
        Ok(all)
    }

    /// Drops a database that is due still, and the tenant when it was the last of one that was deleted.
    async fn drop_one_due(&self, bench: &mut Bench, tenant: &str, server: &str, database: &str) -> Result<bool, Error> {
        let still = due(&bench.catalogue).await?;
        if !still.iter().any(|(of, at, name)| (of.as_str(), at.as_str(), name.as_str()) == (tenant, server, database)) {
            return Ok(false);
        }
        let found = self.read_tenant(bench.catalogue.connection(), tenant).await?;
        let of_it = |own: &&OwnDatabase| own.server == server && own.database == database;
        if let Some(own) = found.databases.iter().find(of_it) {
            self.drop_own(bench, tenant, own).await?;
        }
        if matches!(found.state, TenantState::Quarantined | TenantState::Deleting) {
            self.end_delete(&bench.catalogue, tenant).await?;
        }
        Ok(true)
    }
}

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

/// Drops a database that is known to be ours.
pub(super) async fn drop_marked(admin: &Connection, database: &str) -> Result<(), Error> {
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(database));
    admin.execute_all(&sql).await.map_err(|error| Error::postgres(format!("cannot drop database {database}"), &error))
}

/// Takes away what is written of a tenant's database.
pub(super) async fn forget(catalogue: &Catalogue, own: &OwnDatabase) -> Result<(), Error> {
    execute(
        catalogue.connection(),
        "DELETE FROM control.tenant_databases WHERE server = $1 AND database = $2",
        &[(&own.server, Type::TEXT), (&own.database, Type::TEXT)],
    )
    .await?;
    catalogue.forget_standings(&own.server, &own.database).await
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

/// Lists what is due to be dropped: tenant, server, database.
pub(super) async fn due(catalogue: &Catalogue) -> Result<Vec<(String, String, String)>, Error> {
    let rows = catalogue
        .connection()
        .query(
            "SELECT tenant, server, database FROM control.tenant_databases \
             WHERE state = 'dropping' OR state = 'closed' AND drop_after <= now() ORDER BY drop_after, server, database",
            &[],
        )
        .await
        .map_err(|error| Error::postgres("cannot read which databases are due", &error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// Returns the state in which a tenant was deleted.
async fn was(catalogue: &Catalogue, tenant: &str) -> Result<Option<String>, Error> {
    let rows = catalogue
        .connection()
        .query(
            "SELECT detail ->> 'from' FROM control.audit WHERE action = 'tenant delete' AND subject = $1 \
             ORDER BY id DESC LIMIT 1",
            &[(&tenant, Type::TEXT)],
        )
        .await
        .map_err(|error| Error::postgres("cannot read the audit", &error))?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Notes why a tenant could not be deleted.
async fn note_error(catalogue: &Catalogue, tenant: &str, error: &Error) {
    let text = std::iter::once(error.to_string()).chain(error.causes().iter().cloned()).collect::<Vec<_>>().join(": ");
    let sql = "UPDATE control.tenants SET error = $2, attempts = attempts + 1 WHERE name = $1 AND state = 'deleting'";
    // That it cannot be noted is no second error: the first is told.
    let _noted = execute(catalogue.connection(), sql, &[(&tenant, Type::TEXT), (&text, Type::TEXT)]).await;
}
