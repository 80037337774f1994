//! Knowing that there is something to read.
//!
//! Three ways, each of which may fail without anything being lost. What this process appends is known at once. What others
//! append is told by the server when a tick was made (`NOTIFY`, at most once per tick, and never in the transaction of who
//! appends). And somebody looks, every [`poll`](crate::Options::poll): one for all who wait.
//!
//! Ticks are made by who reads. Where nobody does in the process that appends, it makes one itself when it has appended, if
//! somebody listens: so that is known elsewhere at once, too. It is beside the appends, not with each, and where nobody
//! listens it costs a statement in a second in which something was appended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pgfleet_events::{Error, Position};
use pgfleet_postgres::{connect, quote_ident, quote_literal};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::read::TICK_EVENTS;
use crate::error::failed;
use crate::store::Inner;

/// After which time those elsewhere are told again: where somebody listened, and where nobody did.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

#[derive(Debug)]
pub(crate) struct Signal {
    /// Counts what was heard.
    news: watch::Sender<u64>,
    /// Up to where somebody has read and found nothing behind, and what had been heard before he looked.
    quiet: Mutex<Quiet>,
    listening: AtomicBool,
    /// Whether somebody is at telling those elsewhere, and when that may be done again. Only who has set the first changes
    /// the second.
    telling: AtomicBool,
    tell_at: Mutex<Instant>,
}

#[derive(Debug)]
struct Quiet {
    position: Position,
    heard: u64,
    /// When it was looked for the last time.
    looked: Instant,
}

impl Default for Signal {
    fn default() -> Self {
        let quiet = Quiet { position: Position::START, heard: 0, looked: Instant::now() };
        // Nothing was looked for yet.
        Self {
            news: watch::Sender::new(1),
            quiet: Mutex::new(quiet),
            listening: AtomicBool::new(false),
            telling: AtomicBool::new(false),
            tell_at: Mutex::new(Instant::now()),
        }
    }
}

impl Signal {
    /// Says to those in this process that there may be something.
    fn appended(&self) {
        self.news.send_modify(|heard| *heard += 1);
    }

    /// Returns what was heard up to now: to be asked before looking.
    pub(super) fn heard(&self) -> u64 {
        *self.news.borrow()
    }

    /// Notes that there was nothing behind a position.
    pub(super) fn quiet(&self, position: Position, heard: u64) {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if position >= quiet.position {
            *quiet = Quiet { position, heard, looked: Instant::now() };
        }
    }
}

impl Inner {
    /// Says that something was appended, and is committed.
    pub(super) fn appended(self: &Arc<Self>) {
        let signal = &self.streams.signal;
        signal.appended();
        // Who waits here reads now, and makes the tick.
        if signal.news.receiver_count() == 0
            && let Ok(runtime) = Handle::try_current()
            && !signal.telling.swap(true, Ordering::AcqRel)
        {
            runtime.spawn(tell(Arc::downgrade(self)));
        }
    }

    /// Makes a tick if somebody listens; says whether.
    async fn tick_for_others(&self) -> Result<bool, Error> {
        let db = self.connection().await?;
        let row = db.query_one(&self.streams.sql.tick_for_others, &[&TICK_EVENTS]).await;
        Ok(row.map_err(|error| failed("no tick could be made", error))?.get(0))
    }

    /// Waits until there may be something behind a position.
    pub(super) async fn wait_behind(self: &Arc<Self>, after: Position, most: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + most;
        let signal = &self.streams.signal;
        let mut news = signal.news.subscribe();
        let poll = self.options.poll.max(Duration::from_millis(1));
        if !signal.listening.swap(true, Ordering::AcqRel) {
            tokio::spawn(listen(Arc::downgrade(self)));
        }
        loop {
            let (position, heard, looked) = {
                let quiet = signal.quiet.lock().unwrap_or_else(PoisonError::into_inner);
                (quiet.position, quiet.heard, quiet.looked)
            };
            // Whoever is elsewhere than where nothing was found had better look.
            if after != position || *news.borrow_and_update() != heard || Instant::now() >= deadline {
                return Ok(());
            }
            let until = deadline.min(looked + poll);
            match tokio::time::timeout_at(until.into(), news.changed()).await {
                Ok(_) => {}
                Err(_) if Instant::now() >= deadline => return Ok(()),
                Err(_) => self.look(position).await?,
            }
        }
    }

    /// Looks for all who wait.
    async fn look(&self, position: Position) -> Result<(), Error> {
        let signal = &self.streams.signal;
        {
            let mut quiet = signal.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            if quiet.looked.elapsed() < self.options.poll {
                return Ok(());
            }
            quiet.looked = Instant::now();
        }
        let db = self.connection().await?;
        let tick = i64::try_from(position.tick).unwrap_or(i64::MAX);
        let rows = db
            .query(&self.streams.sql.next_ticks, &[&tick, &TICK_EVENTS, &1_i64])
            .await
            .map_err(|error| failed("no tick could be made", error))?;
        if !rows.is_empty() {
            signal.appended();
        }
        Ok(())
    }
}

/// Tells those elsewhere of what was appended, until there is nothing new.
async fn tell(store: Weak<Inner>) {
    loop {
        let at = {
            let Some(store) = store.upgrade() else { return };
            *store.streams.signal.tell_at.lock().unwrap_or_else(PoisonError::into_inner)
        };
        tokio::time::sleep_until(at.into()).await;
        let Some(store) = store.upgrade() else { return };
        let signal = &store.streams.signal;
        let heard = signal.heard();
        let listened = match store.tick_for_others().await {
            Ok(listened) => listened,
            Err(error) => {
                // Whoever waits looks by himself.
                tracing::debug!(%error, "readers elsewhere were not told");
                false
            }
        };
        let pause = if listened { AGAIN.0 } else { AGAIN.1 };
        *signal.tell_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + pause;
        signal.telling.store(false, Ordering::Release);
        // Whoever has appended since then has seen that somebody is at it, or has begun to do it.
        if signal.heard() == heard || signal.telling.swap(true, Ordering::AcqRel) {
            return;
        }
    }
}

/// Listens on a connection of its own for as long as the store is there; gives up where a pooler is in between.
async fn listen(store: Weak<Inner>) {
    let mut pause = Duration::from_millis(100);
    loop {
        let Some(strong) = store.upgrade() else { return };
        let schema = &strong.options.schema;
        let channel: String =
            schema.char_indices().take_while(|(at, c)| at + c.len_utf8() <= 50).map(|(_, c)| c).collect();
        // The lock says that somebody listens (`007_wake.sql`); nobody holds it alone for longer than a moment.
        let sql = format!(
            "SET lock_timeout = '2s'; LISTEN {}; \
             SELECT pg_catalog.pg_advisory_lock_shared(pg_catalog.hashtextextended({}, -6))",
            quote_ident(&format!("{channel}_ticks")),
            quote_literal(schema)
        );
        let opened = connect(strong.pool.address(), strong.pool.purpose()).await;
        drop(strong);
        if let Ok(connection) = opened
            && connection.is_direct().await.unwrap_or(false)
            && connection.execute_all(&sql).await.is_ok()
        {
            pause = Duration::from_millis(100);
            // What was told before it listened is looked for once.
            let Some(strong) = store.upgrade() else { return };
            strong.streams.signal.appended();
            drop(strong);
            while !connection.is_closed() {
                // The look at the store is what ends this task, which nobody else does.
                let heard = tokio::time::timeout(Duration::from_secs(5), connection.notified()).await.is_ok();
                let Some(strong) = store.upgrade() else { return };
                if heard {
                    strong.streams.signal.appended();
                }
            }
        } else {
            pause = (pause * 2).min(Duration::from_mins(1));
        }
        tokio::time::sleep(pause).await;
    }
}
