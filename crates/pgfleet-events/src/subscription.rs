//! Following streams: what is there, and then what comes.
//!
//! A subscription reads page by page until it finds nothing more, and then waits by the store's own
//! [`wait`](StreamStore::wait). It reads on from the place behind the last event in either case, so nothing is handed out
//! twice and nothing is left out where the one becomes the other.
//!
//! It keeps its place in memory only: who must go on after a restart stores [`place`](StreamSubscription::place), or has a
//! [`Group`](crate::group::Group) do so.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::Error;
use crate::event::Event;
use crate::handler::Handler;
use crate::position::Position;
use crate::reading::{Read, Reader};
pub use crate::reading::{Source, Start};
use crate::stream::StreamStore;

/// How many events are read at once where nobody says.
const PAGE: usize = 1_000;

/// How long at most until it is looked again, whatever the store's wait says.
const WAIT: Duration = Duration::from_secs(10);

/// A wait that was over sooner than this, with nothing behind it, told nothing.
const FRUITLESS: Duration = Duration::from_millis(20);

/// Pauses where waits tell nothing: a store whose wait returns at once is polled, not spun on.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// Pauses after failures.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Some events that follow those of the batch before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The events, in order; not none.
    pub events: Vec<Event>,
    /// Whether it was found that there was nothing behind them: what comes next is new. Not every store says so before it
    /// is asked for more.
    pub is_live: bool,
}

/// Follows one stream or all of them, from a place on.
///
/// ```
/// use std::sync::Arc;
/// use pgfleet_events::subscription::{Source, Start, StreamSubscription};
/// use pgfleet_events::{Expected, Json, Memory, NewEvent, StreamStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pgfleet_events::Error> {
/// let store = Arc::new(Memory::new());
/// let mut booked = StreamSubscription::new(store.clone(), Source::stream("trip-1"), Start::Beginning);
/// store.append("trip-1", Expected::Any, vec![NewEvent::new("SeatBooked", Json::parse("{}")?)]).await?;
/// let batch = booked.next().await?;
/// assert_eq!(&*batch.events[0].kind, "SeatBooked");
/// assert_eq!(booked.place(), Start::Version(2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StreamSubscription {
    store: Arc<dyn StreamStore>,
    source: Source,
    start: Start,
    page: usize,
    backoff: (Duration, Duration),
    /// None until the start was found.
    reader: Option<Reader>,
    /// One stream: a place among all, asked before the read that finds nothing, so that a wait behind it misses nothing.
    head: Option<Position>,
    /// Where was waited last.
    waited: Option<Position>,
    idle: Backoff,
}

impl StreamSubscription {
    /// Makes a subscription, with pages of 1,000 events; nothing is read yet.
    pub fn new(store: Arc<dyn StreamStore>, source: Source, start: Start) -> Self {
        Self {
            store,
            source,
            start,
            page: PAGE,
            backoff: BACKOFF,
            reader: None,
            head: None,
            waited: None,
            idle: Backoff::new(POLL),
        }
    }

    /// Sets how many events are read at once, at least 1.
    #[must_use]
    pub fn page(mut self, events: usize) -> Self {
        self.page = events.max(1);
        self
    }

    /// Sets the first and the longest pause after a failure; 100 ms and 10 s by default.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most);
        self
    }

    /// Returns where it goes on: behind what [`next`](Self::next) has returned, or [`run`](Self::run) has had handled.
    pub fn place(&self) -> Start {
        self.reader.as_ref().map_or(self.start, Reader::place)
    }

    /// Returns the next events, and waits for them when there are none.
    ///
    /// Failures that may pass are logged and tried again, without end.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a start that does not fit, and what trying again does not help.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the place moves with what is returned.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        let mut failures = Backoff::new(self.backoff);
        loop {
            match self.step().await {
                Ok(Some(batch)) => return Ok(batch),
                Ok(None) => failures.reset(),
                Err(error) => pause_after(&mut failures, error, "a subscription could not be read").await?,
            }
        }
    }

    /// Hands events to a handler until `stop` is ready; what the handler has then is finished.
    ///
    /// A handler's failure that may pass is logged, and the same events are handed again after a pause.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next), and a handler's failure that trying again does not help. [`place`](Self::place) is before
    /// the events then, so another `run` begins with them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while the handler works leaves the place before those events.
    pub async fn run(&mut self, handler: &dyn Handler, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            opened = self.open() => opened?,
        }
        loop {
            let mut ahead = Ahead { before: self.reader.clone(), subscription: self, is_handled: false };
            let batch = tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                batch = ahead.subscription.next() => batch?,
            };
            let mut failures = Backoff::new(ahead.subscription.backoff);
            while let Err(error) = handler.handle(&batch.events).await {
                let again = pause_after(&mut failures, error, "events could not be handled");
                tokio::select! {
                    biased;
                    () = &mut stop => return Ok(()),
                    paused = again => paused?,
                }
            }
            ahead.is_handled = true;
        }
    }

    /// Finds the start, so that there is a place to come back to.
    async fn open(&mut self) -> Result<(), Error> {
        let mut failures = Backoff::new(self.backoff);
        while self.reader.is_none() {
            if let Err(error) = self.find_start().await {
                pause_after(&mut failures, error, "the start of a subscription could not be found").await?;
            }
        }
        Ok(())
    }

    async fn find_start(&mut self) -> Result<(), Error> {
        if let Some(home) = self.store.home(&self.source.filter())? {
            self.store = home;
        }
        self.reader = Some(Reader::open(&*self.store, &self.source, self.start).await?);
        Ok(())
    }

    /// Reads once, or waits once.
    async fn step(&mut self) -> Result<Option<Batch>, Error> {
        if self.reader.is_none() {
            self.find_start().await?;
        }
        let store = &*self.store;
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let Read { events, at_end } = reader.read(store, self.page).await?;
        if !events.is_empty() {
            (self.head, self.waited) = (None, None);
            self.idle.reset();
            return Ok(Some(Batch { events, is_live: at_end }));
        }
        if !at_end {
            return Ok(None);
        }
        let behind = match (&*reader, self.head) {
            (Reader::All { after, .. }, _) => *after,
            (Reader::Stream { .. }, Some(head)) => head,
            (Reader::Stream { .. }, None) => {
                self.head = Some(store.head().await?);
                return Ok(None);
            }
        };
        let began = Instant::now();
        store.wait(behind, WAIT).await?;
        self.head = None;
        if self.waited == Some(behind) && began.elapsed() < FRUITLESS {
            tokio::time::sleep(self.idle.pause()).await;
        }
        self.waited = Some(behind);
        Ok(None)
    }
}

/// Puts a subscription back to before events that were not handled, also when the future is dropped.
struct Ahead<'a> {
    subscription: &'a mut StreamSubscription,
    before: Option<Reader>,
    is_handled: bool,
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        if !self.is_handled {
            self.subscription.reader = self.before.take();
        }
    }
}

/// Logs a failure that may pass, and pauses; returns any other.
async fn pause_after(failures: &mut Backoff, error: Error, what: &str) -> Result<(), Error> {
    if !error.is_retryable() {
        return Err(error);
    }
    let pause = failures.pause();
    let tries = failures.tries();
    tracing::warn!(target: "pgfleet::events", tries, error = &error as &dyn std::error::Error, "{what}; trying again");
    tokio::time::sleep(pause).await;
    Ok(())
}
