//! How a group reads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::event::Event;
use crate::queue::QueueStore;
use crate::reading::Start;
use crate::stream::Filter;

/// What is told of an event that is skipped: the event, and what its last failure was.
pub type SkipFn = dyn Fn(&Event, &Error) + Send + Sync;

/// How a group reads; all of its members must say the same.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Which events; all by default. Its `part` is the group's own business.
    pub filter: Filter,
    /// Into how many parts the streams are shared out, which bounds how many members have something to do. Fixed when the
    /// group is first seen; 8 by default.
    pub parts: u32,
    /// Where a group begins that is new; at the beginning by default.
    pub start: Start,
    /// How long a lease lasts: after so long, others take over what a member had that is gone. 30 s by default.
    pub lease: Duration,
    /// How many events are handed over at once, at most; 500 by default.
    pub batch: usize,
    /// How often an event that fails is handed over by itself before it counts as failed; 5 by default. Failures that may
    /// pass ([`Error::is_retryable`]) do not count, and are tried again without end: what the handler needs and cannot
    /// reach is no fault of the event.
    pub attempts: u32,
    /// The first and the longest pause between tries; 100 ms and 10 s by default.
    pub backoff: (Duration, Duration),
    /// What becomes of an event that has failed so often.
    pub on_failure: OnFailure,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            parts: 8,
            start: Start::default(),
            lease: Duration::from_secs(30),
            batch: 500,
            attempts: 5,
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            on_failure: OnFailure::Stop,
        }
    }
}

impl GroupOptions {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.filter.part.is_some() {
            return Err(Error::invalid("the filter of a group names a part")
                .with_hint("leave it out: which parts a member reads is what the group decides"));
        }
        if self.batch == 0 || self.lease.is_zero() {
            return Err(Error::invalid("a group needs batches of at least one event, and leases of some time"));
        }
        Ok(())
    }
}

/// What becomes of an event that could not be handled, after all attempts.
#[derive(Clone, Default)]
pub enum OnFailure {
    /// Its part stops before it, and the other parts go on; the error is in the part's status. The member keeps the lease,
    /// so the part is not tried elsewhere, until it is [resumed](super::Group::resume) or the member ends.
    #[default]
    Stop,
    /// It is left out, and somebody is told.
    Skip(Arc<SkipFn>),
    /// It is put into a queue and left out, with why, where it was and for which group in its headers (`failure`, `stream`,
    /// `version`, `group`). Where it cannot be put in, the part stops.
    DeadLetter {
        /// The store of the queue.
        store: Arc<dyn QueueStore>,
        /// The queue.
        queue: Arc<str>,
    },
}

impl fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.write_str("Stop"),
            Self::Skip(_) => f.write_str("Skip"),
            Self::DeadLetter { queue, .. } => {
                f.debug_struct("DeadLetter").field("queue", queue).finish_non_exhaustive()
            }
        }
    }
}
