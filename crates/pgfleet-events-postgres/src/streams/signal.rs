//! Knowing that there is something to read.
//!
//! Three ways, each of which may fail without anything being lost. What this process appends is known at once. What others
//! append is told by the server when a tick was made (`NOTIFY`, at most once per tick, and never in the transaction of who
//! appends). And somebody looks, every [`poll`](crate::Options::poll): one for all who wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pgfleet_events::{Error, Position};
use pgfleet_postgres::{connect, quote_ident};
use tokio::sync::watch;

use super::read::TICK_EVENTS;
use crate::error::failed;
use crate::store::Inner;

#[derive(Debug)]
pub(crate) struct Signal {
    /// Counts what was heard.
    news: watch::Sender<u64>,
    /// Up to where somebody has read and found nothing behind, and what had been heard before he looked.
    quiet: Mutex<Quiet>,
    listening: AtomicBool,
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
        Self { news: watch::Sender::new(1), quiet: Mutex::new(quiet), listening: AtomicBool::new(false) }
    }
}

impl Signal {
    /// Says that something was appended.
    pub(crate) fn appended(&self) {
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

/// Listens on a connection of its own for as long as the store is there; gives up where a pooler is in between.
async fn listen(store: Weak<Inner>) {
    let mut pause = Duration::from_millis(100);
    loop {
        let Some(strong) = store.upgrade() else { return };
        let schema = &strong.options.schema;
        let channel: String =
            schema.char_indices().take_while(|(at, c)| at + c.len_utf8() <= 50).map(|(_, c)| c).collect();
        let sql = format!("LISTEN {}", quote_ident(&format!("{channel}_ticks")));
        let opened = connect(strong.pool.address(), strong.pool.purpose()).await;
        drop(strong);
        if let Ok(connection) = opened
            && connection.is_direct().await.unwrap_or(false)
            && connection.execute_all(&sql).await.is_ok()
        {
            pause = Duration::from_millis(100);
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
