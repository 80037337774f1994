//! One connection: opening it, running statements, and cancelling what runs.

use std::future::poll_fn;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage, SimpleQueryStream};

use crate::address::TlsMode;
use crate::session::{self, Proven};
use crate::{Address, Error, ErrorKind};

/// How long opening a connection may take in all: TCP, TLS and the login.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// What a connection is for: its `application_name` and its settings.
#[derive(Debug, Clone)]
pub struct Purpose {
    /// Shown in `pg_stat_activity`: `pgfleet migrate trip`.
    pub application: String,
    /// Settings given at start-up, so that `RESET ALL` comes back to them.
    ///
    /// A pooler may take none. Then they are in force from when the database's lock is held
    /// ([`crate::lock::try_lock`]), and [`Connection::restore_sql`] makes them again.
    pub settings: Vec<(&'static str, String)>,
    /// Likewise, but left out where the server does not take them.
    pub wishes: Vec<(&'static str, String)>,
}

impl Purpose {
    /// Makes a purpose with no settings of its own.
    pub fn new(application: impl Into<String>) -> Self {
        Self { application: application.into(), settings: Vec::new(), wishes: Vec::new() }
    }

    /// Adds a setting.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// Adds a setting that not every server takes, of those that it knows or in the version or on
    /// the system that it runs on.
    #[must_use]
    pub fn wish(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.wishes.push((name, value.into()));
        self
    }

    /// Renders the settings as libpq's `options`, with the mark by which the session is known again.
    fn options(&self, mark: &str) -> String {
        if self.settings.is_empty() && self.wishes.is_empty() {
            return String::new();
        }
        let escape = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
        let mut text = format!("-c {}={mark}", session::MARK);
        for (name, value) in self.settings.iter().chain(&self.wishes) {
            text.push_str(&format!(" -c {name}={}", escape(value)));
        }
        text
    }

    /// Leaves out the wish that a server refused; says whether it was one.
    fn give_up_wish(&mut self, error: &Error) -> bool {
        // 22023: not such a value, or not on this system. 42704: a setting that it does not know.
        let Some(server) = error.server().filter(|server| matches!(&*server.code, "22023" | "42704")) else {
            return false;
        };
        let before = self.wishes.len();
        self.wishes.retain(|(name, _)| !server.message.contains(&format!("\"{name}\"")));
        self.wishes.len() < before
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
    /// What it was opened for, with the wishes that can be fulfilled.
    purpose: Purpose,
    /// What marks its session, when settings were given and taken.
    mark: Option<String>,
    /// The process id that it was told.
    backend: Option<i32>,
    /// Set once, by who proves that something between keeps the session.
    proven: OnceLock<Proven>,
}

/// Opens a connection.
///
/// What the server does not take of the purpose's wishes is left out, and what a pooler does not
/// take of its settings comes later ([`Purpose::settings`]): each costs one more try here.
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
    let mut purpose = purpose.clone();
    let mark = session::mark();
    let mut given = purpose.options(&mark);
    loop {
        match open(address, &purpose, &given).await {
            Ok((client, driver)) => {
                let backend = session::told_backend(&client).await;
                let mark = (!given.is_empty()).then_some(mark);
                let (address, proven) = (address.clone(), OnceLock::new());
                return Ok(Connection { client, address, driver, purpose, mark, backend, proven });
            }
            Err(error) if error.kind() == ErrorKind::Pooler && !given.is_empty() => given = String::new(),
            Err(error) if purpose.give_up_wish(&error) => given = purpose.options(&mark),
            Err(error) => return Err(error),
        }
    }
}

/// Opens a connection with these start-up options.
async fn open(address: &Address, purpose: &Purpose, options: &str) -> Result<(Client, JoinHandle<()>), Error> {
    let doing =
        || format!("cannot connect to database {} on {} as {}", address.database(), address.server(), address.user());
    let config = address.config(purpose.application(), options);
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
        Ok(Ok(opened)) => Ok(opened),
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

    /// Returns the settings that it was opened with.
    pub(crate) fn settings(&self) -> &[(&'static str, String)] {
        &self.purpose.settings
    }

    /// Returns the wishes that it was opened with, without those that the server refused.
    pub(crate) fn wishes(&self) -> &[(&'static str, String)] {
        &self.purpose.wishes
    }

    /// Returns whether no setting was asked for.
    pub(crate) fn asks_nothing(&self) -> bool {
        self.settings().is_empty() && self.wishes().is_empty()
    }

    /// Returns what marks its session, when it was taken.
    pub(crate) fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    /// Returns the process id that it was told when it logged in.
    pub(crate) fn told_backend(&self) -> Option<i32> {
        self.backend
    }

    /// Returns what was proven about its session.
    pub(crate) fn proven(&self) -> Option<&Proven> {
        self.proven.get()
    }

    /// Keeps what was proven; the first proof stands.
    pub(crate) fn set_proven(&self, proven: Proven) {
        let _kept = self.proven.set(proven);
    }

    /// Returns the client library's own handle alone; the connection lives until that is dropped.
    pub fn into_client(self) -> Client {
        self.client
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
