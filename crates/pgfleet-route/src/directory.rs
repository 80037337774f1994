//! Reading the tenants of a service from the control database.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_postgres::{Address, Connection, Error as PgError, ErrorKind, Purpose, connect};
use secrecy::SecretString;

/// How long the control database may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Opens what the control database keeps sealed for this service.
pub trait Opener: Send + Sync {
    /// Opens a string; `context` is what it was sealed for.
    ///
    /// # Errors
    ///
    /// What is wrong, without the string: a key that is missing, a damaged text.
    fn open(&self, sealed: &[u8], key_id: &str, context: &str) -> Result<SecretString, String>;
}

/// Where a service's tenants are read.
#[derive(Clone)]
pub struct DirectoryOptions {
    /// The control database, as the service's own role.
    pub address: Address,
    /// Opens the strings.
    pub opener: Arc<dyn Opener>,
    /// How often it is asked whether something changed.
    pub interval: Duration,
}

impl fmt::Debug for DirectoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryOptions").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A tenant as the control database has it: its state, and its strings by connection name.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) state: String,
    pub(crate) strings: HashMap<String, Result<SecretString, String>>,
}

/// The control database as one service sees it.
pub(crate) struct Directory {
    options: DirectoryOptions,
    /// The open connection, and the version that was read last.
    state: tokio::sync::Mutex<(Option<Arc<Connection>>, Option<i64>)>,
}

impl Directory {
    pub(crate) fn new(options: DirectoryOptions) -> Self {
        Self { options, state: tokio::sync::Mutex::new((None, None)) }
    }

    /// Waits until it may be worth asking again: after the interval, or when the control database says so.
    pub(crate) async fn wait(&self) {
        let connection = self.state.lock().await.0.clone();
        let notified = async {
            match connection {
                Some(connection) => connection.notified().await,
                None => std::future::pending().await,
            }
        };
        // Whatever listens is only quicker: what it misses is found by asking.
        let _in_time = tokio::time::timeout(self.options.interval, notified).await;
    }

    /// Reads the tenants when something changed since they were last read; none when nothing did.
    ///
    /// One asks at a time. The connection is kept; one that is lost is opened again by the next call.
    pub(crate) async fn changed(&self) -> Result<Option<HashMap<String, Record>>, PgError> {
        let mut state = self.state.lock().await;
        let result = match tokio::time::timeout(LIMIT, self.read(&mut state)).await {
            Ok(result) => result,
            Err(_) => Err(PgError::new(
                ErrorKind::TimedOut,
                format!("the control database did not answer within {} s", LIMIT.as_secs()),
            )),
        };
        if result.is_err() {
            state.0 = None;
        }
        result
    }

    async fn read(
        &self,
        state: &mut (Option<Arc<Connection>>, Option<i64>),
    ) -> Result<Option<HashMap<String, Record>>, PgError> {
        let (connection, known) = state;
        let connection = match connection {
            Some(connection) if !connection.is_closed() => &*connection,
            _ => {
                let new = connect(&self.options.address, &Purpose::new("pgfleet tenants")).await?;
                // Behind a pooler nothing is heard; asking finds it later.
                new.execute_all("LISTEN pgfleet_tenants").await?;
                connection.insert(Arc::new(new))
            }
        };
        let rows = connection.query("SELECT pgfleet_directory.version()", &[]).await?;
        // None is said to a role that nobody has told of, and is never taken for a version.
        let version: Option<i64> = rows.first().and_then(|row| row.get(0));
        if version.is_some() && *known == version {
            return Ok(None);
        }
        // Read after the version: what changes in between is read again next time.
        let rows = connection
            .query("SELECT tenant, state, connection, sealed, key_id FROM pgfleet_directory.tenants()", &[])
            .await?;
        let mut tenants: HashMap<String, Record> = HashMap::new();
        for row in &rows {
            let name: &str = row.get(0);
            let record = tenants.entry(name.to_owned()).or_default();
            row.get::<_, &str>(1).clone_into(&mut record.state);
            let (string, sealed, key): (Option<&str>, Option<&[u8]>, Option<&str>) =
                (row.get(2), row.get(3), row.get(4));
            if let (Some(string), Some(sealed)) = (string, sealed) {
                let opened =
                    self.options.opener.open(sealed, key.unwrap_or_default(), &format!("tenant/{name}/{string}"));
                record.strings.insert(string.to_owned(), opened);
            }
        }
        *known = version;
        Ok(Some(tenants))
    }
}
