//! Errors of the database, as errors of events.

use pgfleet_events::{Error, ErrorKind};
use pgfleet_postgres::Error as PgError;

/// Says what could not be done because of the database, for those who write handlers of events.
///
/// What the connection or the server's state caused can be tried again, as contention can.
///
/// ```
/// # use pgfleet_events::Error;
/// # use pgfleet_postgres::pool::Transaction;
/// use pgfleet_events_postgres::failed;
///
/// # #[expect(unused, reason = "it needs a server")]
/// async fn count(transaction: &Transaction) -> Result<(), Error> {
///     let counted = transaction.execute("UPDATE totals SET number = number + 1", &[]).await;
///     counted.map(drop).map_err(|error| failed("an order was not counted", error))
/// }
/// ```
pub fn failed(doing: impl Into<String>, error: PgError) -> Error {
    let kind = if error.is_unreachable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
    let (retryable, hint) = (error.is_retryable(), error.hint());
    let made = Error::new(kind, doing).retryable(retryable).because(error);
    match hint {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}
