//! What a rollout and its targets say in the middle of a round, and what follows from it.

use std::collections::BTreeMap;

use super::plan::CANARY;
use super::{Counts, RolloutState};

/// What the rollout's row and its targets say in the middle of a round.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) state: RolloutState,
    pub(super) wave: i32,
    pub(super) cap: u32,
    pub(super) max_failures: i64,
    /// Failures since somebody last had it go on.
    pub(super) failures: i64,
    /// Whether a target up to this wave waits or runs.
    pub(super) open: bool,
    /// The next wave in which something waits.
    pub(super) next: Option<i32>,
    /// The parts of all workers that are alive, the oldest first.
    pub(super) workers: Vec<(i32, BTreeMap<String, u32>)>,
    pub(super) counts: Option<(Counts, i32)>,
    pub(super) servers: Vec<String>,
}

impl Present {
    /// Decides what comes next: the state, the wave, why it halts, and whether nothing is left.
    pub(super) fn decide(&self) -> (RolloutState, i32, Option<String>, bool) {
        let stays = |over| (self.state, self.wave, None, over);
        if self.state != RolloutState::Running {
            return stays(false);
        }
        let halts = |reason: String| (RolloutState::Halted, self.wave, Some(reason), false);
        let databases = |number: i64| if number == 1 { "a database".to_owned() } else { format!("{number} databases") };
        if self.failures > self.max_failures && self.wave > CANARY {
            return halts(format!("{} failed, and at most {} may", databases(self.failures), self.max_failures));
        }
        if self.open {
            return stays(false);
        }
        if self.wave <= CANARY && self.failures > 0 {
            let of = if self.wave < CANARY { "the hosts and templates" } else { "the tenants that go first" };
            return halts(format!("{} of {of} failed", databases(self.failures)));
        }
        match self.next {
            Some(next) => (self.state, next, None, false),
            None => stays(true),
        }
    }
}
