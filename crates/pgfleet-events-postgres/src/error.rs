//! Errors of the database, as errors of events.

use pgfleet_events::{Error, ErrorKind};
use pgfleet_postgres::Error as PgError;

/// Says what could not be done because of the database.
///
/// What the connection or the server's state caused can be tried again, as contention can.
pub(crate) fn failed(doing: impl Into<String>, error: PgError) -> Error {
    let kind = if error.is_unreachable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
    let (retryable, hint) = (error.is_retryable(), error.hint());
    let made = Error::new(kind, doing).retryable(retryable).because(error);
    match hint {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}
