//! How a keeper behaves.

use std::time::Duration;

/// How a keeper behaves.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// The time from one round to the next, a tenth more or less.
    pub interval: Duration,
    /// How much longer than to its next round the keeper that leads counts when nothing is heard of it. A step takes a
    /// third of it at most.
    pub lease: Duration,
    /// The most events, or messages, that one step removes.
    pub step: u32,
    /// From which age on ticks are put together; none for never.
    pub merge_ticks: Option<Duration>,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_mins(1),
            lease: Duration::from_secs(30),
            step: 10_000,
            merge_ticks: Some(Duration::from_mins(10)),
        }
    }
}

impl KeeperOptions {
    /// How long a statement may take.
    pub(super) fn step_limit(&self) -> Duration {
        (self.lease / 3).max(Duration::from_millis(100))
    }

    /// How long it counts from now on: until after its next round.
    pub(super) fn counts(&self) -> Duration {
        self.interval.mul_f64(1.2) + self.lease
    }

    pub(super) fn most(&self) -> i64 {
        i64::from(self.step.max(1))
    }
}
