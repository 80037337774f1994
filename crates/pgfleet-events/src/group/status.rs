//! How a member's parts are doing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::position::Position;

/// The parts that a member has, by their numbers.
pub type Status = BTreeMap<u32, PartStatus>;

/// How a part is doing.
#[derive(Debug, Clone)]
pub struct PartStatus {
    /// The part.
    pub part: u32,
    /// The epoch of the lease.
    pub epoch: u64,
    /// How far its events were handled, and this was stored.
    pub position: Position,
    /// How many events were handled under this lease.
    pub handled: u64,
    /// How many were left out, as [`OnFailure`](super::OnFailure) says.
    pub skipped: u64,
    /// What it does.
    pub state: PartState,
}

/// What a part does.
#[derive(Debug, Clone)]
pub enum PartState {
    /// It reads what is there.
    CatchingUp,
    /// It has read everything, and waits for more.
    Live,
    /// Something has failed and is tried again.
    Retrying {
        /// How often it has failed in a row.
        failures: u32,
        /// What failed last.
        error: Arc<Error>,
    },
    /// It has stopped before an event that could not be handled, or because the store cannot be used.
    Stopped {
        /// Why.
        error: Arc<Error>,
    },
}

impl PartState {
    /// Returns whether it has stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }

    /// Returns whether it has read everything.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }

    /// Returns what failed last, where something does.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Retrying { error, .. } | Self::Stopped { error } => Some(error),
            Self::CatchingUp | Self::Live => None,
        }
    }
}
