//! Which database a connection leads to, whatever its address looks like.

use futures_util::future::try_join;

use crate::connect::Connection;
use crate::error::{Error, ErrorKind};

/// A database as the server itself knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Identifies the cluster; `host:port` where the server does not tell.
    pub system_identifier: String,
    /// The database's name.
    pub database: String,
    /// The database's oid.
    pub oid: u32,
    /// The server's version as a number: 150020.
    pub server_version: u32,
}

impl Identity {
    /// Asks a connection where it is.
    ///
    /// # Errors
    ///
    /// The connection is lost, or the server does not say.
    pub async fn of(connection: &Connection) -> Result<Self, Error> {
        // Two messages, since the first may be refused, and one round trip.
        let database = connection.simple(
            "SELECT d.datname, d.oid, pg_catalog.current_setting('server_version_num') \
             FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
        );
        let (system_identifier, rows) = try_join(system_identifier(connection), database).await?;
        // Half an answer would make strangers the same database.
        let text = |at: usize| rows.first().and_then(|row| row.get(at)).ok_or_else(|| unanswered(connection));
        let number = |at: usize| text(at)?.parse().map_err(|_| unanswered(connection));
        Ok(Self { system_identifier, database: text(0)?.to_owned(), oid: number(1)?, server_version: number(2)? })
    }
}

impl Identity {
    /// Asks a connection where it is, unless that is known and the server has said in passing that it is this
    /// database: see [`lock::try_lock`](crate::lock::try_lock).
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub async fn confirmed(connection: &Connection, known: Option<&Self>) -> Result<Self, Error> {
        let is_here = |known: &Self| {
            known.database == connection.address().database() && connection.database_oid() == Some(known.oid)
        };
        match known.filter(|known| is_here(known)) {
            Some(known) => Ok(known.clone()),
            None => Self::of(connection).await,
        }
    }
}

/// Returns what identifies the cluster: its system identifier, or `host:port` where it may not be
/// asked for, as with some providers.
///
/// # Errors
///
/// The connection is lost, or the server does not say.
pub async fn system_identifier(connection: &Connection) -> Result<String, Error> {
    let sql = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
    match connection.simple(sql).await {
        Ok(rows) => rows.first().and_then(|row| row.get(0)).map(str::to_owned).ok_or_else(|| unanswered(connection)),
        Err(error) if error.sql_state() == Some("42501") => Ok(connection.address().server()),
        Err(error) => Err(error),
    }
}

fn unanswered(connection: &Connection) -> Error {
    let address = connection.address();
    let message = format!("database {} on {} does not say which one it is", address.database(), address.server());
    Error::new(ErrorKind::Statement, message)
}
