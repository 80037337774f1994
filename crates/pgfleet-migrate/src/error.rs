//! Why a run ended without its end.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Why a run on one target failed.
///
/// Display is the one sentence `cannot … to <target>`; the server's words, the place in the file
/// and what to do are kept apart.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    place: Option<Place>,
    failure: Option<Box<Failure>>,
    source: Option<pgfleet_postgres::Error>,
    /// The program that did the work is gone; another one can go on.
    died: bool,
}

/// An error as it is handed to another process, where it means and shows the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    kind: ErrorKind,
    message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Box<Failure>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<pgfleet_postgres::ErrorRecord>,
    #[serde(default)]
    died: bool,
}

impl From<&Error> for ErrorRecord {
    fn from(error: &Error) -> Self {
        let Inner { kind, message, causes, hint, place, failure, source, died } = &*error.0;
        Self {
            kind: *kind,
            message: message.clone(),
            causes: causes.clone(),
            hint: hint.clone(),
            place: place.clone(),
            failure: failure.clone(),
            source: source.as_ref().map(Into::into),
            died: *died,
        }
    }
}

impl From<ErrorRecord> for Error {
    fn from(record: ErrorRecord) -> Self {
        let ErrorRecord { kind, message, causes, hint, place, failure, source, died } = record;
        let source = source.map(Into::into);
        Self(Box::new(Inner { kind, message, causes, hint, place, failure, source, died }))
    }
}

/// What an [`Error`] means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Files, names or annotations that cannot be used; nothing was tried.
    Files,
    /// The history and the files disagree in a way that the options forbid; nothing was tried.
    Findings,
    /// The server refused a statement of a migration or seed.
    Statement,
    /// Connecting or keeping the connection failed.
    Connection,
    /// Another run held the lock for longer than allowed.
    Locked,
    /// A migration without a transaction stopped in the middle and must be looked at.
    Interrupted,
    /// A migration or seeder in Rust failed by itself, without the server.
    Code,
    /// The program that has the code of a migration or seeder is missing, another one, or died.
    Program,
    /// The caller asked to stop.
    Stopped,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1; 0 when only the line is known.
    pub column: u32,
    /// The line's text.
    pub excerpt: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)?;
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

impl Error {
    /// Makes an error of a kind with its sentence.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner {
            kind,
            message,
            causes: Vec::new(),
            hint: None,
            place: None,
            failure: None,
            source: None,
            died: false,
        }))
    }

    /// Wraps an error of the connection.
    #[cold]
    pub fn connection(message: impl Into<String>, error: pgfleet_postgres::Error) -> Self {
        let mut own = Self::new(ErrorKind::Connection, message);
        if error.kind() == pgfleet_postgres::ErrorKind::Statement {
            own.0.kind = ErrorKind::Statement;
        }
        own.0.hint = error.hint();
        own.0.source = Some(error);
        own
    }

    /// Adds a line that says why.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Sets the one thing to do.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the place in a file.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.0.place = Some(place);
        self
    }

    /// Sets what failed on the server.
    #[must_use]
    pub(crate) fn failed(mut self, failure: Failure) -> Self {
        self.0.failure = Some(Box::new(failure));
        self
    }

    /// Sets the underlying error.
    #[must_use]
    pub(crate) fn caused_by(mut self, error: pgfleet_postgres::Error) -> Self {
        self.0.source = Some(error);
        self
    }

    /// Says that the program which did the work is gone, so that another one can go on.
    #[must_use]
    pub(crate) fn died(mut self) -> Self {
        self.0.died = true;
        self
    }

    /// Returns what the error means.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the lines that say why, the server's words among them.
    pub fn causes(&self) -> Vec<String> {
        let mut lines = self.0.causes.clone();
        let Some(source) = &self.0.source else { return lines };
        if let Some(server) = source.server() {
            lines.push(server.to_string());
            lines.extend(server.detail.iter().map(|detail| format!("detail: {detail}")));
            if let Some((_, query)) = &server.internal {
                lines.push(format!("in query: {}", query.trim()));
            }
            lines.extend(server.context.iter().flat_map(|context| context.lines()).map(|l| format!("in: {l}")));
        } else {
            let mut next: Option<&dyn std::error::Error> = Some(source);
            while let Some(error) = next {
                lines.push(error.to_string());
                next = error.source();
            }
        }
        lines
    }

    /// Returns the one thing to do about it.
    pub fn hint(&self) -> Option<String> {
        self.0.hint.clone().or_else(|| self.0.source.as_ref().and_then(pgfleet_postgres::Error::hint))
    }

    /// Returns the place in a file.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// Returns what failed on the server, as recorded in `pgfleet.attempts`.
    pub fn failure(&self) -> Option<&Failure> {
        self.0.failure.as_deref()
    }

    /// Returns the underlying error of the connection or server.
    pub fn postgres(&self) -> Option<&pgfleet_postgres::Error> {
        self.0.source.as_ref()
    }

    /// Returns the SQLSTATE when the server spoke.
    pub fn sql_state(&self) -> Option<&str> {
        self.0.source.as_ref().and_then(|source| source.sql_state())
    }

    /// Returns whether the whole run may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connection | ErrorKind::Statement => {
                self.0.source.as_ref().is_some_and(pgfleet_postgres::Error::is_retryable)
            }
            ErrorKind::Program => self.0.died,
            _ => false,
        }
    }

    /// Returns whether no server could be reached.
    pub fn is_unreachable(&self) -> bool {
        self.0.source.as_ref().is_some_and(pgfleet_postgres::Error::is_unreachable)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
