//! Queues: each message to one consumer, until it is done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::answer::Answer;
use crate::error::Error;
use crate::event::{Event, Meta};
use crate::json::Json;
use crate::moment::Moment;

/// A message about to be put into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewItem {
    /// The name of its type.
    pub kind: Arc<str>,
    /// What it says.
    pub data: Json,
    /// What is said about it.
    pub meta: Meta,
    /// Messages of one key are handled one after the other, in the order in which they were put in.
    pub key: Option<Arc<str>>,
    /// Higher ones are handed out earlier; 0 by default. Has no meaning among messages of one key.
    pub priority: i16,
    /// How long it waits before it is handed out.
    pub delay: Duration,
    /// A second message of this id is not put in, for as long as the queue remembers it (its `dedup_window`).
    pub dedup_id: Option<Arc<str>>,
}

impl NewItem {
    /// Makes a message of a type's name and of data that is JSON already.
    pub fn new(kind: impl Into<Arc<str>>, data: Json) -> Self {
        Self {
            kind: kind.into(),
            data,
            meta: Meta::default(),
            key: None,
            priority: 0,
            delay: Duration::ZERO,
            dedup_id: None,
        }
    }

    /// Makes a message of a type's name and of a value.
    ///
    /// # Errors
    ///
    /// As [`Json::of`].
    pub fn of<T: Serialize + ?Sized>(kind: impl Into<Arc<str>>, value: &T) -> Result<Self, Error> {
        Ok(Self::new(kind, Json::of(value)?))
    }

    /// Sets the key whose messages are handled in order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets how long it waits before it is handed out.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets its priority.
    #[must_use]
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the id that a second message must not have.
    #[must_use]
    pub fn dedup_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.dedup_id = Some(id.into());
        self
    }
}

/// An event as a message: those of one stream are handled in their order, and what is said about it stays with it. Unless
/// it names a cause already, the event is the cause.
impl From<&Event> for NewItem {
    fn from(event: &Event) -> Self {
        let mut item = Self::new(Arc::clone(&event.kind), event.data.clone()).key(Arc::clone(&event.stream));
        item.meta = event.meta.clone();
        item.meta.causation_id.get_or_insert_with(|| event.id.to_string().into());
        item
    }
}

/// What became of a message that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It was put in under this id.
    New(Uuid),
    /// A message of the same dedup id was there already.
    Duplicate,
}

/// What a delivery is known by: whoever has it may end or extend the delivery, once.
///
/// Opaque text of the store; it can be kept, and handed to another process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub Arc<str>);

/// A message that was handed to a consumer, until its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The queue.
    pub queue: Arc<str>,
    /// The message's id, the same in every delivery.
    pub id: Uuid,
    /// What this delivery is known by.
    pub receipt: Receipt,
    /// Which delivery of the message it is, counted from 1.
    pub attempt: u32,
    /// When it goes to somebody else, unless it was ended or extended, by the store's clock.
    pub deadline: Moment,
    /// When the message was put in.
    pub enqueued_at: Moment,
    /// The key whose messages are handled in order.
    pub key: Option<Arc<str>>,
    /// The priority.
    pub priority: i16,
    /// The name of its type.
    pub kind: Arc<str>,
    /// What it says.
    pub data: Json,
    /// What is said about it.
    pub meta: Meta,
}

/// How a message goes back that could not be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Whether it is handed out again; otherwise it becomes a dead letter. One that was delivered as often as the queue
    /// allows becomes a dead letter in any case.
    pub requeue: bool,
    /// How long it waits before it is handed out again.
    pub delay: Duration,
    /// Why; kept with a dead letter.
    pub reason: Arc<str>,
}

impl Nack {
    /// Hands it out again, at once.
    pub fn requeue(reason: impl Into<Arc<str>>) -> Self {
        Self { requeue: true, delay: Duration::ZERO, reason: reason.into() }
    }

    /// Hands it out again after a time.
    pub fn later(delay: Duration, reason: impl Into<Arc<str>>) -> Self {
        Self { requeue: true, delay, reason: reason.into() }
    }

    /// Makes it a dead letter.
    pub fn dead(reason: impl Into<Arc<str>>) -> Self {
        Self { requeue: false, delay: Duration::ZERO, reason: reason.into() }
    }
}

/// What became of deliveries that a consumer ended or extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// How many were the consumer's still, and are ended now.
    pub done: usize,
    /// How many were not: their deadlines have passed, or they were ended before. Nothing was changed for them.
    pub fenced: usize,
}

/// A message that somebody has and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The message's id.
    pub id: Uuid,
    /// Who has it.
    pub consumer: Arc<str>,
    /// Since when.
    pub since: Moment,
    /// When it goes to somebody else.
    pub deadline: Moment,
    /// Which delivery it is.
    pub attempt: u32,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message's id.
    pub id: Uuid,
    /// The key whose messages are handled in order.
    pub key: Option<Arc<str>>,
    /// Why it was given up.
    pub reason: Arc<str>,
    /// How often it was delivered.
    pub attempts: u32,
    /// When it was put in.
    pub enqueued_at: Moment,
    /// When it was given up.
    pub dead_at: Moment,
    /// The name of its type.
    pub kind: Arc<str>,
    /// What it says.
    pub data: Json,
    /// What is said about it.
    pub meta: Meta,
}

/// Which dead letters go back into their queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redrive {
    /// All.
    All,
    /// Those of one key.
    Key(Arc<str>),
    /// These.
    Ids(Vec<Uuid>),
}

/// What is known of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub queue: Arc<str>,
    /// How many messages are ready to be handed out.
    pub ready: u64,
    /// How many wait for their time.
    pub delayed: u64,
    /// How many somebody has.
    pub in_flight: u64,
    /// How many were given up.
    pub dead: u64,
    /// When the oldest message that is ready was put in.
    pub oldest: Option<Moment>,
    /// How many were delivered again, since the store was made.
    pub redelivered: u64,
}

/// Keeps queues.
///
/// What an implementation must keep true, and the suite in `conformance` tries:
///
/// * A message is with one consumer at a time. When its deadline passes it is handed to another one, and whoever was too
///   late changes nothing any more.
/// * Of messages of one key the next is handed out when the one before it is done or dead. When one is dead, those behind it
///   wait until it was redriven or purged (`park_keys`), or go on, as configured; redriven messages of a key are handed out
///   in the order in which they were put in first.
/// * A message whose `enqueue` was answered is not lost, as durable as the store is.
pub trait QueueStore: fmt::Debug + Send + Sync {
    /// Puts messages into a queue, which is made when it does not exist; all or nothing. The answers are in their order.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether they were put in; a `dedup_id` makes trying again harmless.
    fn enqueue<'a>(&'a self, queue: &'a str, items: Vec<NewItem>) -> Answer<'a, Vec<Enqueued>>;

    /// Hands out up to `max` messages; none when there are none, at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave messages with nobody until their deadline.
    fn dequeue<'a>(
        &'a self,
        queue: &'a str,
        consumer: &'a str,
        max: usize,
        visibility: Duration,
    ) -> Answer<'a, Vec<Delivery>>;

    /// Ends deliveries: their messages are done and gone.
    fn acknowledge<'a>(&'a self, receipts: &'a [Receipt]) -> Answer<'a, Settled>;

    /// Ends deliveries whose messages could not be handled.
    fn negative_acknowledge<'a>(&'a self, receipts: &'a [Receipt], nack: &'a Nack) -> Answer<'a, Settled>;

    /// Gives a delivery a new deadline, so long from now, and a new receipt; the old one no longer counts.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::ErrorKind::Fenced) when it is not the consumer's any more.
    fn extend<'a>(&'a self, receipt: &'a Receipt, visibility: Duration) -> Answer<'a, Receipt>;

    /// Waits until there may be something to hand out, at most so long. What is put in by this process is known at once.
    fn wait<'a>(&'a self, queue: &'a str, most: Duration) -> Answer<'a, ()>;

    /// Returns up to `limit` messages as the next ones would be handed out, without handing them out.
    fn peek<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<Delivery>>;

    /// Lists messages that somebody has, by deadline.
    fn in_flight<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<InFlight>>;

    /// Lists messages that were given up, the oldest first.
    fn dead_letters<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<DeadLetter>>;

    /// Puts dead letters back, in the order in which they were put in first, with no attempts counted. Returns how many.
    fn redrive<'a>(&'a self, queue: &'a str, which: &'a Redrive) -> Answer<'a, u64>;

    /// Removes all messages that are not handed out, or only the dead letters. Returns how many.
    fn purge<'a>(&'a self, queue: &'a str, only_dead: bool) -> Answer<'a, u64>;

    /// Returns what is known of a queue; none when it does not exist.
    fn info<'a>(&'a self, queue: &'a str) -> Answer<'a, Option<QueueInfo>>;

    /// Lists the queues by name.
    fn list(&self) -> Answer<'_, Vec<QueueInfo>>;

    /// Does what time demands: deadlines that have passed, delays that have ended. A store with workers of its own does it
    /// by itself; calling it does no harm.
    fn sweep(&self) -> Answer<'_, ()>;
}
