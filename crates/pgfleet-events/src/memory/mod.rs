//! Streams, queues, offsets and configurations in memory.
//!
//! For tests, and for what may be lost with the process. It keeps all that the traits promise; the suite in `conformance`
//! runs on it. One lock per kind of thing is held for the time of one operation and never over an `await`.

mod clock;
mod configs;
mod consumers;
mod log;
mod queue;
mod queues;
mod streams;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::Notify;

pub use self::clock::Clock;
use self::configs::Configs;
use self::consumers::Groups;
use self::queues::Queues;
use self::streams::Streams;

/// Everything in memory: a [`StreamStore`](crate::StreamStore), [`QueueStore`](crate::QueueStore),
/// [`ConsumerStore`](crate::ConsumerStore) and [`ConfigStore`](crate::ConfigStore). Its clones are the same store.
///
/// ```
/// use pgfleet_events::{Expected, Json, Memory, NewEvent, StreamStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pgfleet_events::Error> {
/// let store = Memory::new();
/// let event = NewEvent::new("SeatBooked", Json::parse(r#"{"seat":12}"#)?);
/// let appended = store.append("trip-1", Expected::NoStream, vec![event]).await?;
/// assert_eq!(appended.last, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    clock: Clock,
    streams: RwLock<Streams>,
    queues: Mutex<Queues>,
    groups: Mutex<Groups>,
    configs: RwLock<Configs>,
    /// Wakes who waits for events; losing nothing, because a waiter looks again after he has put himself down.
    appended: Notify,
    /// Likewise for messages.
    enqueued: Notify,
}

impl Memory {
    /// Makes an empty store that goes by this machine's clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty store that goes by a clock, as one that tests move.
    pub fn with_clock(clock: Clock) -> Self {
        Self { inner: Arc::new(Inner { clock, ..Inner::default() }) }
    }

    /// Returns its clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    // What is done under a lock never stops half-way, so what a panic elsewhere has poisoned can be used.

    fn streams(&self) -> RwLockReadGuard<'_, Streams> {
        self.inner.streams.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams_mut(&self) -> RwLockWriteGuard<'_, Streams> {
        self.inner.streams.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configs(&self) -> RwLockReadGuard<'_, Configs> {
        self.inner.configs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn configs_mut(&self) -> RwLockWriteGuard<'_, Configs> {
        self.inner.configs.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` says that there is something, at most so long. `look` may name a moment at which it looks again.
    async fn wait_for(&self, notify: &Notify, most: Duration, look: impl Fn() -> Look) {
        let end = tokio::time::Instant::now() + most.min(Duration::from_hours(24));
        loop {
            let mut notified = std::pin::pin!(notify.notified());
            let mut moved = std::pin::pin!(self.inner.clock.moved.notified());
            notified.as_mut().enable();
            moved.as_mut().enable();
            let until = match look() {
                Look::There => return,
                Look::At(moment) if !self.inner.clock.is_still() => {
                    end.min(tokio::time::Instant::now() + self.inner.clock.now().until(moment))
                }
                Look::At(_) | Look::Nothing => end,
            };
            tokio::select! {
                () = notified => {}
                () = moved => {}
                () = tokio::time::sleep_until(until) => {
                    if tokio::time::Instant::now() >= end {
                        return;
                    }
                }
            }
        }
    }
}

/// What a waiter finds.
enum Look {
    There,
    At(crate::Moment),
    Nothing,
}
