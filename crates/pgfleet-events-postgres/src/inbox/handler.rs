//! What is done with messages.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;

use pgfleet_events::Message;

/// Handles messages of a type.
///
/// ```
/// use pgfleet_events::Message;
/// use pgfleet_events_postgres::inbox::{Failure, Handler};
/// use pgfleet_postgres::pool::Transaction;
///
/// struct CountSeats;
///
/// impl Handler<Transaction> for CountSeats {
///     async fn handle(&self, tx: &mut Transaction, message: &Message) -> Result<(), Failure> {
///         let booked: serde_json::Value = message.data.to()?;
///         tx.execute("UPDATE trips SET seats = seats - 1 WHERE id = $1", &[&booked["trip"].as_str()]).await?;
///         Ok(())
///     }
/// }
/// ```
pub trait Handler<T>: Send + Sync + 'static {
    /// Handles a message in a transaction, which is committed afterwards together with the note that it was handled.
    ///
    /// It may run again after it failed, or after its transaction did; what it does outside of the transaction happens
    /// again, too.
    ///
    /// # Errors
    ///
    /// Whatever it fails with: the transaction is rolled back, and the message is tried again later unless the failure is
    /// [`hopeless`](Failure::hopeless).
    fn handle(&self, tx: &mut T, message: &Message) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What a handler that is a closure returns.
pub type Handling<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

impl<T, F> Handler<T> for F
where
    T: Send,
    F: for<'a> Fn(&'a mut T, &'a Message) -> Handling<'a> + Send + Sync + 'static,
{
    async fn handle(&self, tx: &mut T, message: &Message) -> Result<(), Failure> {
        self(tx, message).await
    }
}

/// A handler of any type.
pub(super) trait Erased<T>: Send + Sync {
    fn handle<'a>(&'a self, tx: &'a mut T, message: &'a Message) -> Handling<'a>;
}

impl<T: Send, H: Handler<T>> Erased<T> for H {
    fn handle<'a>(&'a self, tx: &'a mut T, message: &'a Message) -> Handling<'a> {
        Box::pin(Handler::handle(self, tx, message))
    }
}

/// Why a message could not be handled; made of any error by `?`.
pub struct Failure {
    error: Box<dyn StdError + Send + Sync>,
    hopeless: bool,
}

impl Failure {
    /// A failure that no further try can mend: the message is given up at once.
    pub fn hopeless(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { error: error.into(), hopeless: true }
    }

    /// Returns what happened.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }

    /// Returns whether trying again is of no use.
    pub fn is_hopeless(&self) -> bool {
        self.hopeless
    }

    /// Whether others' transactions were in the way, so that running it again at once may pass.
    pub(super) fn is_contention(&self) -> bool {
        let mut next: Option<&(dyn StdError + 'static)> = Some(&*self.error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<pgfleet_postgres::Error>() {
                return error.server().is_some_and(pgfleet_postgres::ServerError::is_contention);
            }
            if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
                return error.code().is_some_and(|code| matches!(code.code(), "40001" | "40P01" | "55P03"));
            }
            next = error.source();
        }
        false
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), hopeless: false }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("error", &self.error).field("hopeless", &self.hopeless).finish()
    }
}
