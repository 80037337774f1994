//! A connection that was taken from a pool.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::budget::Resource;
use super::options::{PoolOptions, Statements};
use super::pool::Pool;
use super::statements::{Cache, Prepared, types_of};
use super::transaction::{Transaction, TransactionOptions};
use crate::lsn::{Lsn, Token};
use crate::{Connection, Error, ErrorKind};

/// How much later than the server the client gives a statement up: the server's own answer says more.
const GRACE: Duration = Duration::from_millis(500);

/// How long asking the server to stop may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// Where a write stands in the log, for [`Token`].
const POSITION: &str = "SELECT p.lsn::text, pg_catalog.substr(pg_catalog.pg_walfile_name(p.lsn), 1, 8) \
                        FROM pg_catalog.pg_current_wal_insert_lsn() AS p (lsn)";

/// A pool's connection with what is known of it.
pub(super) struct Live {
    connection: Connection,
    statements: Cache,
    /// Whether the server remembers statements by name.
    named: bool,
    cached: bool,
    /// Whether it is known that nothing stands between: all requests go to one session of one server process.
    direct: bool,
    /// Up to where the server is known to have replayed the log; 0 when it was not asked.
    replayed: AtomicU64,
    born: Instant,
    max_lifetime: Duration,
    /// Requests sent whose answers nobody took.
    flight: AtomicU32,
    /// Whether it must not be used again.
    broken: AtomicBool,
}

impl Live {
    pub(super) async fn new(connection: Connection, options: &PoolOptions) -> Result<Self, Error> {
        let named = match options.statements {
            Statements::Named => true,
            Statements::Unnamed | Statements::Off => false,
            Statements::Auto => connection.is_direct().await?,
        };
        Ok(Self {
            connection,
            statements: Cache::default(),
            named,
            cached: options.statements != Statements::Off,
            direct: named && options.statements == Statements::Auto,
            replayed: AtomicU64::new(0),
            born: Instant::now(),
            max_lifetime: options.max_lifetime,
            flight: AtomicU32::new(0),
            broken: AtomicBool::new(false),
        })
    }

    pub(super) fn of(resource: Box<dyn Resource>) -> Box<Self> {
        match resource.into_any().downcast() {
            Ok(live) => live,
            Err(_) => unreachable!("a pool of connections holds connections"),
        }
    }

    fn client(&self) -> &Client {
        self.connection.client()
    }

    async fn prepared(&self, sql: &str) -> Result<Prepared, tokio_postgres::Error> {
        if self.cached
            && let Some(known) = self.statements.get(sql)
        {
            return Ok(known);
        }
        let prepared = if self.named {
            // Boxed, as all that is done once: the state of what is done each time stays small.
            Prepared::Named(Box::pin(self.client().prepare(sql)).await?)
        } else {
            Prepared::Typed(Box::pin(types_of(self.client(), sql)).await?)
        };
        if self.cached {
            self.statements.keep(sql, prepared.clone());
        }
        Ok(prepared)
    }

    /// Sends a statement at its first poll.
    async fn rows(&self, prepared: &Prepared, sql: &str, values: Values<'_>) -> Result<Vec<Row>, Failed> {
        match prepared {
            Prepared::Named(statement) => Ok(self.client().query(statement, values).await?),
            Prepared::Typed(types) => Ok(self.client().query_typed(sql, &typed(values, types)?).await?),
        }
    }

    /// Sends a statement at its first poll.
    async fn touched(&self, prepared: &Prepared, sql: &str, values: Values<'_>) -> Result<u64, Failed> {
        match prepared {
            Prepared::Named(statement) => Ok(self.client().execute(statement, values).await?),
            Prepared::Typed(types) => Ok(self.client().execute_typed(sql, &typed(values, types)?).await?),
        }
    }
}

impl Resource for Live {
    fn is_closed(&self) -> bool {
        self.connection.is_closed() || self.broken.load(Ordering::Relaxed) || self.born.elapsed() > self.max_lifetime
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A connection that was taken from a pool; dropping it puts it back.
///
/// Statements are prepared once per connection ([`Statements`]), end after the pool's `command_timeout` (also when the
/// network is silent), and are traced at `pgfleet::query` with their time and number of rows, never with their values.
///
/// A connection whose request was given up half-way is closed, not handed to the next: what it runs is cancelled.
pub struct Pooled {
    /// None only while being dropped or turned into a transaction.
    live: Option<Box<Live>>,
    lease: usize,
    pool: Pool,
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pooled({} on {})", self.pool.address().database(), self.pool.address().server())
    }
}

impl Pooled {
    pub(super) fn new(pool: Pool, live: Box<Live>, lease: usize) -> Self {
        Self { live: Some(live), lease, pool }
    }

    fn live(&self) -> &Live {
        self.live.as_deref().unwrap_or_else(|| unreachable!("a connection is there until it is put back"))
    }

    /// Returns the pool that it belongs to.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the connection.
    pub fn connection(&self) -> &Connection {
        &self.live().connection
    }

    /// Returns the client library's own handle, for what has no method here: `COPY`, row streams, portals.
    ///
    /// What is run through it has no time-out here and must be ended in order: neither `BEGIN` as text nor half-read
    /// streams.
    pub fn client(&self) -> &Client {
        self.live().client()
    }

    /// Returns whether statements are prepared by name; false where a pooler is in between.
    pub fn is_named(&self) -> bool {
        self.live().named
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Statement`] with the server's message, [`ErrorKind::TimedOut`], or a lost connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the statement running until this connection is dropped, which cancels it.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.again(sql, |live| async move { live.rows(&live.prepared(sql).await?, sql, values).await }).await
    }

    /// Runs a statement that returns one row.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and [`ErrorKind::Rows`] for none or several.
    pub async fn query_one(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        self.query_opt(sql, values).await?.ok_or_else(|| self.not_one_row(0))
    }

    /// Runs a statement that returns at most one row.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and [`ErrorKind::Rows`] for several.
    pub async fn query_opt(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        let mut rows = self.query(sql, values).await?;
        if rows.len() > 1 { Err(self.not_one_row(rows.len())) } else { Ok(rows.pop()) }
    }

    /// Runs a statement and returns the number of rows it touched.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.again(sql, |live| async move { live.touched(&live.prepared(sql).await?, sql, values).await }).await
    }

    /// Runs statements without values in one message.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn batch(&self, sql: &str) -> Result<(), Error> {
        self.limited(sql, async { Ok(self.client().batch_execute(sql).await?) }).await
    }

    /// Begins a transaction, which keeps the connection until it ends.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn begin(self, options: TransactionOptions) -> Result<Transaction, Error> {
        Transaction::begin(self, options).await
    }

    /// Returns what a reader must have seen to see all that was committed on this connection.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query); on a replica, which has no such position.
    pub async fn token(&self) -> Result<Token, Error> {
        let system = self.system().await?;
        let row = self.query_one(POSITION, &[]).await?;
        token_of(system, &row)
    }

    /// Runs a statement as [`query`](Self::query), and says what a reader must have seen to see what it wrote, in the
    /// same round trip.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query); the inner one is that the position is not known.
    pub async fn query_and_look(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(Vec<Row>, Result<Token, Error>), Error> {
        let system = match self.system().await {
            Ok(system) => system,
            Err(error) => return Ok((self.query(sql, values).await?, Err(error))),
        };
        let looked = self.again(sql, |live| async move {
            // Both before either is sent: what is prepared on the way would let the other one overtake.
            let (statement, position) = (live.prepared(sql).await?, live.prepared(POSITION).await?);
            let both = join(live.rows(&statement, sql, values), live.rows(&position, POSITION, &[])).await;
            Ok(Looked(both.0?, both.1))
        });
        Ok(looked.await?.token(self, system))
    }

    /// Runs a statement as [`execute`](Self::execute), and says what a reader must have seen to see what it wrote, in
    /// the same round trip.
    ///
    /// # Errors
    ///
    /// As [`query_and_look`](Self::query_and_look).
    pub async fn execute_and_look(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(u64, Result<Token, Error>), Error> {
        let system = match self.system().await {
            Ok(system) => system,
            Err(error) => return Ok((self.execute(sql, values).await?, Err(error))),
        };
        let looked = self.again(sql, |live| async move {
            let (statement, position) = (live.prepared(sql).await?, live.prepared(POSITION).await?);
            let both = join(live.touched(&statement, sql, values), live.rows(&position, POSITION, &[])).await;
            Ok(Looked(both.0?, both.1))
        });
        Ok(looked.await?.token(self, system))
    }

    /// Runs statements as [`batch`](Self::batch), and says what a reader must have seen to see what they wrote, in the
    /// same round trip.
    ///
    /// # Errors
    ///
    /// As [`query_and_look`](Self::query_and_look).
    pub async fn batch_and_look(&self, sql: &str) -> Result<((), Result<Token, Error>), Error> {
        if let Err(error) = self.system().await {
            return Ok((self.batch(sql).await?, Err(error)));
        }
        let (ended, token) = self.finish_with_token(sql).await?;
        Ok((ended?, token))
    }

    /// Asks a question and runs a statement right behind it, in one round trip: what is answered holds for what the
    /// statement sees.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query) for the question; the inner one is the statement's.
    pub async fn query_behind(
        &self,
        (question, asked): (&str, &[&(dyn ToSql + Sync)]),
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(Vec<Row>, Result<Vec<Row>, Error>), Error> {
        let both = self.again(question, |live| async move {
            // Both before either is sent: what is prepared on the way would let the other one overtake.
            let first = live.prepared(question).await?;
            match live.prepared(sql).await {
                Ok(second) => {
                    let both = join(live.rows(&first, question, asked), live.rows(&second, sql, values)).await;
                    Ok(Looked(both.0?, both.1))
                }
                // It may be about what was not there yet before the question.
                Err(_) => Ok(Looked(
                    live.rows(&first, question, asked).await?,
                    self.query(sql, values).await.map_err(Failed::Ours),
                )),
            }
        });
        let Looked(answer, rows) = both.await?;
        let rows = match rows.map_err(|failed| self.failed(failed)) {
            Err(error) if is_stale(&error) => self.query(sql, values).await,
            rows => rows,
        };
        Ok((answer, rows))
    }

    /// Sends two requests one behind the other, without waiting for the first answer.
    pub(super) async fn finish_with_token(
        &self,
        sql: &str,
    ) -> Result<(Result<(), Error>, Result<Token, Error>), Error> {
        let system = self.system().await?;
        let both = async {
            let ends = self.client().batch_execute(sql);
            let looks = self.client().query_typed(POSITION, &[]);
            Ok(join(ends, looks).await)
        };
        let (ended, looked) = self.limited(sql, both).await?;
        let ended = ended.map_err(|error| self.connection().error(error));
        let token = match looked.map_err(|error| self.connection().error(error)) {
            Ok(rows) => rows.first().ok_or_else(|| self.not_one_row(0)).and_then(|row| token_of(system, row)),
            Err(error) => Err(error),
        };
        Ok((ended, token))
    }

    /// Which cluster this is.
    async fn system(&self) -> Result<u64, Error> {
        if let Some(system) = self.pool.0.system.get() {
            return Ok(*system);
        }
        let sql = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
        let system: i64 = self.query_one(sql, &[]).await?.get(0);
        Ok(*self.pool.0.system.get_or_init(|| system.cast_unsigned()))
    }

    /// Notes that the server has replayed the log up to here.
    pub fn note_replayed(&self, lsn: Lsn) {
        self.live().replayed.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Returns whether it was noted that the server has replayed the log up to here.
    ///
    /// That holds as long as the connection does: a replica that has crashed and replays again has closed it. Never
    /// true where a pooler may stand between, which may go on with another server.
    pub fn has_replayed(&self, lsn: Lsn) -> bool {
        let live = self.live();
        live.direct && live.replayed.load(Ordering::Relaxed) >= lsn.0
    }

    /// Marks the connection as not to be used again.
    pub fn discard(&self) {
        self.live().broken.store(true, Ordering::Relaxed);
    }

    /// Makes the error of a statement that returned another number of rows than it must.
    pub fn not_one_row(&self, count: usize) -> Error {
        let database = self.pool.address().database();
        Error::new(ErrorKind::Rows, format!("a statement in database {database} returned {count} rows instead of one"))
    }

    /// Runs a request; once more when what was prepared is out of date.
    async fn again<'a, T, F, R>(&'a self, sql: &'a str, request: F) -> Result<T, Error>
    where
        F: Fn(&'a Live) -> R,
        R: Future<Output = Result<T, Failed>>,
        T: Counted,
    {
        let live = self.live();
        let first = self.limited(sql, request(live)).await;
        match first {
            Err(error) if is_stale(&error) => {
                live.statements.forget(sql);
                // Inside of a transaction nothing more can be run after an error; the next one finds it mended.
                if self.is_in_transaction() {
                    return Err(error);
                }
                Box::pin(self.limited(sql, request(live))).await
            }
            other => other,
        }
    }

    fn is_in_transaction(&self) -> bool {
        self.live().flight.load(Ordering::Relaxed) >= IN_TRANSACTION
    }

    fn failed(&self, failed: Failed) -> Error {
        match failed {
            Failed::Client(error) => self.live().connection.error(error),
            Failed::Ours(error) => error,
        }
    }

    /// Runs a request within the command time-out, and traces it.
    async fn limited<T: Counted>(
        &self,
        sql: &str,
        request: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Error> {
        let live = self.live();
        let began = Instant::now();
        live.flight.fetch_add(1, Ordering::Relaxed);
        let options = self.pool.options();
        let answer = match options.command_timeout {
            Some(limit) => tokio::time::timeout(limit + GRACE, request).await.ok(),
            None => Some(request.await),
        };
        let took = began.elapsed();
        let result = if let Some(answer) = answer {
            live.flight.fetch_sub(1, Ordering::Relaxed);
            answer.map_err(|failed| self.failed(failed))
        } else {
            self.discard();
            let database = self.pool.address().database();
            let message = format!("no answer from database {database} within {:.1} s", took.as_secs_f64());
            Err(Error::new(ErrorKind::TimedOut, message))
        };
        trace(self.pool.address().database(), sql, took, options.slow, &result);
        result
    }
}

/// Added to the count of requests while a transaction is open, so that one number says both.
pub(super) const IN_TRANSACTION: u32 = 1 << 16;

impl Pooled {
    pub(super) fn enter_transaction(&self) {
        self.live().flight.fetch_add(IN_TRANSACTION, Ordering::Relaxed);
    }

    pub(super) fn leave_transaction(&self) {
        self.live().flight.fetch_sub(IN_TRANSACTION, Ordering::Relaxed);
    }

    /// Whether an answer is outstanding within a transaction.
    pub(super) fn is_in_flight_inside(&self) -> bool {
        self.live().flight.load(Ordering::Relaxed) > IN_TRANSACTION
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else { return };
        if live.flight.load(Ordering::Relaxed) > 0 {
            live.broken.store(true, Ordering::Relaxed);
            // Nobody reads the answer any more: the server need not go on.
            if !live.connection.is_closed()
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                let membership = Arc::clone(&self.pool.0);
                let lease = self.lease;
                runtime.spawn(async move {
                    // A network that is gone takes no request to cancel either.
                    let _asked = tokio::time::timeout(CANCEL_LIMIT, live.connection.cancel()).await;
                    live.connection.cut();
                    membership.membership.put(Some(live), lease);
                });
                return;
            }
        }
        self.pool.0.membership.put(Some(live), self.lease);
    }
}

/// What a statement is given.
type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Why a request failed.
pub(super) enum Failed {
    Client(tokio_postgres::Error),
    Ours(Error),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Client(error)
    }
}

/// Reads a row of [`POSITION`].
fn token_of(system: u64, row: &Row) -> Result<Token, Error> {
    let (lsn, timeline): (&str, &str) = (row.get(0), row.get(1));
    let lsn: Result<Lsn, _> = lsn.parse();
    match (lsn, u32::from_str_radix(timeline, 16)) {
        (Ok(lsn), Ok(timeline)) => Ok(Token { system, timeline, lsn }),
        _ => Err(Error::new(ErrorKind::Statement, "the server names no position of its log")),
    }
}

/// Pairs values with their types.
fn typed<'a>(
    values: &'a [&'a (dyn ToSql + Sync)],
    types: &[Type],
) -> Result<Vec<(&'a (dyn ToSql + Sync), Type)>, Failed> {
    if values.len() != types.len() {
        let message = format!("the statement takes {} values, and {} were given", types.len(), values.len());
        return Err(Failed::Ours(Error::new(ErrorKind::Statement, message)));
    }
    Ok(values.iter().copied().zip(types.iter().cloned()).collect())
}

/// Whether what was prepared no longer fits: a table was changed, or a pooler gave another session.
fn is_stale(error: &Error) -> bool {
    match error.sql_state() {
        Some("26000") => true,
        Some("0A000") => error.server().is_some_and(|server| server.message.contains("cached plan")),
        _ => false,
    }
}

/// An answer whose rows can be counted.
pub(super) trait Counted {
    fn count(&self) -> u64;
}

impl Counted for Vec<Row> {
    fn count(&self) -> u64 {
        self.len() as u64
    }
}

impl Counted for u64 {
    fn count(&self) -> u64 {
        *self
    }
}

impl Counted for () {
    fn count(&self) -> u64 {
        0
    }
}

/// What a statement returned, and the answer to the request that was sent right behind it.
struct Looked<T>(T, Result<Vec<Row>, Failed>);

impl<T> Looked<T> {
    fn token(self, db: &Pooled, system: u64) -> (T, Result<Token, Error>) {
        let Self(result, looked) = self;
        let token = looked.map_err(|failed| db.failed(failed)).and_then(|rows| match rows.first() {
            Some(row) => token_of(system, row),
            None => Err(db.not_one_row(0)),
        });
        (result, token)
    }
}

impl<T: Counted> Counted for Looked<T> {
    fn count(&self) -> u64 {
        self.0.count()
    }
}

impl<A, B> Counted for (A, B) {
    fn count(&self) -> u64 {
        0
    }
}

fn trace<T: Counted>(database: &str, sql: &str, took: Duration, slow: Duration, result: &Result<T, Error>) {
    let millis = took.as_secs_f64() * 1000.0;
    match result {
        Ok(rows) if took >= slow => {
            tracing::warn!(target: "pgfleet::query", database, millis, rows = rows.count(), sql, "slow query");
        }
        Ok(rows) => tracing::debug!(target: "pgfleet::query", database, millis, rows = rows.count(), sql, "query"),
        Err(error) => {
            let state = error.sql_state().unwrap_or_default();
            tracing::debug!(target: "pgfleet::query", database, millis, state, sql, "query failed");
        }
    }
}
