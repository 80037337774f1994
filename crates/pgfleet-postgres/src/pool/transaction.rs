//! A transaction that owns its connection.

use std::fmt;
use std::ops::Deref;

use futures_util::FutureExt as _;

use super::pooled::Pooled;
use crate::lsn::Token;
use crate::{Error, ErrorKind};

/// What kind of transaction is begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    /// How it is kept apart from others; the database's default when none.
    pub isolation: Option<Isolation>,
    /// Whether it only reads.
    pub read_only: bool,
}

/// How a transaction is kept apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see what was committed before the first.
    RepeatableRead,
    /// As if one transaction ran after the other; what cannot be had that way fails and can be tried again.
    Serializable,
}

impl TransactionOptions {
    pub(super) fn sql(self) -> &'static str {
        match (self.isolation, self.read_only) {
            (None, false) => "BEGIN",
            (None, true) => "BEGIN READ ONLY",
            (Some(Isolation::ReadCommitted), false) => "BEGIN ISOLATION LEVEL READ COMMITTED",
            (Some(Isolation::ReadCommitted), true) => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
            (Some(Isolation::RepeatableRead), false) => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            (Some(Isolation::RepeatableRead), true) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            (Some(Isolation::Serializable), false) => "BEGIN ISOLATION LEVEL SERIALIZABLE",
            (Some(Isolation::Serializable), true) => "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        }
    }
}

/// A transaction; dropping it rolls back and puts its connection back.
///
/// Statements are run as on [`Pooled`], whose methods it has.
pub struct Transaction {
    /// None once it has ended.
    db: Option<Pooled>,
    after: Vec<AfterCommit>,
}

/// What is to be done after a commit.
pub type AfterCommit = Box<dyn FnOnce() + Send + Sync>;

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transaction").field(&self.db).finish()
    }
}

impl Deref for Transaction {
    type Target = Pooled;

    fn deref(&self) -> &Pooled {
        self.db.as_ref().unwrap_or_else(|| unreachable!("a transaction has its connection until it ends"))
    }
}

impl Transaction {
    pub(super) async fn begin(db: Pooled, options: TransactionOptions) -> Result<Self, Error> {
        db.enter_transaction();
        // From here on dropping it rolls back, should BEGIN have arrived or not.
        let this = Self { db: Some(db), after: Vec::new() };
        this.batch(options.sql()).await?;
        Ok(this)
    }

    /// Has something done right after the commit, in the order in which it was said: telling somebody who waits for what is
    /// in here.
    ///
    /// It is called by whoever commits, so it must be quick and must not block. It is not called after a rollback, nor when
    /// the commit is refused or its future dropped; it is when nobody knows whether it is committed.
    pub fn after_commit(&mut self, work: AfterCommit) {
        self.after.push(work);
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// What the server refuses, as a violated deferred constraint: it is rolled back then. [`ErrorKind::Unknown`] when
    /// the connection was lost before the answer came: it may be committed or not, and trying it again may do it twice.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether it is committed.
    pub async fn commit(mut self) -> Result<(), Error> {
        let db = self.take();
        let ended = db.batch(COMMIT).await;
        self.end(&db, ended)
    }

    /// Commits and returns what a reader must have seen to see it, in the same round trip.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit). That the position is not known after a commit is an error, too; who must tell the
    /// two apart uses [`commit_and_look`](Self::commit_and_look).
    pub async fn commit_with_token(self) -> Result<Token, Error> {
        let (ended, token) = self.commit_and_look().await;
        ended?;
        token.unwrap_or_else(|| Err(Error::new(ErrorKind::ConnectionLost, "the position of a commit is not known")))
    }

    /// Commits and returns what became of that, and what a reader must have seen to see it; none when that was not
    /// asked for any more.
    pub async fn commit_and_look(mut self) -> (Result<(), Error>, Option<Result<Token, Error>>) {
        let db = self.take();
        match db.finish_with_token(COMMIT).await {
            Ok((ended, token)) => (self.end(&db, ended), Some(token)),
            Err(error) => (self.end(&db, Err(error)), None),
        }
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// A lost connection; the server has rolled back then, too.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let db = self.take();
        let ended = db.batch("ROLLBACK").await;
        if ended.is_err() {
            db.discard();
        }
        db.leave_transaction();
        ended
    }

    fn take(&mut self) -> Pooled {
        self.db.take().unwrap_or_else(|| unreachable!("a transaction ends once"))
    }

    /// Puts the connection back, does what was to be done after the commit, and says what a failed one means.
    fn end(&mut self, db: &Pooled, ended: Result<(), Error>) -> Result<(), Error> {
        let result = match ended {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Statement => {
                // The transaction had failed before, or fails by its commit: either way it is to be ended.
                roll_back(db);
                Err(error)
            }
            Err(error) => {
                db.discard();
                let database = db.pool().address().database();
                Err(Error::with_source(
                    ErrorKind::Unknown,
                    format!("whether a transaction in database {database} was committed is not known"),
                    error,
                ))
            }
        };
        db.leave_transaction();
        if result.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Unknown) {
            self.after.drain(..).for_each(|work| work());
        }
        result
    }
}

/// The empty SELECT fails in a transaction that has failed; COMMIT alone would roll back without an error.
const COMMIT: &str = "SELECT; COMMIT";

/// Sends ROLLBACK without waiting for the answer.
fn roll_back(db: &Pooled) {
    // The first poll sends it, and what is sent is run in order; nobody needs the answer.
    let _sent = db.client().batch_execute("ROLLBACK").now_or_never();
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if db.is_in_flight_inside() {
            // What still runs would have to end first: closing the connection cancels it and rolls back.
            return;
        }
        roll_back(&db);
        db.leave_transaction();
    }
}
