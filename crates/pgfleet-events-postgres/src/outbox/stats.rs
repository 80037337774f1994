//! What a relay has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a relay of this process has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayStats {
    /// Messages that the broker confirmed.
    pub sent: u64,
    /// Batches published.
    pub batches: u64,
    /// Messages put aside, because theirs or an earlier one of their key failed.
    pub parked: u64,
    /// Messages given up.
    pub dead: u64,
    /// Times that the broker could not be reached.
    pub outages: u64,
    /// Times that this relay became the one that carries.
    pub elected: u64,
    /// Times that it found itself overtaken.
    pub fenced: u64,
    /// Times that a slot was emptied.
    pub rotations: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) parked: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) outages: AtomicU64,
    pub(super) elected: AtomicU64,
    pub(super) fenced: AtomicU64,
    pub(super) rotations: AtomicU64,
}

/// Adds to a counter; nothing is ordered by them.
pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> RelayStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelayStats {
            sent: get(&self.sent),
            batches: get(&self.batches),
            parked: get(&self.parked),
            dead: get(&self.dead),
            outages: get(&self.outages),
            elected: get(&self.elected),
            fenced: get(&self.fenced),
            rotations: get(&self.rotations),
        }
    }
}
