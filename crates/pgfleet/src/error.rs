//! Why a service cannot start.

use std::fmt;

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
            Some(Source::Postgres(error)) => {
                let mut next = std::error::Error::source(error);
                while let Some(error) = next {
                    lines.push(error.to_string());
                    next = error.source();
                }
            }
            None => {}
        }
        lines
    }

    /// Returns the one thing to do about it.
    pub fn hint(&self) -> Option<String> {
        self.0.hint.clone().or_else(|| match &self.0.source {
            Some(Source::Migrate(error)) => error.hint(),
            Some(Source::Postgres(error)) => error.hint(),
            None => None,
        })
    }

    /// Returns the migration engine's error, which has the statement and the place.
    pub fn migration(&self) -> Option<&pgfleet_migrate::Error> {
        match &self.0.source {
            Some(Source::Migrate(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns whether the same may succeed when it is tried again later.
    pub fn is_retryable(&self) -> bool {
        match &self.0.source {
            Some(Source::Migrate(error)) => error.is_retryable(),
            Some(Source::Postgres(error)) => error.is_retryable(),
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
        let kind = match error.kind() {
            pgfleet_postgres::ErrorKind::Address => ErrorKind::Configuration,
            _ => ErrorKind::Connection,
        };
        let mut own = Self::new(kind, error.to_string());
        own.0.source = Some(Source::Postgres(error));
        own
    }
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
            None => None,
        }
    }
}
