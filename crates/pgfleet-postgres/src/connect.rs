//! One connection: opening it, running statements, and cancelling what runs.

use std::future::poll_fn;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage, SimpleQueryStream};

use crate::address::TlsMode;
use crate::{Address, Error, ErrorKind};

/// How long opening a connection may take in all: TCP, TLS and the login.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// What a connection is for: its `application_name` and its settings.
#[derive(Debug, Clone)]
pub struct Purpose {
    /// Shown in `pg_stat_activity`: `pgfleet migrate trip`.
    pub application: String,
    /// Settings given at start-up, so that `RESET ALL` comes back to them.
    pub settings: Vec<(&'static str, String)>,
}

impl Purpose {
    /// Makes a purpose with no settings of its own.
    pub fn new(application: impl Into<String>) -> Self {
        Self { application: application.into(), settings: Vec::new() }
    }

    /// Adds a setting.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// Renders the settings as libpq's `options`.
    fn options(&self) -> String {
        let escape = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
        let pairs: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("-c {name}={}", escape(value))).collect();
        pairs.join(" ")
    }

    /// `application_name` is cut to 63 bytes by the server with a notice; we cut it ourselves.
    fn application(&self) -> &str {
        let mut end = self.application.len().min(63);
        while !self.application.is_char_boundary(end) {
            end -= 1;
        }
        &self.application[..end]
    }
}

/// An open connection; dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    address: Address,
    driver: JoinHandle<()>,
}

/// Opens a connection.
///
/// # Errors
///
/// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::DatabaseMissing`],
/// [`ErrorKind::Full`], [`ErrorKind::Unavailable`] or [`ErrorKind::Pooler`]; all of them name the
/// server and the database.
///
/// # Cancel safety
///
/// Dropping the future closes the half-open connection.
pub async fn connect(address: &Address, purpose: &Purpose) -> Result<Connection, Error> {
    let doing =
        || format!("cannot connect to database {} on {} as {}", address.database(), address.server(), address.user());
    let config = address.config(purpose.application(), &purpose.options());
    let opening = async {
        if address.tls_mode() == TlsMode::Disable {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
            Ok((client, tokio::spawn(drive(connection))))
        } else {
            let (client, connection) = config.connect(crate::tls::connector(address)?).await?;
            Ok((client, tokio::spawn(drive(connection))))
        }
    };
    let opened: Result<Result<_, Opening>, _> = tokio::time::timeout(CONNECT_LIMIT, opening).await;
    match opened {
        Ok(Ok((client, driver))) => Ok(Connection { client, address: address.clone(), driver }),
        Ok(Err(Opening::Client(error))) => Err(Error::from_client(error, doing(), true)),
        Ok(Err(Opening::Ours(error))) => Err(error),
        Err(_) => Err(Error::with_source(
            ErrorKind::Unreachable,
            doing(),
            format!("no answer within {} s", CONNECT_LIMIT.as_secs()),
        )),
    }
}

/// Either side's error while opening.
enum Opening {
    Client(tokio_postgres::Error),
    Ours(Error),
}

impl From<tokio_postgres::Error> for Opening {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Client(error)
    }
}

impl From<Error> for Opening {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// Carries the connection's messages; ends when either side closes.
///
/// An error here reaches the caller too, through the statement that was waiting, so it is only
/// traced.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(severity = notice.severity(), "{}", notice.message());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "connection ended");
                break;
            }
        }
    }
}

impl Connection {
    /// Returns whom this connection talks to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the client library's own handle, for what has no method here: `COPY`, row streams.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements in one message and returns the rows of the last one that returned any.
    pub async fn simple(&self, sql: &str) -> Result<Vec<tokio_postgres::SimpleQueryRow>, Error> {
        let messages = self.client.simple_query(sql).await.map_err(|error| self.error(error))?;
        let mut rows = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows.clear(),
                SimpleQueryMessage::Row(row) => rows.push(row),
                _ => {}
            }
        }
        Ok(rows)
    }

    /// Runs statements in one message and ignores their rows.
    pub async fn execute_all(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await.map_err(|error| self.error(error))
    }

    /// Sends statements in one message and returns the answers as they come.
    pub async fn stream(&self, sql: &str) -> Result<SimpleQueryStream, Error> {
        self.client.simple_query_raw(sql).await.map_err(|error| self.error(error))
    }

    /// Runs one statement with bound values in one round trip and without a named statement, so
    /// that it works behind every pooler.
    pub async fn query(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        self.client.query_typed(sql, values).await.map_err(|error| self.error(error))
    }

    /// Runs one statement with bound values and returns the number of rows it touched.
    pub async fn execute(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<u64, Error> {
        self.client.execute_typed(sql, values).await.map_err(|error| self.error(error))
    }

    /// Asks the server to stop what this connection runs; failing to ask is not an error, since the
    /// statement may have ended by itself.
    pub async fn cancel(&self) {
        let token = self.client.cancel_token();
        let asked = if self.address.tls_mode() == TlsMode::Disable {
            token.cancel_query(tokio_postgres::NoTls).await
        } else {
            match crate::tls::connector(&self.address) {
                Ok(tls) => token.cancel_query(tls).await,
                Err(_) => return,
            }
        };
        if let Err(error) = asked {
            tracing::debug!(%error, "cancel request failed");
        }
    }

    /// Turns an error of the client library into ours, naming the database.
    pub fn error(&self, error: tokio_postgres::Error) -> Error {
        let doing = format!("statement failed in database {} on {}", self.address.database(), self.address.server());
        Error::from_client(error, doing, false)
    }

    /// Closes the connection and waits until the server was told.
    ///
    /// A session's advisory locks are free once this returns and the server has seen the end.
    pub async fn close(self) {
        let Self { client, driver, .. } = self;
        drop(client);
        // The driver ends by itself after Terminate is sent; a dead network must not hold us.
        let _ended = tokio::time::timeout(Duration::from_secs(2), driver).await;
    }
}
