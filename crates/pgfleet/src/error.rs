//! Why a service cannot start.

use std::fmt;

use crate::values::{CommitError, Conflict, Found, ValueError};

/// Why a service cannot start or its database cannot be used.
///
/// Display is one sentence; [`causes`](Self::causes) and [`hint`](Self::hint) say why and what to
/// do about it.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    source: Option<Source>,
}

#[derive(Debug)]
enum Source {
    Migrate(pgfleet_migrate::Error),
    Postgres(pgfleet_postgres::Error),
    Route(pgfleet_route::Error),
    Commit(CommitError),
    Value(ValueError),
    Conflict(Conflict),
    Events(pgfleet_events::Error),
}

/// What an [`Error`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The builder or the environment: a missing connection string, two migrations of one version.
    Configuration,
    /// Migrations are pending, and this service may not or shall not apply them.
    Pending,
    /// The database is ahead of what this service tolerates.
    Ahead,
    /// Migrating or seeding failed.
    Migration,
    /// The database cannot be reached.
    Connection,
    /// The server refused a statement, or it did not answer in time.
    Statement,
    /// The tenant does not exist, may not be served, or is not ready.
    Tenant,
    /// A value that is none: an id, an amount, a cursor.
    Value,
    /// Somebody else changed the row.
    Conflict,
    /// A message could not be published or received, a stream or a queue not be used.
    Messages,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), causes: Vec::new(), hint: None, source: None }))
    }

    /// The same error once more, for what was found before anybody could be told.
    pub(crate) fn again(&self) -> Self {
        let mut own = Self::new(self.0.kind, &self.0.message);
        own.0.causes = self.causes();
        own.0.hint = self.hint();
        own
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    #[must_use]
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    #[must_use]
    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Returns what the error means.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the lines that say why.
    pub fn causes(&self) -> Vec<String> {
        let mut lines = self.0.causes.clone();
        match &self.0.source {
            Some(Source::Migrate(error)) => {
                lines.extend(error.causes());
                lines.extend(error.place().map(ToString::to_string));
            }
            Some(Source::Postgres(error)) => lines.extend(below(error)),
            Some(Source::Route(error)) => lines.extend(below(error)),
            Some(Source::Commit(error)) => lines.extend(below(error)),
            Some(Source::Events(error)) => lines.extend(below(error)),
            Some(Source::Value(_) | Source::Conflict(_)) | None => {}
        }
        lines
    }

    /// Returns the one thing to do about it.
    pub fn hint(&self) -> Option<String> {
        self.0.hint.clone().or_else(|| match &self.0.source {
            Some(Source::Migrate(error)) => error.hint(),
            Some(Source::Postgres(error)) => error.hint(),
            Some(Source::Route(error)) => error.hint(),
            Some(Source::Events(error)) => error.hint().map(str::to_owned),
            _ => None,
        })
    }

    /// Returns the migration engine's error, which has the statement and the place.
    pub fn migration(&self) -> Option<&pgfleet_migrate::Error> {
        match &self.0.source {
            Some(Source::Migrate(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns the database's error, which has the server's message, its SQLSTATE and the constraint.
    pub fn database(&self) -> Option<&pgfleet_postgres::Error> {
        match &self.0.source {
            Some(Source::Postgres(error)) => Some(error),
            Some(Source::Route(error)) => error.postgres(),
            _ => None,
        }
    }

    /// Returns the SQLSTATE when the server spoke: `23505`.
    pub fn sql_state(&self) -> Option<&str> {
        self.database()?.sql_state()
    }

    /// Returns the constraint that a statement would have violated, or the unique index: `uq_vehicles_plate_number`.
    pub fn constraint(&self) -> Option<&str> {
        self.database()?.server()?.constraint.as_deref()
    }

    /// Returns what the router says about a tenant or a name.
    pub fn route(&self) -> Option<&pgfleet_route::Error> {
        match &self.0.source {
            Some(Source::Route(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns what stood in the way of an update.
    pub fn conflict(&self) -> Option<&Conflict> {
        match &self.0.source {
            Some(Source::Conflict(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns what is wrong with a value, in words that may be shown to whoever sent it.
    pub fn value(&self) -> Option<&ValueError> {
        match &self.0.source {
            Some(Source::Value(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns what an HTTP service answers: 400 for a value that is none, 404 for an unknown tenant or a row that is
    /// not there, 403 for a tenant that is disabled, 409 for a row that somebody else changed, 503 for what can pass,
    /// 500 for all else.
    pub fn status(&self) -> u16 {
        match &self.0.source {
            Some(Source::Route(error)) => error.status(),
            Some(Source::Value(_)) => 400,
            Some(Source::Conflict(error)) if matches!(error.found(), Found::Nothing | Found::Deleted(_)) => 404,
            Some(Source::Conflict(_)) => 409,
            _ if self.is_retryable() => 503,
            _ => 500,
        }
    }

    /// Returns whether the same may succeed when it is tried again later.
    pub fn is_retryable(&self) -> bool {
        match &self.0.source {
            Some(Source::Migrate(error)) => error.is_retryable(),
            Some(Source::Postgres(error)) => error.is_retryable(),
            Some(Source::Route(error)) => error.is_retryable(),
            Some(Source::Commit(error)) => !error.is_unknown(),
            Some(Source::Events(error)) => error.is_retryable(),
            Some(Source::Value(_) | Source::Conflict(_)) => false,
            None => self.0.kind == ErrorKind::Pending,
        }
    }
}

impl From<pgfleet_migrate::Error> for Error {
    fn from(error: pgfleet_migrate::Error) -> Self {
        let kind = match error.kind() {
            _ if error.is_unreachable() => ErrorKind::Connection,
            pgfleet_migrate::ErrorKind::Files => ErrorKind::Configuration,
            _ => ErrorKind::Migration,
        };
        let mut own = Self::new(kind, error.to_string());
        own.0.source = Some(Source::Migrate(error));
        own
    }
}

impl From<pgfleet_postgres::Error> for Error {
    fn from(error: pgfleet_postgres::Error) -> Self {
        let kind = kind_of(&error);
        let mut own = Self::new(kind, error.to_string());
        own.0.source = Some(Source::Postgres(error));
        own
    }
}

impl From<tokio_postgres::Error> for Error {
    /// What the client library itself reports: of a value in a row that is not what it should be, or of a statement that
    /// was run through it.
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(known) = pgfleet_postgres::Error::copy_of(&error) {
            return known.into();
        }
        let mut own = Self::new(ErrorKind::Statement, error.to_string());
        own.0.causes = below(&error);
        own
    }
}

impl From<pgfleet_route::Error> for Error {
    fn from(error: pgfleet_route::Error) -> Self {
        let kind = match &error {
            pgfleet_route::Error::Postgres(error) => kind_of(error),
            pgfleet_route::Error::Name(_) => ErrorKind::Configuration,
            _ => ErrorKind::Tenant,
        };
        let mut own = Self::new(kind, error.to_string());
        own.0.source = Some(Source::Route(error));
        own
    }
}

impl From<pgfleet_events::Error> for Error {
    fn from(error: pgfleet_events::Error) -> Self {
        let mut own = Self::new(ErrorKind::Messages, error.to_string());
        own.0.source = Some(Source::Events(error));
        own
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        let mut own = Self::new(ErrorKind::Statement, error.to_string());
        own.0.source = Some(Source::Commit(error));
        own
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        let mut own = Self::new(ErrorKind::Value, error.to_string());
        own.0.source = Some(Source::Value(error));
        own
    }
}

impl From<Conflict> for Error {
    fn from(error: Conflict) -> Self {
        let mut own = Self::new(ErrorKind::Conflict, error.to_string());
        own.0.source = Some(Source::Conflict(error));
        own
    }
}

fn kind_of(error: &pgfleet_postgres::Error) -> ErrorKind {
    use pgfleet_postgres::ErrorKind as Kind;
    match error.kind() {
        Kind::Address => ErrorKind::Configuration,
        Kind::Statement | Kind::Rows | Kind::TimedOut | Kind::Unknown => ErrorKind::Statement,
        _ => ErrorKind::Connection,
    }
}

/// The lines below an error.
fn below(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string).collect()
}

impl fmt::Display for Error {
    /// The sentence; `{:#}` adds the causes and the hint, for a program that prints its error once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if f.alternate() {
            for cause in self.causes() {
                write!(f, "\n  caused by: {cause}")?;
            }
            if let Some(hint) = self.hint() {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(Source::Migrate(error)) => std::error::Error::source(error),
            Some(Source::Postgres(error)) => std::error::Error::source(error),
            Some(Source::Route(error)) => std::error::Error::source(error),
            Some(Source::Commit(error)) => std::error::Error::source(error),
            Some(Source::Events(error)) => std::error::Error::source(error),
            Some(Source::Value(_) | Source::Conflict(_)) | None => None,
        }
    }
}
