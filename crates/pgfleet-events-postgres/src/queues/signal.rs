//! Knowing that there may be something to hand out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgfleet_events::Error;
use tokio::sync::watch;

use crate::error::failed;
use crate::store::Inner;

/// How often it is looked whether another process has put something in: at first, and after a while without anything.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

#[derive(Debug, Default)]
pub(super) struct Signals {
    queues: Mutex<HashMap<Arc<str>, Signal>>,
    looked: tokio::sync::Mutex<Looked>,
}

#[derive(Debug)]
struct Looked {
    seq: i64,
    at: Instant,
    pause: Duration,
}

impl Default for Looked {
    fn default() -> Self {
        Self { seq: 0, at: Instant::now(), pause: LOOKS.0 }
    }
}

#[derive(Debug)]
struct Signal {
    news: watch::Sender<u64>,
    /// What had been heard when there was nothing.
    quiet: u64,
}

impl Default for Signal {
    fn default() -> Self {
        Self { news: watch::Sender::new(1), quiet: 0 }
    }
}

impl Signals {
    fn with<T>(&self, queue: &str, act: impl FnOnce(&mut Signal) -> T) -> T {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        match queues.get_mut(queue) {
            Some(signal) => act(signal),
            None => act(queues.entry(Arc::from(queue)).or_default()),
        }
    }

    /// Says that something was put into a queue.
    pub(super) fn put(&self, queue: &str) {
        self.with(queue, |signal| signal.news.send_modify(|heard| *heard += 1));
    }

    /// Says that something may be in any of them.
    pub(super) fn put_somewhere(&self) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in queues.values_mut() {
            signal.news.send_modify(|heard| *heard += 1);
        }
    }

    /// Returns what was heard up to now: to be asked before looking.
    pub(super) fn heard(&self, queue: &str) -> u64 {
        self.with(queue, |signal| *signal.news.borrow())
    }

    /// Notes that there was nothing.
    pub(super) fn quiet(&self, queue: &str, heard: u64) {
        self.with(queue, |signal| signal.quiet = signal.quiet.max(heard));
    }
}

impl Inner {
    /// Waits until there may be something in a queue.
    pub(super) async fn wait_for(self: &Arc<Self>, queue: &str, most: Duration) -> Result<(), Error> {
        self.start_queue_worker();
        let deadline = Instant::now() + most;
        let poll = self.options.poll.max(Duration::from_millis(1));
        let (mut news, quiet) = self.queues.signals.with(queue, |signal| (signal.news.subscribe(), signal.quiet));
        let slow = Instant::now() + poll;
        while *news.borrow_and_update() <= quiet {
            let now = Instant::now();
            if now >= deadline || now >= slow {
                return Ok(());
            }
            let next = self.look_for_others().await?;
            if let Ok(changed) = tokio::time::timeout_at(next.min(deadline).min(slow).into(), news.changed()).await
                && changed.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Looks, for all who wait in this process, whether anything was put in anywhere; returns when to look again.
    async fn look_for_others(&self) -> Result<Instant, Error> {
        let Ok(mut looked) = self.queues.signals.looked.try_lock() else { return Ok(Instant::now() + LOOKS.1) };
        if Instant::now() < looked.at + looked.pause {
            return Ok(looked.at + looked.pause);
        }
        let db = self.queue_connection().await?;
        let row = db
            .query_one(&self.queues.sql.last, &[])
            .await
            .map_err(|error| failed("the queues could not be looked at", error))?;
        let seq = row.get(0);
        looked.pause = if looked.seq == seq { (looked.pause * 3 / 2).min(LOOKS.1) } else { LOOKS.0 };
        if looked.seq != seq {
            looked.seq = seq;
            self.queues.signals.put_somewhere();
        }
        looked.at = Instant::now();
        Ok(looked.at + looked.pause)
    }
}
