//! Dropping the databases of tenants whose time has come.
//!
//! What is dropped is marked as this solution's and is the very database that was made.

use pgfleet_postgres::{Connection, Type, quote_ident};
use serde::Serialize;

use super::bench::Bench;
use super::verbs::execute;
use super::{OwnDatabase, TenantState};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::provision::tenant::Seen;
use crate::solution::Solution;

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
