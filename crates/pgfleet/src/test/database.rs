//! The database of one test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgfleet_postgres::{Address, Connection, Purpose, connect};
use secrecy::ExposeSecret as _;

use super::server::Server;
use crate::builder::Builder;
use crate::error::Error;

/// How long a test waits at its end for connections that it did not give back. Removing the database ends them too; it
/// only makes a line in the server's log.
const PATIENCE: Duration = Duration::from_millis(200);

/// Connections of one pool: enough for a test, and few enough for many tests at once.
#[cfg(feature = "sqlx")]
const POOL: u32 = 8;

/// A migrated and seeded database that belongs to one test; cheap to clone.
///
/// It is removed when the test ends, whichever way, with the connections that are still open.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Arc<Server>,
    name: String,
    address: Address,
    schema: Option<String>,
    kept: AtomicBool,
    /// Those of other services, which go when this one goes.
    beside: Mutex<Vec<Database>>,
    #[cfg(feature = "sqlx")]
    pools: Mutex<Vec<sqlx::PgPool>>,
}

impl Database {
    /// Makes a database as the builder's service has it.
    pub(super) async fn of(builder: &Builder) -> Result<Self, Error> {
        let server = Server::get().await?;
        let recipe = super::template::recipe(builder, &server).await?;
        let name = server.databases.copy(recipe).await.map_err(|error| unmade(&error))?;
        Ok(Self(Arc::new(Inner {
            address: server.address.with_database(&name),
            name,
            server,
            schema: builder.schema.clone(),
            kept: AtomicBool::new(false),
            beside: Mutex::default(),
            #[cfg(feature = "sqlx")]
            pools: Mutex::default(),
        })))
    }

    /// Makes the database of another service, for a test with several; it goes away when this one does.
    ///
    /// ```
    /// use pgfleet::test::Database;
    ///
    /// # fn trip() -> pgfleet::Builder { pgfleet::Service::builder("trip") }
    /// # fn user() -> pgfleet::Builder { pgfleet::Service::builder("user") }
    /// #[pgfleet::test(service = trip)]
    /// async fn both_start(db: Database) -> Result<(), pgfleet::Error> {
    ///     let users = db.beside(&user()).await?;
    ///     trip().url(db.url()).start().await?;
    ///     user().url(users.url()).start().await?;
    ///     Ok(())
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    ///
    /// Migrations that cannot be used or fail, and a server that is not there.
    pub async fn beside(&self, service: &Builder) -> Result<Self, Error> {
        let other = Self::of(service).await?;
        self.0.beside.lock().unwrap_or_else(PoisonError::into_inner).push(other.clone());
        Ok(other)
    }

    fn take_beside(&self) -> Vec<Self> {
        std::mem::take(&mut *self.0.beside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns its connection string, with the password: for a service that is to be started on it, or for a program.
    pub fn url(&self) -> String {
        let url = self.0.address.expose_url();
        let url = url.expose_secret();
        let Some(path) = self.search_path() else { return url.to_owned() };
        // As libpq wants it: a blank in a value has a backslash before it.
        let option = format!("-csearch_path={}", path.replace('\\', "\\\\").replace(' ', "\\ "));
        format!("{url}{}options={}", if url.contains('?') { '&' } else { '?' }, percent(&option))
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`](crate::ErrorKind::Connection).
    pub async fn connect(&self) -> Result<Connection, Error> {
        let mut purpose = Purpose::new("pgfleet test");
        if let Some(path) = self.search_path() {
            purpose = purpose.setting("search_path", path);
        }
        Ok(connect(&self.0.address, &purpose).await?)
    }

    /// Opens a pool of sqlx, of at most eight connections; it is closed when the test ends.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`](crate::ErrorKind::Connection).
    #[cfg(feature = "sqlx")]
    pub async fn pool(&self) -> Result<sqlx::PgPool, Error> {
        let failed = |error: sqlx::Error| {
            let message = format!("cannot connect to database {} with sqlx", self.name());
            Error::new(crate::ErrorKind::Connection, message).cause(error.to_string())
        };
        let options: sqlx::postgres::PgConnectOptions = self.url().parse().map_err(failed)?;
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(POOL).connect_with(options);
        let pool = pool.await.map_err(failed)?;
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        Ok(pool)
    }

    /// Leaves the database when the test ends, for a week.
    pub fn keep(&self) {
        self.0.kept.store(true, Ordering::Relaxed);
    }

    fn search_path(&self) -> Option<String> {
        self.0.schema.as_deref().map(pgfleet_migrate::target::search_path)
    }

    /// Closes the pools that the test left open.
    #[cfg(feature = "sqlx")]
    pub(super) async fn close(&self) {
        let pools = std::mem::take(&mut *self.0.pools.lock().unwrap_or_else(PoisonError::into_inner));
        for pool in pools {
            // A connection that the test has leaked never comes back; removing the database ends it.
            let _ = tokio::time::timeout(PATIENCE, pool.close()).await;
        }
        let beside = self.0.beside.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for other in beside {
            Box::pin(other.close()).await;
        }
    }

    /// Removes the database, or keeps it where somebody wants that.
    #[expect(clippy::print_stderr, reason = "whoever keeps a database wants to know where it is")]
    pub(super) async fn end(&self, failed: bool) {
        for other in self.take_beside() {
            Box::pin(other.end(failed)).await;
        }
        let Inner { server, name, kept, .. } = &*self.0;
        let wanted = kept.load(Ordering::Relaxed) || (failed && super::server::keeps());
        if !wanted {
            server.databases.remove(name).await;
            return;
        }
        let url = if server.is_local { self.url() } else { self.0.address.to_string() };
        match server.databases.keep(name).await {
            Ok(()) => eprintln!("the database of this test is kept: {url}"),
            Err(error) => eprintln!("{}", unmade(&error)),
        }
    }

    /// How long to wait for what the test left running.
    pub(super) const fn patience() -> Duration {
        PATIENCE
    }
}

fn unmade(error: &dyn std::error::Error) -> Error {
    let mut own = Error::new(crate::ErrorKind::Connection, "cannot make the database of a test");
    let mut next = Some(error);
    while let Some(error) = next {
        own = own.cause(error.to_string());
        next = error.source();
    }
    own
}

/// Percent-encodes what a connection string gives a meaning to.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}
