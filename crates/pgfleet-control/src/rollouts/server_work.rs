//! What a worker knows of one server: how much it may do there, and whether it answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::round::{Claim, Part};

/// For how long targets are taken ahead.
const AHEAD: Duration = Duration::from_millis(250);
/// How many are taken ahead at most, for each server.
const MOST_AHEAD: u32 = 64;

/// What a worker knows of one server.
#[derive(Default)]
pub(super) struct ServerWork {
    /// How many it may work on.
    pub(super) slots: u32,
    pub(super) executing: u32,
    pub(super) queue: VecDeque<Claim>,
    /// The mean time that a target takes.
    pub(super) pace: Option<Duration>,
    pub(super) away: Option<Away>,
    /// When there was nothing to take.
    pub(super) dry: Option<Instant>,
}

/// A server that cannot be reached.
pub(super) struct Away {
    pub(super) since: Instant,
    pub(super) until: Instant,
    pub(super) tries: u32,
}

impl ServerWork {
    /// How many targets to take besides those that can be begun at once.
    fn ahead(&self) -> u32 {
        let Some(pace) = self.pace.filter(|_| self.away.is_none()) else { return 0 };
        let number = AHEAD.as_secs_f64() / pace.as_secs_f64().max(0.001) * f64::from(self.slots);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 64")]
        let number = number.clamp(0.0, f64::from(MOST_AHEAD)) as u32;
        number
    }

    pub(super) fn part(&self) -> Part {
        let most = match &self.away {
            Some(away) if Instant::now() < away.until => 0,
            // One tries whether it is back.
            Some(_) => 1,
            None => u32::MAX,
        };
        Part {
            executing: self.executing,
            queued: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            ahead: self.ahead(),
            most,
        }
    }

    pub(super) fn may_begin(&self) -> bool {
        self.executing < self.slots.min(self.part().most)
    }
}
