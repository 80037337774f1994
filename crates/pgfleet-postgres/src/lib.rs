//! Talking to PostgreSQL: addresses, connections, TLS, advisory locks, quoting and errors.
//!
//! All knowledge of the client library lives in this crate. What it keeps true:
//!
//! * a password is never displayed, logged or put into an error ([`Address`], [`secrecy`]);
//! * an error says what happened in the server's own words ([`ServerError`]) and whether trying
//!   again can help ([`Error::is_retryable`]);
//! * an advisory lock is polled for, never waited for inside the server, and taken only in a session
//!   that is known to be ours ([`lock`]).
//!
//! It knows nothing of manifests, migrations or tenants.

pub mod address;
mod cancel;
pub mod connect;
mod dial;
pub mod error;
pub mod identity;
mod line;
pub mod lock;
pub mod lsn;
pub mod name;
pub mod pool;
pub mod quote;
pub mod retry;
mod session;
pub mod tls;

pub use address::{Address, PoolSettings, Surroundings};
pub use cancel::Canceller;
pub use connect::{Connection, Purpose, connect, connect_with_guard};
pub use error::{Error, ErrorKind, ErrorRecord, ServerError};
pub use identity::Identity;
pub use quote::{quote_ident, quote_literal};
pub use tokio_postgres::types::{ToSql, Type};
pub use tokio_postgres::{Row, SimpleQueryMessage, SimpleQueryRow};

/// Computes the SCRAM-SHA-256 verifier of a password.
///
/// `ALTER ROLE … PASSWORD '<verifier>'` sets the password without the password itself ever
/// reaching the server, its log or `pg_stat_statements`.
pub fn scram_verifier(password: &secrecy::SecretString) -> String {
    use secrecy::ExposeSecret as _;
    postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes())
}
