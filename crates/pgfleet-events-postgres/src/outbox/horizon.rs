//! What keeps old rows alive on a server.

use std::time::Duration;

use pgfleet_events::Error;
use pgfleet_postgres::pool::Pooled;

use crate::carried::unreadable;
use crate::error::failed;

/// Somebody for whose sake the server keeps rows that nobody else needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `transaction`, `prepared transaction`, `replication slot` or `standby`.
    pub kind: String,
    /// Who: a process with its application and database, or a name.
    pub who: String,
    /// How many transactions ago it began.
    pub transactions: i64,
    /// Since when; not known of slots.
    pub since: Option<Duration>,
}

const SQL: &str = "SELECT kind, who, age(x)::int8, (extract(epoch FROM clock_timestamp() - since) * 1000000)::int8 FROM (\
    SELECT CASE WHEN backend_type = 'walsender' THEN 'standby' ELSE 'transaction' END AS kind, \
           format('process %s, %s, database %s', pid, coalesce(nullif(application_name, ''), 'no name'), datname) AS who, \
           CASE WHEN backend_xmin IS NULL OR (backend_xid IS NOT NULL AND age(backend_xid) > age(backend_xmin)) \
                THEN backend_xid ELSE backend_xmin END AS x, xact_start AS since \
    FROM pg_catalog.pg_stat_activity WHERE pid <> pg_backend_pid() \
    UNION ALL SELECT 'prepared transaction', gid, transaction, prepared FROM pg_catalog.pg_prepared_xacts \
    UNION ALL SELECT 'replication slot', slot_name, \
           CASE WHEN xmin IS NULL OR (catalog_xmin IS NOT NULL AND age(catalog_xmin) > age(xmin)) \
                THEN catalog_xmin ELSE xmin END, NULL \
    FROM pg_catalog.pg_replication_slots) h \
    WHERE x IS NOT NULL ORDER BY age(x) DESC LIMIT 10";

/// Returns what holds the horizon back, the oldest first; at most ten.
///
/// Outbox and inbox go on whatever it is: their tables have no dead rows, so this is for everything else in the database.
/// What the role may not see is left out.
///
/// # Errors
///
/// A lost connection.
pub async fn horizon(db: &Pooled) -> Result<Vec<Holder>, Error> {
    let rows = db.query(SQL, &[]).await.map_err(|error| failed("cannot ask what holds old rows", error))?;
    rows.iter()
        .map(|row| {
            let since: Option<i64> = row.try_get(3).map_err(unreadable)?;
            Ok(Holder {
                kind: row.try_get(0).map_err(unreadable)?,
                who: row.try_get(1).map_err(unreadable)?,
                transactions: row.try_get(2).map_err(unreadable)?,
                since: since.and_then(|since| u64::try_from(since).ok()).map(Duration::from_micros),
            })
        })
        .collect()
}
