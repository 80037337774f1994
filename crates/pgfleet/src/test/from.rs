//! What a test can take in place of the database.

use pgfleet_postgres::Connection;

use super::Database;
use crate::error::Error;

/// What can be made of a test's database: the type of a test's argument.
///
/// ```
/// use pgfleet::{Error, test::{Database, FromDatabase}};
///
/// struct Trips(pgfleet::Connection);
///
/// impl FromDatabase for Trips {
///     async fn from_database(database: &Database) -> Result<Self, Error> {
///         Ok(Self(database.connect().await?))
///     }
/// }
/// ```
pub trait FromDatabase: Sized {
    /// Makes it, before the test begins.
    ///
    /// # Errors
    ///
    /// Whatever fails; the test does too.
    fn from_database(database: &Database) -> impl Future<Output = Result<Self, Error>> + Send;
}

impl FromDatabase for Database {
    async fn from_database(database: &Database) -> Result<Self, Error> {
        Ok(database.clone())
    }
}

impl FromDatabase for Connection {
    async fn from_database(database: &Database) -> Result<Self, Error> {
        database.connect().await
    }
}

impl FromDatabase for tokio_postgres::Client {
    async fn from_database(database: &Database) -> Result<Self, Error> {
        Ok(database.connect().await?.into_client())
    }
}

#[cfg(feature = "sqlx")]
impl FromDatabase for sqlx::PgPool {
    async fn from_database(database: &Database) -> Result<Self, Error> {
        database.pool().await
    }
}
