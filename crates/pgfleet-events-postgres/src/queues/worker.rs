//! What time demands: deadlines, delays, tables that have grown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pgfleet_events::{Error, Moment};

use crate::Store;
use crate::error::failed;
use crate::store::Inner;
use crate::wire::At;

/// From which size on the table of messages, and that of claims, is left for the other one.
const BYTES: (i64, i64) = (64 << 20, 32 << 20);

/// How long a claim may take to be committed after its deadline was reckoned.
const OVERLAP: Duration = Duration::from_secs(1);

/// How often all claims are looked at, and what is kept for a time is cleaned.
const WHOLE: Duration = Duration::from_secs(30);

/// The longest time between two sweeps.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Worker {
    started: AtomicBool,
    swept: Mutex<Option<Swept>>,
}

#[derive(Debug, Clone, Copy)]
struct Swept {
    upto: Moment,
    at: Instant,
    /// When all was looked at.
    whole: Instant,
}

/// What a sweep has found.
#[derive(Debug, Clone, Copy)]
struct Found {
    swept: i64,
    due_in: Option<f64>,
    is_full: bool,
    was_whole: bool,
}

impl Store {
    /// Empties the tables of queues that are not written to, and leaves those that have grown beyond so many bytes for
    /// them; says whether anything was done.
    ///
    /// A store that has consumers does it by itself. What nobody has taken yet is carried over. It is done another time
    /// where somebody uses the table for longer than a moment.
    ///
    /// # Errors
    ///
    /// What the database refuses.
    pub async fn rotate_queues(&self, bytes: u64) -> Result<bool, Error> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.rotate_queues((bytes, bytes)).await
    }

    /// As [`rotate_queues`](Self::rotate_queues), as the worker does it.
    pub(crate) async fn rotate_if_full(&self) -> Result<bool, Error> {
        self.0.rotate_queues(BYTES).await
    }

    /// Removes some of what is kept for a time only; returns how much.
    pub(crate) async fn clean_queues(&self) -> Result<i64, Error> {
        self.0.clean_queues().await
    }
}

impl Inner {
    /// Sweeps, for all claims.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        while self.sweep_since(true).await?.swept >= 10_000 {}
        Ok(())
    }

    /// Sweeps where that was not done just now; says whether anything was done.
    pub(super) async fn sweep_if_due(&self) -> Result<bool, Error> {
        let swept = *self.queues.worker.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|swept| swept.at.elapsed() < Duration::from_millis(100)) {
            return Ok(false);
        }
        Ok(self.sweep_since(false).await?.swept > 0)
    }

    async fn sweep_since(&self, whole: bool) -> Result<Found, Error> {
        let last = *self.queues.worker.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.filter(|last| !whole && last.whole.elapsed() < WHOLE);
        let since = last.map_or(Moment::from_micros(0), |last| {
            let overlap = i64::try_from(OVERLAP.as_micros()).unwrap_or(0);
            Moment::from_micros(last.upto.micros() - overlap)
        });
        let at = Instant::now();
        let db = self.queue_connection().await?;
        let row = db
            .query_one(&self.queues.sql.sweep, &[&At(since), &BYTES.0, &BYTES.1])
            .await
            .map_err(|error| failed("the queues could not be swept", error))?;
        let found = Found { swept: row.get(0), due_in: row.get(2), is_full: row.get(3), was_whole: last.is_none() };
        let upto = row.get::<_, At>(1).0;
        // As many as it takes at once: there may be more.
        if found.swept < 10_000 && upto > since {
            let whole = last.map_or(at, |last| last.whole);
            *self.queues.worker.swept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Swept { upto, at, whole });
        }
        if found.swept > 0 {
            self.queues.signals.put_somewhere();
        }
        Ok(found)
    }

    async fn rotate_queues(&self, (events, claims): (i64, i64)) -> Result<bool, Error> {
        let db = self.queue_connection().await?;
        let mut did = false;
        for (sql, bytes) in [(&self.queues.sql.rotate_events, events), (&self.queues.sql.rotate_claims, claims)] {
            match db.query_one(sql, &[&bytes]).await {
                Ok(row) => did |= row.get::<_, &str>(0) != "none",
                // Somebody uses the table: another time.
                Err(error) if error.is_retryable() => tracing::debug!(%error, "a table of queues is in use"),
                Err(error) => return Err(failed("the tables of queues could not be rotated", error)),
            }
        }
        Ok(did)
    }

    async fn clean_queues(&self) -> Result<i64, Error> {
        let db = self.queue_connection().await?;
        let row = db
            .query_one(&self.queues.sql.clean, &[])
            .await
            .map_err(|error| failed("what is kept for a time could not be removed", error))?;
        Ok(row.get(0))
    }

    /// Starts the worker, which ends with the store.
    pub(super) fn start_queue_worker(self: &Arc<Self>) {
        if !self.queues.worker.started.swap(true, Ordering::AcqRel) {
            tokio::spawn(work(Arc::downgrade(self)));
        }
    }

    async fn work(&self) -> Result<Duration, Error> {
        let found = self.sweep_since(false).await?;
        if found.is_full {
            self.rotate_queues(BYTES).await?;
        }
        if found.was_whole {
            self.clean_queues().await?;
        }
        let due = found.due_in.map_or(PAUSE, |due| Duration::try_from_secs_f64(due.max(0.0)).unwrap_or(PAUSE));
        Ok(due.clamp(Duration::from_millis(10), PAUSE))
    }
}

async fn work(store: Weak<Inner>) {
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(store) = store.upgrade() else { return };
        pause = match store.work().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "the queues are not swept");
                PAUSE * 5
            }
        };
    }
}
