//! What a consumer has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a consumer of this process has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsumerStats {
    /// Messages handled, in transactions that committed.
    pub handled: u64,
    /// Messages that had been handled before and came again.
    pub duplicates: u64,
    /// Messages of a type that nobody handles; they are noted as handled.
    pub unhandled: u64,
    /// Messages put aside.
    pub parked: u64,
    /// Messages given up, or refused as too old.
    pub dead: u64,
    /// Times that a handler failed.
    pub failures: u64,
    /// Deliveries that the broker itself counted as repeated.
    pub redelivered: u64,
    /// Transactions that committed.
    pub transactions: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) handled: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) unhandled: AtomicU64,
    pub(super) parked: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) redelivered: AtomicU64,
    pub(super) transactions: AtomicU64,
}

/// Adds to a counter; nothing is ordered by them.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> ConsumerStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConsumerStats {
            handled: get(&self.handled),
            duplicates: get(&self.duplicates),
            unhandled: get(&self.unhandled),
            parked: get(&self.parked),
            dead: get(&self.dead),
            failures: get(&self.failures),
            redelivered: get(&self.redelivered),
            transactions: get(&self.transactions),
        }
    }
}
