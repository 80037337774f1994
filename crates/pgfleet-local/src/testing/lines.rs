//! The few connections that a process keeps for making and removing databases.
//!
//! One of them, the guard, holds an advisory lock on a number that this process drew and that stands in the names of
//! its databases. Whoever sweeps asks the server for that lock: nobody holds it, so the process is gone, whichever
//! machine it ran on. So what may cost a session its connection is never run on the guard: it would cost the databases.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::database_error;
use crate::error::{Error, Result};

/// As many databases are made at once: more slow each other down, and many test processes share the server's
/// connections.
const MOST: usize = 4;

/// First half of the locks on drawn numbers: `pgtp` in ASCII.
pub(super) const ALIVE: i32 = 0x7067_7470;

/// A connection that is being opened.
pub(super) type Opening = Pin<Box<dyn Future<Output = std::result::Result<Client, String>> + Send>>;

pub(super) struct Lines {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    /// The number in the names of our databases.
    pub(super) key: u32,
    /// `server_version_num`; 0 before the first connection.
    version: AtomicI32,
    permits: Semaphore,
    idle: Mutex<Idle>,
    /// Held while the guard is being opened: no database is made before the lock is held.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Idle {
    clients: Vec<(Client, bool)>,
    /// Whether the guard is there, here or in use.
    guarded: bool,
}

impl Lines {
    pub(super) fn new(open: Box<dyn Fn() -> Opening + Send + Sync>, key: u32) -> Self {
        Self {
            open,
            key,
            version: AtomicI32::new(0),
            permits: Semaphore::new(MOST),
            idle: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // What is inside is whole at every moment.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection, opens one when none is idle. It goes back when it is dropped.
    pub(super) async fn take(&self) -> Result<Line<'_>> {
        let Ok(permit) = self.permits.acquire().await else { unreachable!("the semaphore is never closed") };
        let line = |client, guard| Line { client: Some((client, guard)), lines: self, _permit: permit };
        if let Some((client, guard)) = self.pop() {
            return Ok(line(client, guard));
        }
        let opening = self.opening.lock().await;
        // Whoever waited here while the guard was opened may find one idle now.
        if let Some((client, guard)) = self.pop() {
            return Ok(line(client, guard));
        }
        let guard = !self.idle().guarded;
        if !guard {
            drop(opening);
            return Ok(line(self.open(false).await?, false));
        }
        let client = self.open(true).await?;
        self.idle().guarded = true;
        Ok(line(client, true))
    }

    /// Takes a connection that is not the guard, for what is done to databases that others may be doing something to.
    pub(super) async fn apart(&self) -> Result<Line<'_>> {
        let Ok(permit) = self.permits.acquire().await else { unreachable!("the semaphore is never closed") };
        let line = |client| Line { client: Some((client, false)), lines: self, _permit: permit };
        if let Some(client) = self.pop_apart() {
            return Ok(line(client));
        }
        Ok(line(self.open(false).await?))
    }

    fn pop_apart(&self) -> Option<Client> {
        let mut idle = self.idle();
        let at = idle.clients.iter().position(|(client, guard)| !guard && !client.is_closed())?;
        Some(idle.clients.swap_remove(at).0)
    }

    /// An idle connection that is alive; none while there is no guard.
    fn pop(&self) -> Option<(Client, bool)> {
        let mut idle = self.idle();
        let lost = idle.clients.iter().any(|(client, guard)| *guard && client.is_closed());
        idle.guarded &= !lost;
        idle.clients.retain(|(client, _)| !client.is_closed());
        if idle.guarded { idle.clients.pop() } else { None }
    }

    async fn open(&self, guard: bool) -> Result<Client> {
        let client = (self.open)().await.map_err(Error::invalid)?;
        // Nothing of the server's may end a connection that waits, or a copy that takes long. The lock is shared, so
        // that a connection that the server still takes for alive is no obstacle to the one that follows it.
        let lock =
            if guard { format!("pg_try_advisory_lock_shared({ALIVE}, {})", number(self.key)) } else { "0".to_owned() };
        let sql = format!(
            "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false), \
             (SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'), \
             current_setting('server_version_num'), {lock}"
        );
        let rows = rows(client.simple_query(&sql).await.map_err(|source| database_error("begin", source))?);
        let version = rows.first().and_then(|row| row.get(3)?.parse().ok()).unwrap_or_default();
        self.version.store(version, Ordering::Relaxed);
        Ok(client)
    }

    /// The server's `server_version_num`.
    pub(super) async fn version(&self) -> Result<i32> {
        if self.version.load(Ordering::Relaxed) == 0 {
            self.take().await?;
        }
        Ok(self.version.load(Ordering::Relaxed))
    }
}

/// A number as the server has it in a lock.
pub(super) fn number(key: u32) -> i32 {
    key.cast_signed()
}

/// The rows of a simple query.
pub(super) fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<SimpleQueryRow> {
    let row = |message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None };
    messages.into_iter().filter_map(row).collect()
}

/// A connection in use.
pub(super) struct Line<'a> {
    client: Option<(Client, bool)>,
    lines: &'a Lines,
    _permit: SemaphorePermit<'a>,
}

impl Deref for Line<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        match &self.client {
            Some((client, _)) => client,
            None => unreachable!("taken only when dropped"),
        }
    }
}

impl Line<'_> {
    /// Runs a statement and returns its rows.
    pub(super) async fn rows(&self, action: &str, sql: &str) -> Result<Vec<SimpleQueryRow>> {
        Ok(rows(self.simple_query(sql).await.map_err(|source| database_error(action, source))?))
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let Some((client, guard)) = self.client.take() else { return };
        let mut idle = self.lines.idle();
        if client.is_closed() {
            idle.guarded &= !guard;
        } else {
            idle.clients.push((client, guard));
        }
    }
}
