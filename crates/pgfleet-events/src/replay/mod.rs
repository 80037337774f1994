//! Having events handled again: once more through a handler, or into a queue.
//!
//! A replay reads what there is when it begins, and ends there. It can be slowed down, paused, cancelled and watched, and
//! one that has ended in between goes on from the place that its progress names.

mod control;
mod pace;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use self::control::Control;
pub use self::control::{Progress, ReplayHandle, ReplayState};
use self::pace::Pace;
use crate::backoff::Backoff;
use crate::error::Error;
use crate::event::Event;
use crate::handler::Handler;
use crate::position::Position;
use crate::queue::{NewItem, QueueStore};
use crate::reading::Reader;
pub use crate::reading::{Source, Start};
use crate::stream::{Filter, StreamStore};

/// How many events are read at once.
const PAGE: usize = 1_000;

/// How many are handed over at once, at most.
const BATCH: usize = 500;

/// Where events go that are replayed.
#[derive(Clone)]
pub enum Target {
    /// To a handler.
    Handler(Arc<dyn Handler>),
    /// Into a queue, with their streams as keys, so that those of one stream are handled in order.
    Queue {
        /// The store of the queue.
        store: Arc<dyn QueueStore>,
        /// The queue.
        queue: Arc<str>,
    },
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(_) => f.write_str("Handler"),
            Self::Queue { queue, .. } => f.debug_struct("Queue").field("queue", queue).finish_non_exhaustive(),
        }
    }
}

/// A replay of events, from a place up to what there is when it begins.
///
/// ```
/// use std::sync::Arc;
/// use pgfleet_events::replay::{Replay, Source, Start, Target};
/// use pgfleet_events::{Expected, Json, Memory, NewEvent, QueueStore, StreamStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pgfleet_events::Error> {
/// let store = Arc::new(Memory::new());
/// store.append("trip-1", Expected::Any, vec![NewEvent::new("SeatBooked", Json::parse("{}")?)]).await?;
/// let target = Target::Queue { store: store.clone(), queue: "again".into() };
/// let replay = Replay::new(store.clone(), Source::all(), Start::Beginning, target).rate(100);
/// let done = replay.run().await?;
/// assert_eq!(done.events, 1);
/// assert_eq!(store.peek("again", 10).await?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Replay {
    store: Arc<dyn StreamStore>,
    source: Source,
    start: Start,
    target: Target,
    name: Arc<str>,
    rate: Option<u32>,
    limit: u64,
    backoff: (Duration, Duration),
    control: Control,
}

/// Where a replay ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Version(u64),
    Position(Position),
}

impl End {
    fn includes(self, event: &Event) -> bool {
        match self {
            Self::Version(last) => event.version <= last,
            Self::Position(last) => event.position.is_none_or(|position| position <= last),
        }
    }

    fn is_reached(self, place: Start) -> bool {
        match (self, place) {
            (Self::Version(last), Start::Version(next)) => next > last,
            (Self::Position(last), Start::Position(position)) => position >= last,
            _ => false,
        }
    }
}

/// Why a replay was broken off.
enum Halt {
    Cancelled,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Replay {
    /// Makes a replay as fast as it goes; nothing is read before [`run`](Self::run).
    pub fn new(store: Arc<dyn StreamStore>, source: Source, start: Start, target: Target) -> Self {
        Self {
            store,
            source,
            start,
            target,
            name: Uuid::now_v7().to_string().into(),
            rate: None,
            limit: u64::MAX,
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            control: Control::new(start),
        }
    }

    /// Gives the replay a name: an event is put into a queue once under each, for as long as the queue remembers what must
    /// not come twice, so that a replay which is begun again adds nothing that is there. Without it each has another.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Hands over at most so many events a second, evenly; at least 1.
    #[must_use]
    pub fn rate(mut self, events_a_second: u32) -> Self {
        self.rate = Some(events_a_second.max(1));
        self
    }

    /// Replays at most so many events; its progress says where others go on.
    #[must_use]
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = events;
        self
    }

    /// Sets the first and the longest pause after a failure; 100 ms and 10 s by default.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most);
        self
    }

    /// Returns what pauses, resumes, cancels and watches it.
    pub fn handle(&self) -> ReplayHandle {
        self.control.handle()
    }

    /// Replays, until the end or until it is cancelled, which is no error; returns how far it came.
    ///
    /// Failures that may pass, of the store, the queue or the handler, are logged and tried again, without end. What is
    /// handed over when it is cancelled is finished.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a start that does not fit; what trying again does not help. The
    /// [progress](ReplayHandle::progress) says where to go on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the events that were being handed over have arrived; the progress is before
    /// them.
    pub async fn run(&self) -> Result<Progress, Error> {
        let (state, outcome) = match self.replay().await {
            Ok(()) => (ReplayState::Done, Ok(())),
            Err(Halt::Cancelled) => (ReplayState::Cancelled, Ok(())),
            Err(Halt::Failed(error)) => (ReplayState::Failed, Err(error)),
        };
        self.control.end(state);
        outcome.map(|()| self.handle().progress())
    }

    async fn replay(&self) -> Result<(), Halt> {
        let store: Arc<dyn StreamStore> = match self.store.home(&self.source.filter())? {
            Some(home) => home,
            None => Arc::clone(&self.store),
        };
        let mut failures = Backoff::new(self.backoff);
        let (mut reader, end) = loop {
            match self.begin(&*store).await {
                Ok(begun) => break begun,
                Err(error) => self.pause_after(&mut failures, error).await?,
            }
        };
        let mut pace = Pace::new(self.rate);
        let mut left = self.limit;
        while left > 0 && !end.is_reached(reader.place()) {
            self.control.go(&mut pace).await?;
            let page = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            let mut read = match reader.read(&*store, page).await {
                Ok(read) => read,
                Err(error) => {
                    self.pause_after(&mut failures, error).await?;
                    continue;
                }
            };
            failures.reset();
            read.events.retain(|event| end.includes(event));
            left -= read.events.len() as u64;
            for events in read.events.chunks(pace.batch(BATCH)) {
                self.control.go(&mut pace).await?;
                while let Err(error) = self.hand_over(events).await {
                    self.pause_after(&mut failures, error).await?;
                }
                failures.reset();
                if let Some(last) = events.last() {
                    self.control.came(events.len(), last, reader.behind(last));
                }
                self.control.unless_cancelled(pace.done(events.len())).await?;
            }
            if read.at_end {
                break;
            }
        }
        Ok(())
    }

    /// Finds where it begins and ends, and how many events that are, where it can be known.
    async fn begin(&self, store: &dyn StreamStore) -> Result<(Reader, End), Error> {
        let reader = Reader::open(store, &self.source, self.start).await?;
        let (end, total) = match &reader {
            Reader::Stream { stream, from, filter } => {
                let last = store.info(stream).await?;
                let total = last.as_ref().map_or(0, |info| (info.last + 1).saturating_sub((*from).max(info.first)));
                // How many of them a filter wants only reading them says.
                let is_whole = *filter == Filter { stream: filter.stream.clone(), ..Filter::default() };
                (End::Version(last.map_or(0, |info| info.last)), is_whole.then_some(total.min(self.limit)))
            }
            Reader::All { .. } => (End::Position(store.head().await?), None),
        };
        self.control.begin(total);
        Ok((reader, end))
    }

    async fn hand_over(&self, events: &[Event]) -> Result<(), Error> {
        match &self.target {
            Target::Handler(handler) => handler.handle(events).await,
            Target::Queue { store, queue } => {
                let item = |event: &Event| NewItem::from(event).dedup_id(format!("replay/{}/{}", self.name, event.id));
                store.enqueue(queue, events.iter().map(item).collect()).await.map(drop)
            }
        }
    }

    async fn pause_after(&self, failures: &mut Backoff, error: Error) -> Result<(), Halt> {
        if !error.is_retryable() {
            return Err(Halt::Failed(error));
        }
        let pause = failures.pause();
        tracing::warn!(
            target: "pgfleet::events",
            replay = &*self.name,
            tries = failures.tries(),
            error = &error as &dyn std::error::Error,
            "a replay has failed; trying again"
        );
        self.control.unless_cancelled(Instant::now() + pause).await
    }
}
