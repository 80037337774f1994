//! Connections that write, and note in the caller's session what a reader must have seen.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use pgfleet_postgres::Error as PgError;
use pgfleet_postgres::lsn::Token;
use pgfleet_postgres::pool::{AfterCommit, Pooled, Transaction, TransactionOptions};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::place::Place;
use crate::scope::Session;

/// The server is a replica, or was made one: another one takes the writes now.
const READ_ONLY: &str = "25006";

/// A connection to the primary; dropping it puts it back.
///
/// Within a [`Session`], and where there are replicas, each statement here notes in it what a reader must have seen, in
/// the same round trip. What is run through [`Deref`] alone (`client()`) does not.
pub struct Writer {
    db: Pooled,
    place: Arc<Place>,
    session: Option<Session>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.db.fmt(f)
    }
}

impl Deref for Writer {
    type Target = Pooled;

    fn deref(&self) -> &Pooled {
        &self.db
    }
}

impl Writer {
    pub(crate) fn new(db: Pooled, place: Arc<Place>, session: Option<Session>) -> Self {
        Self { db, place, session }
    }

    /// Runs a statement and returns its rows. Errors and cancel safety as [`Pooled::query`].
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        match &self.session {
            Some(session) => self.noted(session, self.db.query_and_look(sql, values).await),
            None => self.watched(self.db.query(sql, values).await),
        }
    }

    /// Runs a statement that returns one row. Errors and cancel safety as [`Pooled::query_one`].
    pub async fn query_one(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, PgError> {
        self.query_opt(sql, values).await?.ok_or_else(|| self.db.not_one_row(0))
    }

    /// Runs a statement that returns at most one row. Errors and cancel safety as [`Pooled::query_opt`].
    pub async fn query_opt(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, PgError> {
        let mut rows = self.query(sql, values).await?;
        if rows.len() > 1 { Err(self.db.not_one_row(rows.len())) } else { Ok(rows.pop()) }
    }

    /// Runs a statement and returns the number of rows it touched. Errors and cancel safety as [`Pooled::execute`].
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        match &self.session {
            Some(session) => self.noted(session, self.db.execute_and_look(sql, values).await),
            None => self.watched(self.db.execute(sql, values).await),
        }
    }

    /// Runs statements without values in one message. Errors and cancel safety as [`Pooled::batch`].
    pub async fn batch(&self, sql: &str) -> Result<(), PgError> {
        match &self.session {
            Some(session) => self.noted(session, self.db.batch_and_look(sql).await),
            None => self.watched(self.db.batch(sql).await),
        }
    }

    /// Begins a transaction, which keeps the connection until it ends.
    ///
    /// # Errors
    ///
    /// As [`Pooled::begin`].
    pub async fn begin(self, options: TransactionOptions) -> Result<Tx, PgError> {
        let Self { db, place, session } = self;
        let session = if options.read_only { None } else { session };
        let tx = db.begin(options).await?;
        Ok(Tx { inner: tx, place, session })
    }

    fn noted<T>(&self, session: &Session, result: Result<(T, Result<Token, PgError>), PgError>) -> Result<T, PgError> {
        let result = result.map(|(value, token)| {
            note(session, token);
            value
        });
        self.watched(result)
    }

    fn watched<T>(&self, result: Result<T, PgError>) -> Result<T, PgError> {
        watch(&self.db, &self.place, &result);
        result
    }
}

/// Notes a position in the session; not knowing it has the session's reads go to the primary of that cluster no longer
/// than until the next write, so it is only said.
fn note(session: &Session, token: Result<Token, PgError>) {
    match token {
        Ok(token) => session.add(token),
        Err(error) => tracing::debug!(%error, "the position of a write is not known"),
    }
}

/// Gives up all connections of a primary that no longer takes writes, so that the next ones find the new one.
fn watch<T>(db: &Pooled, place: &Place, result: &Result<T, PgError>) {
    if let Err(error) = result
        && error.sql_state() == Some(READ_ONLY)
    {
        db.discard();
        place.pool().flush();
    }
}

/// A transaction on the primary; dropping it rolls back.
///
/// Within a [`Session`], and where there are replicas, its commit notes in it what a reader must have seen.
pub struct Tx {
    inner: Transaction,
    place: Arc<Place>,
    session: Option<Session>,
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Deref for Tx {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.inner
    }
}

impl Tx {
    /// Runs a statement and returns the number of rows it touched. Errors and cancel safety as [`Pooled::execute`].
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        let result = self.inner.execute(sql, values).await;
        watch(&self.inner, &self.place, &result);
        result
    }

    /// Runs a statement and returns its rows. Errors and cancel safety as [`Pooled::query`].
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        let result = self.inner.query(sql, values).await;
        watch(&self.inner, &self.place, &result);
        result
    }

    /// Has something done right after the commit, as [`Transaction::after_commit`] says.
    pub fn after_commit(&mut self, work: AfterCommit) {
        self.inner.after_commit(work);
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether it is committed.
    pub async fn commit(self) -> Result<(), PgError> {
        let Self { inner: tx, session, .. } = self;
        match session {
            Some(session) => {
                let (ended, token) = tx.commit_and_look().await;
                if let (Ok(()), Some(token)) = (&ended, token) {
                    note(&session, token);
                }
                ended
            }
            None => tx.commit().await,
        }
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// As [`Transaction::rollback`].
    pub async fn rollback(self) -> Result<(), PgError> {
        self.inner.rollback().await
    }
}
