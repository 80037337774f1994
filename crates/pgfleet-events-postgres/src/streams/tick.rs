//! Ticks: what was seen together first.
//!
//! A tick never changes, so what was read of it is kept. Ticks of long ago may be put together into one row (`merge_ticks`
//! in `006_keeper.sql`); what such a row says of each of them is what it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Row;

use crate::wire::{Snapshot, Xid};

/// The columns of a tick, as [`Tick::of`] reads them.
pub(super) const COLUMNS: &str = "tick, epoch, lo, hi, lo_seq, hi_seq, from_seq, cut, late, events, \
                                  run_ticks, run_tops, run_events";

/// How many runs of ticks are kept: one for each reader somewhere else.
const RUNS: usize = 8;

/// A tick.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(super) number: i64,
    pub(super) epoch: i32,
    pub(super) lo: Arc<Snapshot>,
    /// Of one that is in a row with others, that of the last of them: what it sees besides has a higher seq.
    pub(super) hi: Arc<Snapshot>,
    pub(super) lo_seq: i64,
    hi_seq: i64,
    pub(super) from_seq: i64,
    cut: Option<i64>,
    /// Events at or below `lo_seq`.
    pub(super) late: Vec<i64>,
    pub(super) events: i64,
}

impl Tick {
    /// Reads the ticks of rows.
    pub(super) fn all(rows: &[Row]) -> Vec<Arc<Self>> {
        let mut ticks = Vec::with_capacity(rows.len());
        for row in rows {
            Self::of(row, &mut ticks);
        }
        ticks
    }

    /// Adds the ticks of a row, one in most cases.
    fn of(row: &Row, ticks: &mut Vec<Arc<Self>>) {
        let row_itself = Self {
            number: row.get(0),
            epoch: row.get(1),
            lo: Arc::new(row.get(2)),
            hi: Arc::new(row.get(3)),
            lo_seq: row.get(4),
            hi_seq: row.get(5),
            from_seq: row.get(6),
            cut: row.get(7),
            late: row.get(8),
            events: row.get(9),
        };
        let Some(numbers) = row.get::<_, Option<Vec<i64>>>(10) else { return ticks.push(Arc::new(row_itself)) };
        let (tops, events): (Vec<i64>, Vec<i64>) = (row.get(11), row.get(12));
        // Nothing is late but in the first; each begins above all that was seen before it.
        let (mut lo_seq, mut from_seq, mut late) = (row_itself.lo_seq, row_itself.from_seq, row_itself.late);
        for ((number, top), events) in numbers.into_iter().zip(tops).zip(events) {
            ticks.push(Arc::new(Self {
                number,
                epoch: row_itself.epoch,
                lo: Arc::clone(&row_itself.lo),
                hi: Arc::clone(&row_itself.hi),
                lo_seq,
                hi_seq: top,
                from_seq,
                cut: None,
                late: std::mem::take(&mut late),
                events,
            }));
            (lo_seq, from_seq) = (top, top);
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
