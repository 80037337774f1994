//! Who works, as the control database sees it: alive as long as its session is.
//!
//! A worker holds an advisory lock of its own in the control database, and writes the lock's number
//! into what it takes. Whoever finds a number without a lock takes the work back: no clock decides it,
//! and a process that was killed is dead when the server notices that its connection is gone.

use pgfleet_postgres::Purpose;

use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};

/// First half of workers' locks, `pgfw` in ASCII.
const SPACE: i32 = 0x7067_6677;

/// How often another number is tried; two processes that think of the same one are rare.
const TRIES: u32 = 16;

/// A worker that is alive as long as its catalogue's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worker {
    /// The number of its lock; never 0.
    pub(crate) number: i32,
}

impl Worker {
    /// Takes a lock that nobody else has.
    ///
    /// # Errors
    ///
    /// The control database cannot be asked.
    pub(crate) async fn begin(catalogue: &Catalogue) -> Result<Self, Error> {
        for _ in 0..TRIES {
            let number = rand::random_range(1..=i32::MAX);
            let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({SPACE}, {number})");
            let rows = catalogue
                .connection()
                .simple(&sql)
                .await
                .map_err(|error| Error::postgres("cannot begin to work with the control database", &error))?;
            if rows.first().and_then(|row| row.get(0)) == Some("t") {
                return Ok(Self { number });
            }
        }
        Err(Error::new(ErrorKind::Failed, "cannot begin to work with the control database")
            .cause(format!("{TRIES} locks in a row are taken")))
    }
}

/// Returns the query for the numbers of all workers that are alive.
pub(crate) fn alive_sql() -> String {
    format!(
        "SELECT objid::bigint::integer FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND classid = {SPACE} \
         AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_catalog.pg_database \
         WHERE datname = pg_catalog.current_database())"
    )
}

/// What a worker's connection is for: the server lets go of it soon after its machine is gone, and when
/// it stops in the middle of a transaction.
pub(crate) fn purpose(application: &str) -> Purpose {
    Purpose::new(application)
        .setting("statement_timeout", "0")
        .setting("idle_session_timeout", "0")
        .setting("idle_in_transaction_session_timeout", "30s")
        .wish("tcp_keepalives_idle", "10")
        .wish("tcp_keepalives_interval", "5")
        .wish("tcp_keepalives_count", "3")
        .wish("tcp_user_timeout", "30s")
}
