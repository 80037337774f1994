//! One error type with predicates, and the server's own words kept apart.

use std::fmt;

use serde::{Deserialize, Serialize};

use tokio_postgres::error::{DbError, ErrorPosition, Severity};

/// Anything that can go wrong between us and a server.
///
/// Display says what we were doing and to whom; the server's message is in [`Error::server`] and
/// in the source chain, never in both.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    server: Option<Box<ServerError>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The client library's words for a login without channel binding, and for a server without TLS.
const NO_BINDING: &str = "server did not use channel binding";
const NO_TLS: &str = "server does not support TLS";

/// What an [`Error`] means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No server answered: refused, no route, unknown host, time-out, bad TLS handshake.
    Unreachable,
    /// The server answered and does not let this role in: wrong password, `pg_hba.conf`, no CONNECT.
    Denied,
    /// The server answered; the database does not exist.
    DatabaseMissing,
    /// The server has no connection slot left (53300).
    Full,
    /// The server is starting, stopping or recovering (57P03, 57P01, 57P02).
    Unavailable,
    /// A connection that worked is gone.
    ConnectionLost,
    /// The server refused a statement.
    Statement,
    /// The address cannot be understood.
    Address,
    /// A pooler stands between us and the server that keeps no sessions, or refuses what we say at
    /// start-up.
    Pooler,
    /// No connection came free within the time-out.
    Exhausted,
    /// A statement did not answer within its time-out.
    TimedOut,
    /// A statement returned another number of rows than it must.
    Rows,
    /// The connection was lost at the commit: what was done may be there or not.
    Unknown,
}

/// The server's message with every field that helps to find the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{severity}: {message} (SQLSTATE {code})")]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`.
    pub severity: String,
    /// The five-character SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The detail line, when there is one.
    pub detail: Option<String>,
    /// The server's hint, when there is one.
    pub hint: Option<String>,
    /// 1-based position in characters in the text that was sent.
    pub position: Option<u32>,
    /// A query inside a function, with the 1-based position in it.
    pub internal: Option<(u32, String)>,
    /// The call stack: `PL/pgSQL function inline_code_block line 3 at RAISE`.
    pub context: Option<String>,
    /// The constraint that was violated.
    pub constraint: Option<String>,
}

/// An error as it is handed to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    kind: ErrorKind,
    message: String,
    server: Option<ServerError>,
    /// What is below it, where the server did not speak, from the outermost on.
    causes: Vec<String>,
}

impl From<&Error> for ErrorRecord {
    fn from(error: &Error) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self { kind: error.kind, message: error.message.clone(), server: error.server.as_deref().cloned(), causes }
    }
}

impl From<ErrorRecord> for Error {
    fn from(record: ErrorRecord) -> Self {
        let source = record.causes.into_iter().rev().fold(None, |below, text| Some(Box::new(Cause { text, below })));
        Self {
            kind: record.kind,
            message: record.message,
            server: record.server.map(Box::new),
            source: source.map(|cause| cause as Box<dyn std::error::Error + Send + Sync>),
        }
    }
}

/// What is left of a cause that another process had.
#[derive(Debug)]
struct Cause {
    text: String,
    below: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.below.as_deref().map(|below| below as &(dyn std::error::Error + 'static))
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        let (position, internal) = match error.position() {
            Some(ErrorPosition::Original(position)) => (Some(*position), None),
            Some(ErrorPosition::Internal { position, query }) => (None, Some((*position, query.clone()))),
            None => (None, None),
        };
        Self {
            severity: error.severity().to_owned(),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            position,
            internal,
            context: error.where_().map(str::to_owned),
            constraint: error.constraint().map(str::to_owned),
        }
    }
}

impl ServerError {
    /// Whether the same statement can succeed when it is tried again: lock time-out, deadlock,
    /// serialization failure.
    pub fn is_contention(&self) -> bool {
        matches!(self.code.as_str(), "55P03" | "40P01" | "40001")
    }
}

impl Error {
    /// Makes an error without a source.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), server: None, source: None }
    }

    /// Makes an error for an address that cannot be understood.
    #[cold]
    pub(crate) fn address(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Address, message)
    }

    /// Makes an error with an underlying cause.
    #[cold]
    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), server: None, source: Some(source.into()) }
    }

    /// Classifies what the client library reports; `doing` is what we were at.
    #[cold]
    pub fn from_client(error: tokio_postgres::Error, doing: impl Into<String>, connecting: bool) -> Self {
        let message = doing.into();
        if let Some(db) = error.as_db_error() {
            let server = ServerError::from(db);
            // The unlocalised severity; every server that we support sends it.
            let ends_session = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
            let kind = classify(&server, connecting, ends_session);
            return Self { kind, message, server: Some(Box::new(server)), source: None };
        }
        let kind = if connecting { ErrorKind::Unreachable } else { ErrorKind::ConnectionLost };
        // The library's own Display says only the class ("error connecting to server"); the
        // cause below it is what a reader can act on.
        let source: Box<dyn std::error::Error + Send + Sync> = match error.into_source() {
            Some(source) => source,
            None => "connection closed".into(),
        };
        // The server asked for a password and none was given: it is there, and lets nobody in.
        let kind = if connecting && (source.to_string() == "password missing" || source.to_string() == NO_BINDING) {
            ErrorKind::Denied
        } else {
            kind
        };
        Self { kind, message, server: None, source: Some(source) }
    }

    /// Copies what can be had of an error that belongs to somebody else: what the server said, or
    /// that the connection is gone; none for what is about a value or a row.
    pub fn copy_of(error: &tokio_postgres::Error) -> Option<Self> {
        let message = "a statement failed".to_owned();
        if let Some(db) = error.as_db_error() {
            let server = ServerError::from(db);
            let ends_session = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
            let kind = classify(&server, false, ends_session);
            return Some(Self { kind, message, server: Some(Box::new(server)), source: None });
        }
        let by_network = std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
        (error.is_closed() || by_network).then(|| Self::new(ErrorKind::ConnectionLost, message))
    }

    /// Makes an error of what another client library was told by a server; `doing` is what it was at.
    #[cold]
    pub fn from_server(server: ServerError, doing: impl Into<String>) -> Self {
        let ends_session = matches!(server.severity.as_str(), "FATAL" | "PANIC");
        let kind = classify(&server, false, ends_session);
        Self { kind, message: doing.into(), server: Some(Box::new(server)), source: None }
    }

    /// Says otherwise what we were doing.
    pub(crate) fn described(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// Returns what the error means.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the server's message when the server spoke.
    pub fn server(&self) -> Option<&ServerError> {
        self.server.as_deref()
    }

    /// Returns the SQLSTATE when the server spoke.
    pub fn sql_state(&self) -> Option<&str> {
        self.server.as_deref().map(|server| server.code.as_str())
    }

    /// Returns whether the whole work may succeed when it is tried again later.
    ///
    /// True for connection trouble, shutdown, a full server, lock time-outs, deadlocks and
    /// serialization failures; false for wrong passwords, configuration and errors in SQL.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Unreachable
            | ErrorKind::Full
            | ErrorKind::Unavailable
            | ErrorKind::ConnectionLost
            | ErrorKind::Exhausted
            | ErrorKind::TimedOut => true,
            ErrorKind::Statement => self.server().is_some_and(ServerError::is_contention),
            ErrorKind::Denied
            | ErrorKind::DatabaseMissing
            | ErrorKind::Address
            | ErrorKind::Pooler
            | ErrorKind::Rows
            | ErrorKind::Unknown => false,
        }
    }

    /// Returns whether no server could be reached or no slot was free.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unreachable | ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::ConnectionLost
        )
    }

    /// Returns what the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        let source = self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
        let hint = match self.kind {
            ErrorKind::Unreachable if source.and_then(crate::tls::distrust).is_some() => {
                source.and_then(crate::tls::distrust).unwrap_or_default().to_owned()
            }
            ErrorKind::Unreachable if source.is_some_and(|source| source.to_string() == NO_TLS) => {
                "turn TLS on at the server (`ssl = on`), or allow a connection without it: sslmode=prefer".to_owned()
            }
            ErrorKind::Unreachable => "is the server running and reachable from here? `--wait` waits for it".to_owned(),
            ErrorKind::Full => "close idle clients or raise max_connections".to_owned(),
            ErrorKind::Unavailable => "the server is starting or stopping; `--wait` waits for it".to_owned(),
            ErrorKind::Denied if self.sql_state() == Some("08P01") => {
                "this is a pooler's answer; it may know fewer databases and roles than the server: `direct` in \
                 [servers.NAME] of the manifest names the server's own address"
                    .to_owned()
            }
            ErrorKind::Denied if self.server().is_some_and(|server| server.message.contains("client certificate")) => {
                "name the certificate of this role and its key: sslcert=PATH sslkey=PATH".to_owned()
            }
            ErrorKind::Denied if source.is_some_and(|source| source.to_string() == NO_BINDING) => {
                "channel_binding=require needs TLS and a password that the server keeps as scram-sha-256".to_owned()
            }
            ErrorKind::Denied if self.server.is_none() => {
                "give the password in the connection string or in a file named by `passfile=`".to_owned()
            }
            ErrorKind::Pooler => "give the server's own address: `direct = \"postgresql://host:port\"` in \
                                  [servers.NAME] of the manifest, or as --url; or let the pooler keep sessions \
                                  (PgBouncer: pool_mode = session)"
                .to_owned(),
            ErrorKind::Exhausted => {
                "release connections sooner (the place above holds one), or allow more: `pool` of the \
                                     service, `budget` of the server"
                    .to_owned()
            }
            ErrorKind::Unknown => "look whether it is there before doing it again".to_owned(),
            _ => return self.server().and_then(|server| server.hint.clone()),
        };
        Some(hint)
    }
}

/// Maps a server's refusal to a kind; a FATAL while connecting is about us, not about a statement.
///
/// What does not end the session is about a statement, whatever its code: one that reads a foreign
/// server reports that server's trouble with the codes of a lost connection, and one that names a
/// database that does not exist says 3D000.
fn classify(server: &ServerError, connecting: bool, ends_session: bool) -> ErrorKind {
    if !connecting && !ends_session {
        return ErrorKind::Statement;
    }
    match server.code.as_str() {
        "3D000" => ErrorKind::DatabaseMissing,
        "53300" => ErrorKind::Full,
        "57P03" | "57P01" | "57P02" => ErrorKind::Unavailable,
        "28P01" | "28000" => ErrorKind::Denied,
        // `permission denied for database` comes as 42501 during start-up only.
        "42501" if connecting => ErrorKind::Denied,
        "08P01" if connecting && server.message.contains("unsupported startup parameter") => ErrorKind::Pooler,
        // PgBouncer has one code for all that it says itself; most of that can pass.
        "08P01" if connecting && is_no_such(&server.message) => ErrorKind::Denied,
        code if code.starts_with("08") => ErrorKind::ConnectionLost,
        _ if connecting => ErrorKind::Unreachable,
        // A time-out of the session or of its transaction, or its database was dropped.
        _ => ErrorKind::ConnectionLost,
    }
}

/// Whether a pooler says that it knows no such role or database, or not with this password.
fn is_no_such(message: &str) -> bool {
    ["no such user", "no such database", "does not exist", "authentication failed"]
        .iter()
        .any(|words| message.contains(words))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Some(server) = &self.server {
            return Some(server.as_ref());
        }
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> ServerError {
        ServerError {
            severity: "ERROR".to_owned(),
            code: code.to_owned(),
            message: String::new(),
            detail: None,
            hint: None,
            position: None,
            internal: None,
            context: None,
            constraint: None,
        }
    }

    #[test]
    fn trouble_of_a_foreign_server_is_not_trouble_of_ours() {
        for code in ["08001", "08006", "3D000", "53300", "57P03", "28P01"] {
            assert_eq!(classify(&server(code), false, false), ErrorKind::Statement, "{code}");
        }
    }

    #[test]
    fn what_ends_the_session_is_a_lost_connection() {
        for (code, kind) in [
            ("57P01", ErrorKind::Unavailable),
            ("57P04", ErrorKind::ConnectionLost),
            ("25P03", ErrorKind::ConnectionLost),
            ("25P04", ErrorKind::ConnectionLost),
            ("08P01", ErrorKind::ConnectionLost),
        ] {
            assert_eq!(classify(&server(code), false, true), kind, "{code}");
        }
    }

    #[test]
    fn an_error_means_the_same_in_another_process() {
        let io = std::io::Error::other(Cause { text: "no route".to_owned(), below: None });
        for error in [
            Error::with_source(ErrorKind::Unreachable, "cannot connect to h:5432", io),
            Error { server: Some(Box::new(server("55P03"))), ..Error::new(ErrorKind::Statement, "a statement failed") },
        ] {
            let again = Error::from(ErrorRecord::from(&error));
            let lines = |error: &Error| {
                let mut lines = vec![error.to_string()];
                let mut next = std::error::Error::source(error);
                while let Some(cause) = next {
                    lines.push(cause.to_string());
                    next = cause.source();
                }
                lines
            };
            assert_eq!(lines(&again), lines(&error));
            assert_eq!((again.kind(), again.server()), (error.kind(), error.server()));
            assert_eq!(again.is_retryable(), error.is_retryable());
        }
    }

    #[test]
    fn a_refusal_at_the_door_says_why() {
        for (code, kind) in [
            ("3D000", ErrorKind::DatabaseMissing),
            ("28P01", ErrorKind::Denied),
            ("42501", ErrorKind::Denied),
            ("53300", ErrorKind::Full),
            ("57P03", ErrorKind::Unavailable),
            ("XX000", ErrorKind::Unreachable),
        ] {
            assert_eq!(classify(&server(code), true, true), kind, "{code}");
        }
    }
}
