//! The end of a tenant that had no database of its own.

use pgfleet_postgres::Type;

use crate::error::{Error, ErrorKind};
use crate::event::Observer;
use crate::options::Options;
use crate::path::SetPath;
use crate::run::{Opened, open, retrying};
use crate::target::Target;

/// Forgets which seeds ran for a tenant in a database that it shares with the host, and returns how
/// many: another tenant of the same name is seeded anew then. What the seeds wrote stays.
///
/// # Errors
///
/// [`ErrorKind::Findings`] for a target that is not shared; the lock and the connection as with
/// [`run::seed`](crate::run::seed).
///
/// # Cancel safety
///
/// As [`run::seed`](crate::run::seed).
pub async fn forget(target: &Target, path: &SetPath, options: &Options, observer: &dyn Observer) -> Result<u64, Error> {
    let Some(tenant) = target.guest() else {
        return Err(Error::new(ErrorKind::Findings, format!("cannot forget the seeds of {}", target.name))
            .cause("no tenant has its rows among those of others here"));
    };
    retrying(target, options, observer, || once(tenant, target, path, options, observer)).await
}

async fn once(
    tenant: &str,
    target: &Target,
    path: &SetPath,
    options: &Options,
    observer: &dyn Observer,
) -> Result<u64, Error> {
    // Without a database there is nothing to forget.
    let Opened::Connected { connection, .. } = open(target, "forget the seeds of", false, options, observer).await?
    else {
        return Ok(0);
    };
    let result = async {
        let held = crate::lock::acquire(&connection, target, options, observer, || async { Ok(None::<()>) }).await?;
        debug_assert!(held.is_none(), "nothing settles it but the lock");
        let mut forgotten = 0;
        for set in path.sets() {
            let sql = format!("DELETE FROM {} WHERE tenant = $1", set.history.seeds_by_tenant_quoted());
            match connection.execute(&sql, &[(&tenant, Type::TEXT)]).await {
                Ok(rows) => forgotten += rows,
                // Made when the first seed of a tenant runs.
                Err(error) if matches!(error.sql_state(), Some("42P01" | "3F000")) => {}
                Err(error) => {
                    return Err(Error::connection(format!("cannot forget the seeds of {}", target.name), error));
                }
            }
        }
        let flushed = crate::store::flush(&connection).await;
        flushed.map_err(|error| Error::connection(format!("cannot forget the seeds of {}", target.name), error))?;
        Ok(forgotten)
    };
    let result = result.await;
    // Also frees the lock.
    connection.close().await;
    result
}
