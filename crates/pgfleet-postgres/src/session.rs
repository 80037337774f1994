//! Whether a connection has a session of the server for itself.
//!
//! A session lock and a session's settings are worth something only where nobody comes between: a
//! pooler in transaction mode hands each transaction to whichever session is free, and a lightly
//! used one hands out the same session each time, so that everything seems well until it is not.
//!
//! A connection that reaches the server itself is known without asking twice: the process id that
//! it was told when it logged in is that of the session which answers, and a mark that it gave at
//! start-up is in force there. Poolers hand out process ids of their own, for requests to cancel.
//!
//! Where something does stand between, it has to be proven that sessions are kept ([`prove`]).
//! What is tried is what is relied on: a lock that stays while its connection is there, and goes
//! with it. Nothing but a lock on a random number is taken for that.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::{Connection, Error, ErrorKind, Purpose, connect, quote_literal};

/// The setting that carries the mark.
pub(crate) const MARK: &str = "pgfleet.session";

/// How often the proof is repeated: somebody else's `DISCARD ALL` at the right moment looks like a
/// lock that went with its connection, but not three times.
const ROUNDS: u32 = 3;

/// How long a pooler may take to give a second session.
const SECOND_LIMIT: Duration = Duration::from_secs(10);

/// How long a pooler may take to clean a session after its client.
const CLEAN_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// First half of the keys of trial locks, `pgft` in ASCII.
const TRIAL: i32 = 0x7067_6674;

/// What a proof found.
#[derive(Debug)]
pub(crate) struct Proven {
    /// The process id of the session.
    pub(crate) backend: i32,
    /// Makes the settings that were not taken at start-up; empty when they were.
    pub(crate) restore: String,
}

/// Returns a mark that no other session bears.
pub(crate) fn mark() -> String {
    format!("{:016x}", rand::random::<u64>())
}

impl Connection {
    /// Returns the statement that makes this connection's settings again after a `RESET ALL`; empty
    /// where that comes back to them by itself.
    ///
    /// One statement, without a semicolon. Not empty behind poolers only, which forget the settings
    /// that a client gives at start-up.
    pub fn restore_sql(&self) -> &str {
        self.proven().map_or("", |proven| &proven.restore)
    }

    /// Asks whether this connection reaches the server itself: whoever stands in between hands out process ids of its
    /// own.
    ///
    /// # Errors
    ///
    /// A lost connection.
    pub async fn is_direct(&self) -> Result<bool, Error> {
        let rows = self.simple("SELECT pg_catalog.pg_backend_pid()").await?;
        let answers = rows.first().and_then(|row| row.get(0)).and_then(|pid| pid.parse::<i32>().ok());
        Ok(answers.is_some() && answers == self.told_backend())
    }

    /// Returns the condition under which a statement runs in a session that is known to be ours.
    pub(crate) fn ours_sql(&self) -> String {
        let is = |backend: i32| format!("pg_catalog.pg_backend_pid() = {backend}");
        match (self.proven(), self.told_backend(), self.mark()) {
            (Some(proven), ..) => is(proven.backend),
            (None, Some(backend), Some(mark)) => format!("{} AND {}", is(backend), marked_sql(mark)),
            (None, Some(backend), None) if self.asks_nothing() => is(backend),
            _ => "false".to_owned(),
        }
    }
}

/// Whether the mark is in force, in SQL.
fn marked_sql(mark: &str) -> String {
    format!("coalesce(pg_catalog.current_setting('{MARK}', true) = {}, false)", quote_literal(mark))
}

/// Proves that a connection keeps its session though something stands between, and makes there the
/// settings that were not taken at start-up.
///
/// # Errors
///
/// [`ErrorKind::Pooler`] with what was seen when the session is not kept; also when the pooler does
/// not give the second session that the proof needs.
pub(crate) async fn prove(connection: &Connection) -> Result<(), Error> {
    let marked = connection.mark().map_or_else(|| connection.asks_nothing().to_string(), marked_sql);
    let row = first(connection, &format!("SELECT pg_catalog.pg_backend_pid(), ({marked})::int")).await?;
    let (backend, marked) = (number(&row, 0), number(&row, 1) == 1);
    for _ in 0..ROUNDS {
        let key = rand::rng().random_range(1..i32::MAX);
        let other = connect(connection.address(), &Purpose::new("pgfleet session")).await?;
        let tried = tokio::time::timeout(SECOND_LIMIT, hold(connection, &other, backend, key)).await;
        other.close().await;
        let held = tried.map_err(|_| {
            refused(connection, &format!("it gave no second session within {} s", SECOND_LIMIT.as_secs()))
        })?;
        gone(connection, backend, held?, key).await?;
    }
    let restore = if marked { String::new() } else { make_settings(connection, backend).await? };
    connection.set_proven(Proven { backend, restore });
    Ok(())
}

/// Makes the settings that were not taken at start-up; returns the statement that makes them again.
async fn make_settings(connection: &Connection, backend: i32) -> Result<String, Error> {
    let mut taken: Vec<String> = Vec::new();
    for wish in connection.wishes() {
        let wish = setting_sql(wish);
        match connection.simple(&format!("SELECT {wish} WHERE pg_catalog.pg_backend_pid() = {backend}")).await {
            Ok(_) => taken.push(wish),
            Err(error) if error.kind() == ErrorKind::Statement => {}
            Err(error) => return Err(error),
        }
    }
    let all: Vec<String> = connection.settings().iter().map(setting_sql).chain(taken).collect();
    if all.is_empty() {
        return Ok(String::new());
    }
    let restore = format!("SELECT {}", all.join(", "));
    let rows = connection.simple(&format!("{restore} WHERE pg_catalog.pg_backend_pid() = {backend}")).await?;
    if rows.is_empty() { Err(refused(connection, MOVED)) } else { Ok(restore) }
}

fn setting_sql((name, value): &(&'static str, String)) -> String {
    format!("pg_catalog.set_config({}, {}, false)", quote_literal(name), quote_literal(value))
}

const SHARED: &str = "two connections were given the same session of the server";
const MOVED: &str = "one connection was given two sessions of the server";
const LOST: &str = "a lock was lost between two statements";
const OUTLIVED: &str = "a lock outlived the connection that had taken it";

/// Takes a trial lock on another connection and looks whether it is kept there; returns that
/// session's process id.
async fn hold(connection: &Connection, other: &Connection, backend: i32, key: i32) -> Result<i32, Error> {
    // Not in our own session: there nobody would free it but by luck.
    let row = first(
        other,
        &format!(
            "SELECT pg_catalog.pg_backend_pid(), CASE WHEN pg_catalog.pg_backend_pid() <> {backend} \
             THEN pg_catalog.pg_try_advisory_lock({TRIAL}, {key})::int END"
        ),
    )
    .await?;
    let theirs = number(&row, 0);
    if theirs == backend {
        return Err(refused(connection, SHARED));
    }
    let row = first(
        other,
        &format!(
            "SELECT pg_catalog.pg_backend_pid(), EXISTS (SELECT FROM pg_catalog.pg_locks WHERE {} \
             AND pid = {theirs})::int",
            trial_sql(key)
        ),
    )
    .await?;
    match (number(&row, 0) == theirs, number(&row, 1)) {
        (true, 1) => Ok(theirs),
        (true, _) => Err(refused(connection, LOST)),
        (false, _) => Err(refused(connection, MOVED)),
    }
}

/// Waits until the trial lock is gone, as it must be after its connection.
async fn gone(connection: &Connection, backend: i32, theirs: i32, key: i32) -> Result<(), Error> {
    let began = Instant::now();
    let look = format!(
        "SELECT pg_catalog.pg_backend_pid(), EXISTS (SELECT FROM pg_catalog.pg_locks WHERE {})::int, \
         CASE WHEN pg_catalog.pg_backend_pid() = {theirs} THEN pg_catalog.pg_advisory_unlock({TRIAL}, {key})::int END",
        trial_sql(key)
    );
    loop {
        let row = first(connection, &look).await?;
        if number(&row, 0) == theirs {
            return Err(refused(connection, SHARED));
        }
        if number(&row, 0) != backend {
            return Err(refused(connection, MOVED));
        }
        if number(&row, 1) == 0 {
            return Ok(());
        }
        if began.elapsed() > CLEAN_LIMIT {
            return Err(refused(connection, OUTLIVED));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Which row of `pg_locks` is the trial lock.
fn trial_sql(key: i32) -> String {
    format!("locktype = 'advisory' AND classid = {TRIAL} AND objid = {key} AND objsubid = 2 AND granted")
}

/// The error about a pooler; `seen` is what gave it away.
pub(crate) fn refused(connection: &Connection, seen: &str) -> Error {
    let address = connection.address();
    Error::with_source(
        ErrorKind::Pooler,
        format!("a pooler in transaction mode stands before database {} on {}", address.database(), address.server()),
        format!("{seen}; the lock that keeps two runs apart and the settings of a run belong to one session"),
    )
}

/// Asks something that always has an answer.
pub(crate) async fn first(connection: &Connection, sql: &str) -> Result<tokio_postgres::SimpleQueryRow, Error> {
    let rows = connection.simple(sql).await?;
    rows.into_iter().next().ok_or_else(|| refused(connection, "an answer did not come"))
}

fn number(row: &tokio_postgres::SimpleQueryRow, at: usize) -> i32 {
    row.get(at).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Returns the process id that a connection was told when it logged in.
///
/// The client library keeps it for requests to cancel and shows it nowhere, but it writes such a
/// request to any stream: here to one that goes nowhere.
pub(crate) async fn told_backend(client: &tokio_postgres::Client) -> Option<i32> {
    let stream = Nowhere::default();
    client.cancel_token().cancel_query_raw(stream.clone(), stream.clone()).await.ok()?;
    let written = stream.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Length, code, process id and secret, four bytes each; a request for TLS may stand before.
    let request = written.last_chunk::<16>()?;
    let [_, _, _, _, _, _, _, _, backend @ .., _, _, _, _] = *request;
    Some(i32::from_be_bytes(backend))
}

/// A stream that keeps what is written, and agrees when it is asked for TLS.
#[derive(Debug, Clone, Default)]
struct Nowhere(Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Nowhere {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        buffer.put_slice(b"S");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Nowhere {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for Nowhere {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl TlsConnect<Self> for Nowhere {
    type Stream = Self;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self, Self::Error>>;

    fn connect(self, stream: Self) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}
