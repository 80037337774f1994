//! The same databases for services that use sqlx.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pgfleet_postgres::pool::{Foreign, ForeignPool, Lent, Pool, PoolOptions};
use pgfleet_route::Scope;
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{PgConnection, Row as _};

use crate::error::{Error, ErrorKind};
use crate::service::Service;

/// How many connections of a budget are kept from sqlx: one of ours that writes, and one that reads.
const KEPT: usize = 2;

/// A pool of sqlx in a server's budget.
#[derive(Clone)]
struct Sqlx(PgPool);

impl Foreign for Sqlx {
    async fn close(self) {
        self.0.close().await;
    }
}

/// The pools of one place, by where they go.
#[derive(Default)]
struct Pools {
    known: Mutex<HashMap<String, ForeignPool<Sqlx>>>,
    /// Held while one is made. What is asked of the server before takes connections of ours, and all who come at first at
    /// the same time would take all there are.
    making: tokio::sync::Mutex<()>,
}

impl Pools {
    /// Lends the one that is in use; none when nobody uses one.
    fn lent(&self, key: &str) -> Option<LentPool> {
        let pool = self.known().get(key)?.lent()?;
        Some(LentPool { pool })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, ForeignPool<Sqlx>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lent [`PgPool`]; dropping it gives it back.
///
/// Take one per request, use it where a `&PgPool` is taken, and keep it as long as the work lasts: a clone of the pool
/// itself may find it closed later, when nobody held a loan and another database needed the connections.
pub struct LentPool {
    pool: Lent<Sqlx>,
}

impl fmt::Debug for LentPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentPool").field("pool", &self.pool).finish()
    }
}

impl Deref for LentPool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool.0
    }
}

impl LentPool {
    /// Notes in the current [`Session`](crate::Session) what was committed on a connection of this pool, so that who
    /// reads in it sees that. Without a session it does nothing, and takes no connection.
    ///
    /// What was written is written: that its position is not known is told to the log only, since the caller could do
    /// nothing about it that is not worse.
    pub async fn note_write(&self) {
        if Scope::current().session().is_none() {
            return;
        }
        let noted = async { note_write(&mut *self.acquire().await?).await };
        if let Err(error) = noted.await {
            tracing::debug!("{error:#}");
        }
    }
}

impl Service {
    /// Lends a pool of sqlx that writes, for whom the current [`Scope`] says.
    ///
    /// It is under the same budget as all other pools: sqlx opens its connections itself, so their slots are taken
    /// before the pool is made (one at least, and up to the pool's `max` and half of the budget when they are free), and given back when nobody
    /// holds a loan of it and it was idle for `idle_timeout` or another database needs them.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn sqlx(&self) -> Result<LentPool, Error> {
        self.lend(None, false).await
    }

    /// Lends a pool of sqlx that reads: on a replica that is near enough and has what the current session wrote, else on
    /// the primary. Its sessions refuse writes.
    ///
    /// # Errors
    ///
    /// As [`reader`](Self::reader).
    pub async fn sqlx_reader(&self) -> Result<LentPool, Error> {
        self.lend(None, true).await
    }

    async fn lend(&self, name: Option<&str>, reads: bool) -> Result<LentPool, Error> {
        let router = self.router();
        let place = router.place(name).await?;
        let pools = place.keep(Pools::default);
        let of = match reads {
            false => place.pool().clone(),
            true if place.has_replicas() => router.reader(name).await?.settled().await?,
            true => place.reading_pool().clone(),
        };
        let key = if reads { format!("reads {}", of.address().server()) } else { "writes".to_owned() };
        if let Some(lent) = pools.lent(&key) {
            return Ok(lent);
        }
        let _one = pools.making.lock().await;
        if let Some(lent) = pools.lent(&key) {
            return Ok(lent);
        }
        // Whoever writes learns what the server allows, too.
        drop(router.writer(name).await?);
        let options = connect_options(&of).await?;
        let new = || ForeignPool::new(of.budget(), format!("{} (sqlx)", of.address().database()), share(&of));
        let foreign = pools.known().entry(key).or_insert_with(new).clone();
        let limits = of.options().clone();
        let make = move |connections: u32| {
            let pool = PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(limits.connect_timeout)
                .idle_timeout(limits.idle_timeout)
                .max_lifetime(limits.max_lifetime);
            Sqlx(pool.connect_lazy_with(options))
        };
        Ok(LentPool { pool: foreign.get(make).await? })
    }
}

/// How a pool of sqlx behaves: it keeps what it has once taken, so it leaves as much to the other one, which reads or
/// writes, and a little to connections of ours.
fn share(of: &Pool) -> PoolOptions {
    let half = of.budget().stats().limit.saturating_sub(KEPT) / 2;
    PoolOptions { max: of.options().max.min(half.max(1)), ..of.options().clone() }
}

/// The options of sqlx for what a pool of ours connects to, as found by one connection of it: the host that is the
/// primary now, and whether statements may have names.
async fn connect_options(of: &Pool) -> Result<PgConnectOptions, Error> {
    let db = of.get().await?;
    let url = db.connection().reached_address().expose_url();
    let options: PgConnectOptions = url.expose_secret().parse().map_err(|error: sqlx::Error| {
        // Its text is about the form; the string itself is not in it.
        Error::new(ErrorKind::Configuration, format!("sqlx cannot use the address of {}", of.address().database()))
            .cause(error.to_string())
    })?;
    let options = options.application_name(&of.purpose().application);
    let options = if db.is_named() { options } else { options.statement_cache_capacity(0) };
    // Behind a pooler settings at the start would be refused or forgotten.
    let settings = if db.is_named() { &*of.purpose().settings } else { &[] };
    Ok(options.options(settings.iter().map(|(name, value)| (*name, value.replace('\\', "\\\\").replace(' ', "\\ ")))))
}

/// Notes in the current [`Session`](crate::Session) what was committed on a connection of sqlx, so that who reads in it
/// sees that.
///
/// Call it after the commit, on the connection that committed or another one of the same pool. Without a session it does
/// nothing.
///
/// # Errors
///
/// As the query that it runs; what was written is written.
pub async fn note_write(connection: &mut PgConnection) -> Result<(), Error> {
    let Some(session) = Scope::current().session().cloned() else { return Ok(()) };
    let sql = "SELECT s.system_identifier, pg_catalog.substr(pg_catalog.pg_walfile_name(p.lsn), 1, 8), p.lsn::text \
               FROM pg_catalog.pg_control_system() s, pg_catalog.pg_current_wal_insert_lsn() AS p (lsn)";
    let row = sqlx::query(sql).fetch_one(connection).await?;
    let (system, timeline, lsn): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
    let token = format!("{:016x}-{timeline}-{lsn}", system.cast_unsigned());
    session.add(token.parse().map_err(|error: pgfleet_postgres::lsn::TokenError| {
        Error::new(ErrorKind::Statement, "the position of a write is not known").cause(error.to_string())
    })?);
    Ok(())
}
