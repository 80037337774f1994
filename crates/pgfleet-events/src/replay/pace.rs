//! So many events a second.

use std::time::Duration;

use tokio::time::Instant;

/// How often is handed over, where there is a rate: often enough to be even, seldom enough to be batches.
const SLICES: u32 = 10;

/// When the next events are due. Time that was lost, by pauses or by what was slow, is not made up for by going faster.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u32>,
    due: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>) -> Self {
        Self { rate, due: Instant::now() }
    }

    /// How many are handed over at once.
    pub(super) fn batch(&self, most: usize) -> usize {
        self.rate.map_or(most, |rate| usize::try_from(rate / SLICES).unwrap_or(most).clamp(1, most))
    }

    /// Begins counting from now, after a pause.
    pub(super) fn paused(&mut self) {
        self.due = Instant::now();
    }

    /// Notes that so many were handed over; returns when the next ones are due.
    pub(super) fn done(&mut self, events: usize) -> Instant {
        let now = Instant::now();
        if let Some(rate) = self.rate {
            // What this handing over itself took is part of the time; what goes beyond is lost.
            let took = Duration::from_secs(events as u64) / rate;
            self.due = (self.due + took).max(now);
            return self.due;
        }
        now
    }
}
