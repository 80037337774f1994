//! One error of this crate: what could not be done, why, and what to do.

use std::fmt;

/// Why something about a solution could not be done.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// What an [`Error`] means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The work was tried and failed.
    Failed,
    /// The manifest, a key or a path must be changed first.
    Configuration,
    /// A server cannot be reached.
    Unreachable,
    /// The caller asked to stop.
    Stopped,
    /// A database is not there.
    Missing,
}

impl Error {
    /// Makes an error.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Makes an error of what the connection or the server said.
    #[cold]
    pub fn postgres(message: impl Into<String>, error: &pgfleet_postgres::Error) -> Self {
        let kind = match error.kind() {
            // Another address must be given.
            pgfleet_postgres::ErrorKind::Pooler => ErrorKind::Configuration,
            pgfleet_postgres::ErrorKind::DatabaseMissing => ErrorKind::Missing,
            _ if error.is_unreachable() => ErrorKind::Unreachable,
            _ => ErrorKind::Failed,
        };
        let mut own = Self::new(kind, message);
        let mut next: Option<&dyn std::error::Error> = Some(error);
        while let Some(cause) = next {
            own.causes.push(cause.to_string());
            next = cause.source();
        }
        own.causes.extend(error.server().and_then(|server| server.detail.clone()).map(|d| format!("detail: {d}")));
        own.hint = error.hint();
        own
    }

    /// Makes an error of a run on pgfleet's own database.
    #[cold]
    pub(crate) fn of_run(message: impl Into<String>, error: &pgfleet_migrate::Error) -> Self {
        let kind = match error.postgres().map(pgfleet_postgres::Error::kind) {
            Some(pgfleet_postgres::ErrorKind::Pooler) => ErrorKind::Configuration,
            _ if error.is_unreachable() => ErrorKind::Unreachable,
            _ => ErrorKind::Failed,
        };
        let mut own = Self::new(kind, message).cause(error.to_string());
        own.causes.extend(error.causes());
        own.hint = error.hint();
        own
    }

    /// Makes an error of what is wrong with a service's program.
    #[cold]
    pub(crate) fn of_program(message: impl Into<String>, error: &pgfleet_migrate::Error) -> Self {
        let kind = match error.kind() {
            pgfleet_migrate::ErrorKind::Files => ErrorKind::Failed,
            _ => ErrorKind::Configuration,
        };
        let mut own = Self::new(kind, message).cause(error.to_string());
        own.causes.extend(error.causes());
        own.hint = error.hint();
        own
    }

    /// Adds a line that says why.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Sets the one thing to do.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns what the error means.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the lines that say why.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// Returns the one thing to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<pgfleet_local::Error> for Error {
    fn from(error: pgfleet_local::Error) -> Self {
        let kind = if error.is_missing_binaries() || error.is_not_writable() {
            ErrorKind::Configuration
        } else {
            ErrorKind::Unreachable
        };
        let mut own = Self::new(kind, error.to_string());
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            own.causes.push(cause.to_string());
            next = cause.source();
        }
        let hints = error.hints();
        if !hints.is_empty() {
            own.hint = Some(hints.join("\nhint: "));
        }
        own
    }
}
