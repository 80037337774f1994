//! Ticks: what was seen together first.
//!
//! A tick never changes, so what was read of it is kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Row;

use crate::wire::{Snapshot, Xid};

/// The columns of a tick, as [`Tick::of`] reads them.
pub(super) const COLUMNS: &str = "tick, epoch, lo, hi, lo_seq, hi_seq, from_seq, cut, late, events";

/// How many runs of ticks are kept: one for each reader somewhere else.
const RUNS: usize = 8;

/// A tick.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(super) number: i64,
    pub(super) epoch: i32,
    pub(super) lo: Snapshot,
    pub(super) hi: Snapshot,
    pub(super) lo_seq: i64,
    hi_seq: i64,
    pub(super) from_seq: i64,
    cut: Option<i64>,
    /// Events at or below `lo_seq`.
    pub(super) late: Vec<i64>,
    pub(super) events: i64,
}

impl Tick {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            number: row.get(0),
            epoch: row.get(1),
            lo: row.get(2),
            hi: row.get(3),
            lo_seq: row.get(4),
            hi_seq: row.get(5),
            from_seq: row.get(6),
            cut: row.get(7),
            late: row.get(8),
            events: row.get(9),
        }
    }

    /// The highest seq that one of its events can have.
    pub(super) fn top(&self) -> i64 {
        self.cut.map_or(self.hi_seq, |cut| cut.min(self.hi_seq))
    }

    /// Whether its window is continued by the next tick.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Whether an event that no tick before it holds is in it.
    pub(super) fn holds(&self, xid: Xid, seq: i64) -> bool {
        seq <= self.top() && self.hi.sees(xid)
    }
}

/// Runs of ticks that follow each other.
#[derive(Debug, Default)]
pub(crate) struct Runs(Mutex<VecDeque<Arc<[Arc<Tick>]>>>);

impl Runs {
    /// Returns the known ticks from one on, and how far it goes on being known that none is in between.
    pub(super) fn from(&self, tick: i64) -> Option<(Arc<[Arc<Tick>]>, usize)> {
        let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().find_map(|run| {
            let index = run.partition_point(|known| known.number < tick);
            (run.first()?.number <= tick && index < run.len()).then(|| (Arc::clone(run), index))
        })
    }

    pub(super) fn keep(&self, run: Arc<[Arc<Tick>]>) {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.push_front(run);
        runs.truncate(RUNS);
    }

    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
