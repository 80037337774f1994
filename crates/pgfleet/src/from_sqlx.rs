//! What sqlx reports, as one of our errors.

use pgfleet_postgres::{Error as PgError, ErrorKind as PgErrorKind, ServerError};
use sqlx::postgres::{PgDatabaseError, PgErrorPosition, PgSeverity};

use crate::error::{Error, ErrorKind};

impl From<sqlx::Error> for Error {
    /// What the server said is kept as if our own connections had been told it; a lost connection and a pool without a
    /// free one can pass. The rest is about a value or a row.
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(said) => {
                if let Some(said) = said.try_downcast_ref::<PgDatabaseError>() {
                    return PgError::from_server(server(said), "a statement failed").into();
                }
                None
            }
            sqlx::Error::PoolTimedOut => Some(PgErrorKind::Exhausted),
            sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Some(PgErrorKind::ConnectionLost)
            }
            sqlx::Error::Tls(_) => Some(PgErrorKind::Unreachable),
            _ => None,
        };
        let own = match kind {
            Some(kind) => Self::from(PgError::new(kind, "a connection of sqlx failed")),
            None => Self::new(ErrorKind::Statement, "a statement of sqlx failed"),
        };
        own.cause(error.to_string())
    }
}

fn server(said: &PgDatabaseError) -> ServerError {
    let number = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
    let (position, internal) = match said.position() {
        Some(PgErrorPosition::Original(position)) => (Some(number(position)), None),
        Some(PgErrorPosition::Internal { position, query }) => (None, Some((number(position), query.to_owned()))),
        None => (None, None),
    };
    let severity = match said.severity() {
        PgSeverity::Panic => "PANIC",
        PgSeverity::Fatal => "FATAL",
        _ => "ERROR",
    };
    ServerError {
        severity: severity.to_owned(),
        code: said.code().to_owned(),
        message: said.message().to_owned(),
        detail: said.detail().map(str::to_owned),
        hint: said.hint().map(str::to_owned),
        position,
        internal,
        context: said.r#where().map(str::to_owned),
        constraint: said.constraint().map(str::to_owned),
    }
}
