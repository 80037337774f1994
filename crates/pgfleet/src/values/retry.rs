//! Doing a transaction again that came too close to another one.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use pgfleet_postgres::retry::between;

use super::sql_state::answer;

/// Serialization failure, deadlock, and a lock that was not to be had in time.
const SERIALIZATION: &str = "40001";
const DEADLOCK: &str = "40P01";
const LOCK: &str = "55P03";

/// How often, and after which waits, a transaction is done again that the server has undone because of another one.
///
/// Serializable transactions fail now and then though nothing is wrong with them, and two that lock the same rows in
/// different order deadlock. The whole of such a transaction is to be done again, with what it reads. This says when:
///
/// ```no_run
/// use pgfleet::values::{CommitError, Retry};
///
/// # #[derive(Debug)] enum Error { Commit(CommitError), Postgres(tokio_postgres::Error) }
/// # impl std::fmt::Display for Error { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{self:?}") } }
/// # impl std::error::Error for Error { fn source(&self) -> Option<&(dyn std::error::Error + 'static)> { match self { Self::Commit(e) => Some(e), Self::Postgres(e) => Some(e) } } }
/// # impl From<CommitError> for Error { fn from(e: CommitError) -> Self { Self::Commit(e) } }
/// # impl From<tokio_postgres::Error> for Error { fn from(e: tokio_postgres::Error) -> Self { Self::Postgres(e) } }
/// # async fn book_seat(tx: &tokio_postgres::Transaction<'_>) -> Result<i64, Error> { Ok(1) }
/// # async fn example(client: &mut tokio_postgres::Client) -> Result<i64, Error> {
/// let mut tries = Retry::default().tries();
/// let seat = loop {
///     let tx = client.transaction().await?;
///     let booked = book_seat(&tx).await;
///     if let Some(done) = tries.end(tx, booked).await {
///         break done?;
///     }
/// };
/// # Ok(seat)
/// # }
/// ```
///
/// It is a loop, and takes no closure: the future of one that borrows could not move between threads, which handlers
/// of a web framework must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    most: u32,
    first_wait: Duration,
    longest_wait: Duration,
    on_lock_timeout: bool,
}

impl Default for Retry {
    /// Five times in all; at random up to 10 ms between the first two, doubled each time, up to 1 s.
    fn default() -> Self {
        Self {
            most: 5,
            first_wait: Duration::from_millis(10),
            longest_wait: Duration::from_secs(1),
            on_lock_timeout: false,
        }
    }
}

impl Retry {
    /// Sets how often it is tried in all; one is not again.
    #[must_use]
    pub const fn most(self, times: u32) -> Self {
        Self { most: times, ..self }
    }

    /// Sets the longest wait after the first try, which doubles with each, and the longest of all.
    ///
    /// The wait is at random between none and that, so that those who failed together do not meet again.
    #[must_use]
    pub const fn waits(self, first: Duration, longest: Duration) -> Self {
        Self { first_wait: first, longest_wait: longest, ..self }
    }

    /// Tries again also when a lock was not to be had within `lock_timeout`, or at all (`NOWAIT`).
    #[must_use]
    pub const fn on_lock_timeout(self) -> Self {
        Self { on_lock_timeout: true, ..self }
    }

    /// Begins to count.
    pub const fn tries(self) -> Tries {
        Tries { policy: self, done: 0 }
    }

    fn is_worth_it(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let code = answer(error)?.code;
        let is_it = match code.as_str() {
            SERIALIZATION | DEADLOCK => true,
            LOCK => self.on_lock_timeout,
            _ => false,
        };
        is_it.then_some(code)
    }
}

/// The tries of one piece of work.
#[derive(Debug)]
pub struct Tries {
    policy: Retry,
    done: u32,
}

impl Tries {
    /// Ends a transaction, and says whether the work is done: none means that it is to be done again, in a new one, and
    /// this has waited already.
    ///
    /// Work that succeeded is committed, work that failed rolled back. An error that the work ran into must be in its
    /// result: a transaction in which a statement failed is rolled back by the server also at `COMMIT`, without another
    /// word.
    ///
    /// The server's answer is looked for in the error and its causes ([`Error::source`]).
    ///
    /// # Errors
    ///
    /// The work's own error when the same would come again or there were enough tries; a [`CommitError`], as `E`, when the
    /// commit failed. When nobody knows whether it did, nothing is tried again: [`CommitError::is_unknown`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves open whether the transaction was committed.
    pub async fn end<T, E, X>(&mut self, transaction: X, result: Result<T, E>) -> Option<Result<T, E>>
    where
        E: Error + From<CommitError> + 'static,
        X: EndTransaction,
    {
        self.done += 1;
        let error = match result {
            Ok(value) => match transaction.commit().await.map_err(CommitError::new) {
                Ok(()) => return Some(Ok(value)),
                Err(error) if error.is_unknown => return Some(Err(error.into())),
                Err(error) => error.into(),
            },
            Err(error) => {
                // Where this fails the connection is gone, and the transaction with it.
                let _ = transaction.rollback().await;
                error
            }
        };
        let Some(code) = self.policy.is_worth_it(&error).filter(|_| self.done < self.policy.most) else {
            return Some(Err(error));
        };
        let most = self.policy.first_wait.saturating_mul(1 << (self.done - 1).min(16)).min(self.policy.longest_wait);
        let wait = between(Duration::ZERO, most);
        tracing::debug!(%code, tried = self.done, ?wait, "a transaction is done again");
        tokio::time::sleep(wait).await;
        None
    }

    /// Returns how often it was tried.
    pub fn done(&self) -> u32 {
        self.done
    }
}

/// A transaction that can be ended: those of tokio-postgres and sqlx, and yours.
pub trait EndTransaction: Send {
    /// What can go wrong.
    type Error: Error + Send + Sync + 'static;

    /// Commits it.
    fn commit(self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Rolls it back.
    fn rollback(self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl EndTransaction for tokio_postgres::Transaction<'_> {
    type Error = tokio_postgres::Error;

    async fn commit(self) -> Result<(), Self::Error> {
        self.commit().await
    }

    async fn rollback(self) -> Result<(), Self::Error> {
        self.rollback().await
    }
}

impl EndTransaction for crate::Tx {
    type Error = pgfleet_postgres::Error;

    async fn commit(self) -> Result<(), Self::Error> {
        self.commit().await
    }

    async fn rollback(self) -> Result<(), Self::Error> {
        self.rollback().await
    }
}

#[cfg(feature = "sqlx")]
impl EndTransaction for sqlx::Transaction<'_, sqlx::Postgres> {
    type Error = sqlx::Error;

    async fn commit(self) -> Result<(), Self::Error> {
        self.commit().await
    }

    async fn rollback(self) -> Result<(), Self::Error> {
        self.rollback().await
    }
}

/// A commit that failed.
#[derive(Debug)]
pub struct CommitError {
    source: Box<dyn Error + Send + Sync>,
    is_unknown: bool,
}

impl CommitError {
    /// Wraps what a client says about a commit that failed.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        // A server that refuses has rolled back. One that ends the session may have committed before.
        let is_unknown = answer(&source).is_none_or(|answer| answer.is_fatal);
        Self { source: Box::new(source), is_unknown }
    }

    /// Returns whether nobody knows if the transaction was committed: the connection was lost after it was asked for.
    ///
    /// Doing it again could do it twice. Look in the database for what it would have written, an id that the caller made
    /// for example, or let whoever asked for it decide.
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_unknown {
            "the connection was lost while a transaction was committed: nobody knows whether it was"
        } else {
            "the transaction was not committed"
        })
    }
}

impl Error for CommitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}
