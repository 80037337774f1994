//! Following streams: what is there, and then what comes.
//!
//! A subscription reads page by page until it finds nothing more, and then waits by the store's own
//! [`wait`](StreamStore::wait). It reads on from the place behind the last event in either case, so nothing is handed out
//! twice and nothing is left out where the one becomes the other.
//!
//! It keeps its place in memory only: who must go on after a restart stores [`place`](StreamSubscription::place), or has a
//! [`Group`](crate::group::Group) do so.

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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::testing::{Failing, event, number};
    use crate::{ErrorKind, Expected, Filter, Memory, handler};

    async fn append(store: &Memory, stream: &str, number: usize) {
        store.append(stream, Expected::Any, vec![event(number)]).await.unwrap();
    }

    #[tokio::test]
    async fn it_catches_up_in_pages_and_goes_on_live() {
        let store = Memory::new();
        for n in 0..25 {
            append(&store, "a", n).await;
        }
        for source in [Source::all(), Source::stream("a")] {
            let mut subscription =
                StreamSubscription::new(Arc::new(store.clone()), source.clone(), Start::Beginning).page(10);
            let mut seen = Vec::new();
            for (count, is_live) in [(10, false), (10, false), (5, true)] {
                let batch = subscription.next().await.unwrap();
                assert_eq!((batch.events.len(), batch.is_live), (count, is_live), "{source:?}");
                seen.extend(batch.events.iter().map(number));
            }
            // Nothing is there: it waits until something is.
            let (batch, ()) = tokio::join!(subscription.next(), append(&store, "a", 25));
            seen.extend(batch.unwrap().events.iter().map(number));
            assert_eq!(seen, (0..26).collect::<Vec<_>>());
            store.truncate("a", 26).await.unwrap();
            store.delete("a", Expected::Any).await.unwrap();
            for n in 0..25 {
                append(&store, "a", n).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_many_append_meanwhile_comes_once_and_in_order() {
        let (store, streams, each) = (Memory::new(), 6, 400);
        append(&store, "other", 0).await;
        let mut writers = tokio::task::JoinSet::new();
        for stream in 0..streams {
            let store = store.clone();
            writers.spawn(async move {
                for n in 0..each {
                    append(&store, &format!("s-{stream}"), n).await;
                    tokio::task::yield_now().await;
                }
            });
        }
        let wanted = Filter { stream_prefix: Some("s-".into()), ..Filter::default() };
        let mut subscription =
            StreamSubscription::new(Arc::new(store.clone()), Source::All(wanted), Start::Beginning).page(7);
        let mut versions = vec![0; streams];
        let mut total = 0;
        while total < streams * each {
            for event in subscription.next().await.unwrap().events {
                let stream: usize = event.stream.strip_prefix("s-").unwrap().parse().unwrap();
                assert_eq!(event.version, versions[stream] + 1, "each once and in order");
                versions[stream] += 1;
                total += 1;
            }
        }
        assert_eq!(versions, vec![each as u64; streams]);
        while let Some(written) = writers.join_next().await {
            written.unwrap();
        }
        let head = store.head().await.unwrap();
        assert_eq!(subscription.place(), Start::Position(head), "nothing is left");
    }

    #[tokio::test]
    async fn failures_that_pass_are_tried_again_and_others_end_it() {
        let store = Memory::new();
        append(&store, "a", 1).await;
        let failing = Failing::new(store, 3, ErrorKind::Unavailable);
        let quick = |failing: &Arc<Failing>| {
            StreamSubscription::new(failing.clone(), Source::all(), Start::Beginning)
                .backoff(Duration::from_millis(1), Duration::from_millis(2))
        };
        assert_eq!(quick(&failing).next().await.unwrap().events.len(), 1);
        assert_eq!(failing.failed(), 3);
        failing.fail(1, ErrorKind::Failed);
        assert_eq!(quick(&failing).next().await.unwrap_err().kind(), ErrorKind::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_whose_waits_end_at_once_is_polled_with_growing_pauses() {
        let store = Memory::new();
        let failing = Failing::new(store.clone(), 0, ErrorKind::Unavailable);
        failing.never_wait();
        let mut subscription = StreamSubscription::new(failing.clone(), Source::all(), Start::Beginning);
        let idle = tokio::time::timeout(Duration::from_mins(1), subscription.next()).await;
        assert!(idle.is_err());
        assert!((60..200).contains(&failing.reads()), "{} reads in a minute", failing.reads());
        append(&store, "a", 1).await;
        assert_eq!(subscription.next().await.unwrap().events.len(), 1);
    }

    #[tokio::test]
    async fn a_run_ends_when_told_and_goes_on_where_it_was() {
        let store = Memory::new();
        for n in 0..3 {
            append(&store, "a", n).await;
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(Notify::new());
        let handler = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            handler::from_fn(move |events| {
                seen.lock().unwrap().extend(events.iter().map(number));
                stop.notify_one();
                Box::pin(std::future::ready(Ok(())))
            })
        };
        let mut subscription =
            StreamSubscription::new(Arc::new(store.clone()), Source::stream("a"), Start::Beginning).page(2);
        subscription.run(&handler, stop.notified()).await.unwrap();
        assert_eq!((seen.lock().unwrap().clone(), subscription.place()), (vec![0, 1], Start::Version(3)));
        subscription.run(&handler, stop.notified()).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn events_whose_handling_failed_come_again() {
        let store = Memory::new();
        append(&store, "a", 7).await;
        let calls = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(Notify::new());
        let handler = {
            let (calls, stop) = (Arc::clone(&calls), Arc::clone(&stop));
            handler::from_fn(move |events| {
                assert_eq!(events.iter().map(number).collect::<Vec<_>>(), [7]);
                let answer = match calls.fetch_add(1, Ordering::AcqRel) {
                    0 | 1 => Err(Error::new(ErrorKind::Unavailable, "not now")),
                    2 => Err(Error::new(ErrorKind::Failed, "never")),
                    _ => {
                        stop.notify_one();
                        Ok(())
                    }
                };
                Box::pin(std::future::ready(answer))
            })
        };
        let mut subscription = StreamSubscription::new(Arc::new(store), Source::all(), Start::Beginning)
            .backoff(Duration::from_millis(1), Duration::from_millis(1));
        let error = subscription.run(&handler, std::future::pending()).await.unwrap_err();
        assert_eq!((error.kind(), calls.load(Ordering::Acquire)), (ErrorKind::Failed, 3));
        assert_eq!(subscription.place(), Start::Position(Position::START));
        subscription.run(&handler, stop.notified()).await.unwrap();
        assert_eq!(calls.load(Ordering::Acquire), 4);
    }
}
