//! What a keeper has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a keeper has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeeperStats {
    /// Rounds in which it led.
    pub rounds: u64,
    /// Rounds in which another one led.
    pub looked: u64,
    /// Times that it began to lead.
    pub elected: u64,
    /// Times that another one took over in the middle of a round.
    pub fenced: u64,
    /// Rounds that failed, to be tried again.
    pub failed: u64,
    /// Events that retention removed.
    pub events: u64,
    /// Messages of queues that retention removed.
    pub messages: u64,
    /// Ids of messages that need not be remembered any more, and dead letters whose time was over.
    pub expired: u64,
    /// Rows of ticks that there are less because ticks were put together.
    pub merged_ticks: u64,
    /// Rows of ticks that were removed because their events are.
    pub dropped_ticks: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rounds: AtomicU64,
    pub(super) looked: AtomicU64,
    pub(super) elected: AtomicU64,
    pub(super) fenced: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) merged_ticks: AtomicU64,
    pub(super) dropped_ticks: AtomicU64,
}

/// Adds to a counter; nothing is ordered by them.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> KeeperStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KeeperStats {
            rounds: get(&self.rounds),
            looked: get(&self.looked),
            elected: get(&self.elected),
            fenced: get(&self.fenced),
            failed: get(&self.failed),
            events: get(&self.events),
            messages: get(&self.messages),
            expired: get(&self.expired),
            merged_ticks: get(&self.merged_ticks),
            dropped_ticks: get(&self.dropped_ticks),
        }
    }
}
