//! One connection: opening it, running statements, and cancelling what runs.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage, SimpleQueryStream};

use crate::cancel::{Canceller, Way};
use crate::dial::{Dialed, Facts, dial};
use crate::line::{Gone, Guard, LINGER};
use crate::session::{self, Proven};
use crate::{Address, Error, ErrorKind};

/// How long a statement that ran out of time may take to end after it was cancelled; what is longer
/// is a network that is gone.
const CANCEL_GRACE: Duration = Duration::from_millis(700);

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
pub struct Connection {
    client: Client,
    address: Address,
    driver: JoinHandle<()>,
    /// How it got there.
    way: Arc<Way>,
    /// The host that was reached, for messages.
    label: String,
    facts: Facts,
    /// What it was opened for, with the wishes that can be fulfilled.
    purpose: Purpose,
    /// What marks its session, when settings were given and taken.
    mark: Option<String>,
    /// The process id that it was told.
    backend: Option<i32>,
    /// Set once, by who proves that something between keeps the session.
    proven: OnceLock<Proven>,
    /// The database's oid, once a lock in it was looked at.
    database_oid: OnceLock<u32>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("address", &self.address)
            .field("host", &self.label)
            .field("backend", &self.backend)
            .field("purpose", &self.purpose.application)
            .finish_non_exhaustive()
    }
}

/// Opens a connection to one of the address's hosts.
///
/// Hosts are tried in their order, as libpq does: the next one when nobody answers within
/// `connect_timeout` (TCP, TLS and login of that host; 10 s when the connection string does not say,
/// and then 20 s in all, also for one host alone), when the server is starting or stopping, and when it is not of the kind
/// that `target_session_attrs` asks for. A server that refuses us ends the search.
///
/// What the server does not take of the purpose's wishes is left out, and what a pooler does not
/// take of its settings comes later ([`Purpose::settings`]): each costs one more try here.
///
/// # Errors
///
/// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::DatabaseMissing`],
/// [`ErrorKind::Full`], [`ErrorKind::Unavailable`] or [`ErrorKind::Pooler`]; all of them name the
/// server and the database, and where several hosts were tried, each with the reason.
///
/// # Cancel safety
///
/// Dropping the future closes the half-open connection.
pub async fn connect(address: &Address, purpose: &Purpose) -> Result<Connection, Error> {
    connect_guarded(address, purpose, None).await
}

/// Opens a connection, and drops `guard` when the server has let go of it.
///
/// For whoever counts connections at the server: the guard is dropped when the server's process is
/// gone from `pg_stat_activity`, not when we close. That holds for each way in which a connection
/// ends: closed, dropped, refused, broken, or the future of this call dropped half-way. What is
/// limited is the wait of a connection that was closed: after two seconds without a word of the
/// server the guard is dropped, since a dead network must not hold it for ever.
///
/// # Errors
///
/// As [`connect`].
///
/// # Cancel safety
///
/// Dropping the future closes the half-open connection; the guard is dropped after that.
pub async fn connect_with_guard(
    address: &Address,
    purpose: &Purpose,
    guard: impl Send + 'static,
) -> Result<Connection, Error> {
    connect_guarded(address, purpose, Some(Guard::new(guard))).await
}

async fn connect_guarded(address: &Address, purpose: &Purpose, guard: Option<Guard>) -> Result<Connection, Error> {
    let mut purpose = purpose.clone();
    let mark = session::mark();
    let mut given = purpose.options(&mark);
    loop {
        let config = address.config(purpose.application(), &given);
        match dial(address, &config, guard.clone()).await {
            Ok(Dialed { client, driver, way, label, facts }) => {
                let backend = session::told_backend(&client).await;
                let mark = (!given.is_empty()).then_some(mark);
                let (address, proven, database_oid) = (address.clone(), OnceLock::new(), OnceLock::new());
                return Ok(Connection {
                    client,
                    address,
                    driver,
                    way,
                    label,
                    facts,
                    purpose,
                    mark,
                    backend,
                    proven,
                    database_oid,
                });
            }
            Err(error) if error.kind() == ErrorKind::Pooler && !given.is_empty() => given = String::new(),
            Err(error) if purpose.give_up_wish(&error) => given = purpose.options(&mark),
            Err(error) => return Err(error),
        }
    }
}

/// Carries the connection's messages; ends when the server has let go of it.
///
/// An error here reaches the caller too, through the statement that was waiting, so it is only
/// traced.
pub(crate) async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, gone: Gone, way: Arc<Way>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(severity = notice.severity(), "{}", notice.message());
            }
            // What is in them is not kept: they only say that there is something to look at.
            Ok(_) => way.news.notify_one(),
            Err(error) => {
                tracing::debug!(%error, "connection ended");
                break;
            }
        }
    }
    drop(connection);
    let _gone = gone.await;
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

    /// Returns the host that was reached, `host:port`.
    pub fn server(&self) -> &str {
        &self.label
    }

    /// Returns the address with the host that was reached as its only one: for another client library, or a second
    /// connection to the same server.
    pub fn reached_address(&self) -> Address {
        self.address.only_at(&self.label).unwrap_or_else(|_| self.address.clone())
    }

    /// Returns whether the server was in recovery (a standby) when we logged in.
    ///
    /// Servers tell it unasked; false where a pooler stands between that does not pass it on, unless
    /// `target_session_attrs` made us ask.
    pub fn in_recovery(&self) -> bool {
        self.facts.in_recovery.unwrap_or_default()
    }

    /// Returns the server's version as a number: 150018 is 15.18; 0 when it was not told.
    pub fn server_version(&self) -> u32 {
        self.facts.version
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

    /// Returns the database's oid, where the server has said it in passing.
    pub(crate) fn database_oid(&self) -> Option<u32> {
        self.database_oid.get().copied()
    }

    /// Keeps what the server said; a session does not change its database.
    pub(crate) fn set_database_oid(&self, oid: u32) {
        let _kept = self.database_oid.set(oid);
    }

    /// Returns the client library's own handle alone; the connection lives until that is dropped.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Returns the client library's own handle, and the task that ends when that was dropped and the
    /// server has let go of the connection.
    pub fn into_parts(self) -> (Client, JoinHandle<()>) {
        (self.client, self.driver)
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

    /// Returns what cancels this connection's statements, also from another task.
    pub fn canceller(&self) -> Canceller {
        Canceller { token: self.client.cancel_token(), way: self.way.clone() }
    }

    /// Asks the server to stop what this connection runs; failing to ask is not an error, since the
    /// statement may have ended by itself.
    ///
    /// The request goes to the very host and address that this connection reached.
    pub async fn cancel(&self) {
        self.canceller().cancel().await;
    }

    /// Runs something on this connection that must end in time.
    ///
    /// When the time is over, the server is asked to stop it. A server that does so leaves the
    /// connection usable. One that cannot be reached, or does not stop, within 0.7 s more, makes the
    /// connection closed: so this returns within `limit` and one second, whatever the network does.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`ErrorKind::Statement`] with SQLSTATE 57014 when it was stopped;
    /// [`ErrorKind::ConnectionLost`] when there was no answer.
    ///
    /// # Cancel safety
    ///
    /// That of `work`: a statement that was sent runs on at the server.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(connection: &pgfleet_postgres::Connection) -> Result<(), pgfleet_postgres::Error> {
    /// use std::time::Duration;
    /// let rows = connection.within(Duration::from_secs(5), connection.simple("SELECT 1")).await?;
    /// # Ok(()) }
    /// ```
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
            return done;
        }
        let message =
            || format!("no answer within {limit:?} in database {} on {}", self.address.database(), self.label);
        // The request goes on when we no longer wait for it.
        let canceller = self.canceller();
        let asking = tokio::spawn(async move { canceller.cancel().await });
        let deadline = tokio::time::Instant::now() + CANCEL_GRACE;
        let Ok(done) = tokio::time::timeout_at(deadline, work).await else {
            self.cut();
            let why = "the server did not stop the statement";
            return Err(Error::with_source(ErrorKind::ConnectionLost, message(), why));
        };
        if tokio::time::timeout_at(deadline, asking).await.is_err() {
            // The request may come when the next statement runs: there must be none.
            self.cut();
        }
        done.map_err(|error| error.described(message()))
    }

    /// Waits for a notification on a channel that this connection listens to (`LISTEN`).
    ///
    /// Several that came meanwhile are one. A connection that is lost says nothing: look from time to time anyway.
    /// Cancel safe.
    pub async fn notified(&self) {
        self.way.news.notified().await;
    }

    /// Closes the connection at once, without a word to the server; what waits on it fails.
    ///
    /// For a connection whose network or state is not to be trusted any more. A statement that runs
    /// there goes on until the server notices: cancel it before, where that matters.
    pub fn cut(&self) {
        self.driver.abort();
    }

    /// Turns an error of the client library into ours, naming the database.
    pub fn error(&self, error: tokio_postgres::Error) -> Error {
        let doing = format!("statement failed in database {} on {}", self.address.database(), self.label);
        Error::from_client(error, doing, false)
    }

    /// Closes the connection and waits until the server has let go of it.
    ///
    /// A session's advisory locks are free once this returns. A dead network does not hold it for
    /// longer than a few seconds.
    pub async fn close(self) {
        let Self { client, driver, .. } = self;
        drop(client);
        let _ended = tokio::time::timeout(LINGER + LINGER, driver).await;
    }
}
