//! What a run tells while it works.

use std::time::Duration;

use pgfleet_postgres::lock::Holder;
use serde::{Deserialize, Serialize};

/// One step of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The server cannot be reached yet; trying again after a pause.
    Waiting {
        /// Which try this was, counted from 1.
        attempt: u32,
        /// Of how many.
        attempts: u32,
        /// Why it failed.
        reason: String,
    },
    /// The database did not exist and was created.
    DatabaseCreated,
    /// Another run holds the lock.
    LockHeld {
        /// Who, when it can be seen.
        holder: Option<Holder>,
    },
    /// The plan is made and work begins.
    Planned {
        /// How many migrations, repeatables and seeds will run.
        steps: usize,
    },
    /// One migration begins.
    Started {
        /// Its label.
        label: String,
    },
    /// One migration, repeatable or seed is committed.
    Done {
        /// Its label.
        label: String,
        /// How long it took.
        took: Duration,
    },
    /// A backfill committed a batch.
    Progress {
        /// Its label.
        label: String,
        /// Batches done in all runs.
        batches: u64,
        /// Rows done in all runs.
        rows: u64,
        /// Rows there are in all, where the backfill says so.
        total: Option<u64>,
    },
    /// A migration met a lock time-out, a deadlock or a serialization failure and is tried again.
    LockTimeout {
        /// Its label.
        label: String,
        /// Which try failed, counted from 1.
        attempt: u32,
        /// Of how many.
        attempts: u32,
        /// Sessions that stand in the way.
        blockers: Vec<Holder>,
    },
    /// The run failed with something that can pass and starts again after a pause.
    Retry {
        /// Which try failed, counted from 1.
        attempt: u32,
        /// Of how many.
        attempts: u32,
        /// Pause before the next.
        wait: Duration,
        /// Why it failed.
        reason: String,
    },
    /// Something the reader should know that stops nothing.
    Note(String),
    /// A line that the service's program wrote by itself, on either of its streams.
    Said(String),
}

/// Receives the events of one target's run.
///
/// Called from the run itself: an observer must not block.
pub trait Observer: Send + Sync {
    /// Receives one event of the run on `target`.
    fn event(&self, target: &str, event: &Event);
}

/// An observer that ignores everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _target: &str, _event: &Event) {}
}
