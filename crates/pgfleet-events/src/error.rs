//! What can go wrong with streams, queues and transports.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, and where.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    retryable: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Kinds of errors, as far as a caller would act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The stream is not at the version that was expected; nothing was appended.
    WrongVersion {
        /// The version that the stream has.
        actual: u64,
    },
    /// Somebody else holds what the caller held: his lease, or the delivery of a message, has ended. Nothing was changed.
    Fenced,
    /// What was asked about does not exist.
    NotFound,
    /// What was given cannot be taken: a name, a number, text that is no JSON.
    Invalid,
    /// Refused by configuration: a stream that is archived, a queue that is full, a message older than the window.
    Refused,
    /// The store or the broker cannot be reached, or the connection was lost. What was sent may have been done.
    Unavailable,
    /// Anything else; the source says what.
    Failed,
}

impl Error {
    /// Makes an error of a kind with one sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, retryable: kind == ErrorKind::Unavailable, source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds the one thing to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says whether trying again can help.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Says that a stream has another version than was expected.
    pub fn wrong_version(stream: &str, expected: impl fmt::Display, actual: u64) -> Self {
        Self::new(
            ErrorKind::WrongVersion { actual },
            format!("stream {stream} is at version {actual}, not at {expected}"),
        )
        .with_hint("read the stream again, and decide again")
    }

    /// Says that whoever asks has lost what he held.
    pub fn fenced(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Fenced, format!("{what} is no longer held"))
    }

    /// Says that a name, number or text cannot be taken.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns whether the same call can pass later.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Returns whether the stream was not at the expected version.
    pub fn is_wrong_version(&self) -> bool {
        matches!(self.kind, ErrorKind::WrongVersion { .. })
    }

    /// Returns whether the caller has lost what he held.
    pub fn is_fenced(&self) -> bool {
        self.kind == ErrorKind::Fenced
    }

    /// Returns the one thing to do, where it is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
