//! Errors of streams and queues as errors of a solution.

use pgfleet_events::{Error as EventError, ErrorKind as EventKind};

use crate::error::{Error, ErrorKind};

/// Makes an error of what a store said, with its causes.
pub fn failed(error: &EventError) -> Error {
    let kind = match error.kind() {
        EventKind::Unavailable => ErrorKind::Unreachable,
        _ => ErrorKind::Failed,
    };
    let mut own = Error::new(kind, error.to_string());
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        own = own.cause(cause.to_string());
        next = cause.source();
    }
    match error.hint() {
        Some(hint) => own.hinted(hint),
        None => own,
    }
}
