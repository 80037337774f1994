//! A connection that reads: on a replica where that is near enough, else on the primary.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pgfleet_postgres::Error as PgError;
use pgfleet_postgres::lsn::Token;
use pgfleet_postgres::pool::{Isolation, Pool, Pooled, Transaction, TransactionOptions};
use tokio_postgres::Row;
use tokio_postgres::types::{PgLsn, ToSql};

use crate::error::Error;
use crate::place::Place;
use crate::replica::{Replica, ReplicaOptions};

/// Whether a replica has replayed a position; also true on one that was promoted, which then is the primary.
const REPLAYED: &str = "SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn() >= $1, true) \
                        OR NOT pg_catalog.pg_is_in_recovery()";

/// How often a replica is asked while a reader waits for it.
const POLL: std::time::Duration = std::time::Duration::from_millis(2);

/// The first version whose server waits by itself.
const WAIT_FOR_LSN: u32 = 190_000;

/// A connection that reads; dropping it puts it back.
///
/// Its session refuses writes, on a replica as on the primary. When the caller's session has written, the first
/// statement is sent together with the question whether the replica has replayed that; a connection that has said so is
/// not asked again. If it has not within `token_wait`, the statement is run on the primary.
pub struct Reader {
    db: Pooled,
    place: Arc<Place>,
    /// None on the primary.
    replica: Option<Arc<Replica>>,
    /// What must have been replayed before the first statement counts.
    pending: Option<Token>,
    options: ReplicaOptions,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = if self.is_replica() { "replica" } else { "primary" };
        write!(f, "Reader({:?}, {on})", self.db)
    }
}

impl Reader {
    pub(crate) fn on_replica(
        db: Pooled,
        place: Arc<Place>,
        replica: Arc<Replica>,
        pending: Option<Token>,
        options: ReplicaOptions,
    ) -> Self {
        let pending = pending.filter(|token| !db.has_replayed(token.lsn));
        Self { db, place, replica: Some(replica), pending, options }
    }

    pub(crate) fn on_primary(db: Pooled, place: Arc<Place>, options: ReplicaOptions) -> Self {
        Self { db, place, replica: None, pending: None, options }
    }

    /// Returns whether it is on a replica now.
    pub fn is_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    ///
    /// As [`Pooled::query`]. A replica that is lost is not an error: the statement is run on the primary.
    ///
    /// # Cancel safety
    ///
    /// As [`Pooled::query`].
    pub async fn query(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let result = match self.pending {
            None => self.db.query(sql, values).await,
            Some(token) => {
                let lsn = PgLsn::from(token.lsn.0);
                // The question is asked first, so what it says holds for the statement behind it.
                let question = (REPLAYED, &[&lsn as &(dyn ToSql + Sync)][..]);
                match self.db.query_behind(question, sql, values).await {
                    Ok((answer, rows)) if answer.first().is_some_and(|row| row.get(0)) => {
                        self.db.note_replayed(token.lsn);
                        self.pending = None;
                        rows
                    }
                    Ok(_) => {
                        self.until_replayed(token).await?;
                        self.db.query(sql, values).await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match result {
            Err(error) if self.replica.is_some() && is_about_the_replica(&error) => {
                self.go_to_primary(Some(&error)).await?;
                Ok(self.db.query(sql, values).await?)
            }
            other => Ok(other?),
        }
    }

    /// Runs a statement that returns one row. Errors and cancel safety as [`query`](Self::query).
    pub async fn query_one(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        let mut rows = self.query(sql, values).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (last, rest) => Err(self.db.not_one_row(rest + usize::from(last.is_some())).into()),
        }
    }

    /// Runs a statement that returns at most one row. Errors and cancel safety as [`query`](Self::query).
    pub async fn query_opt(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        let mut rows = self.query(sql, values).await?;
        if rows.len() > 1 { Err(self.db.not_one_row(rows.len()).into()) } else { Ok(rows.pop()) }
    }

    /// Waits until what the caller wrote is there, and returns the pool to read from: for another client library.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn settled(mut self) -> Result<Pool, Error> {
        if let Some(token) = self.pending {
            self.until_replayed(token).await?;
        }
        Ok(self.db.pool().clone())
    }

    /// Begins a transaction that reads one state of the database.
    ///
    /// What the caller's session wrote is waited for before it begins.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query). In the transaction a lost replica is an error, since what was read there cannot be
    /// gone on with elsewhere.
    pub async fn begin(mut self) -> Result<Transaction, Error> {
        if let Some(token) = self.pending {
            self.until_replayed(token).await?;
        }
        let options = TransactionOptions { isolation: Some(Isolation::RepeatableRead), read_only: true };
        if self.replica.is_none() {
            return Ok(self.db.begin(options).await?);
        }
        let Self { db, place, replica, .. } = self;
        match db.begin(options).await {
            Err(error) if is_about_the_replica(&error) => {
                if let Some(replica) = &replica {
                    replica.ban(error.to_string());
                }
                Ok(place.reading_pool().get().await?.begin(options).await?)
            }
            other => Ok(other?),
        }
    }

    /// Waits until the replica has what the caller wrote, or goes to the primary.
    async fn until_replayed(&mut self, token: Token) -> Result<(), Error> {
        let began = Instant::now();
        let lsn = PgLsn::from(token.lsn.0);
        let limit = self.options.token_wait;
        if self.db.connection().server_version() >= WAIT_FOR_LSN && !limit.is_zero() {
            let wait = format!(
                "WAIT FOR LSN '{}' WITH (MODE 'standby_replay', TIMEOUT '{}ms', NO_THROW)",
                token.lsn,
                limit.as_millis()
            );
            // Whatever it says, the question below decides.
            if let Err(error) = self.db.batch(&wait).await {
                tracing::debug!(%error, "WAIT FOR LSN failed");
            }
        }
        loop {
            match self.db.query_one(REPLAYED, &[&lsn as &(dyn ToSql + Sync)]).await {
                Ok(row) if row.get(0) => {
                    self.db.note_replayed(token.lsn);
                    self.pending = None;
                    return Ok(());
                }
                Ok(_) if began.elapsed() < limit => tokio::time::sleep(POLL).await,
                Ok(_) => return self.go_to_primary(None).await,
                Err(error) if is_about_the_replica(&error) => return self.go_to_primary(Some(&error)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn go_to_primary(&mut self, error: Option<&PgError>) -> Result<(), Error> {
        if let (Some(replica), Some(error)) = (&self.replica, error) {
            replica.ban(error.to_string());
        }
        self.db = self.place.reading_pool().get().await?;
        self.replica = None;
        self.pending = None;
        Ok(())
    }
}

/// Whether an error is about this replica, so that the primary may do better: it is lost, silent, or cancelled the
/// statement because of what it had to replay.
fn is_about_the_replica(error: &PgError) -> bool {
    error.is_unreachable()
        || error.kind() == pgfleet_postgres::ErrorKind::TimedOut
        || (error.sql_state() == Some("40001")
            && error.server().is_some_and(|server| server.message.contains("conflict with recovery")))
}
