//! What carries messages between services.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::error::Error;
use crate::message::Message;

/// What became of a message that was published: the broker has it, or why it has not.
pub type Published = Result<(), Error>;

/// What somebody wants to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Who receives: all members of a group share its messages, each group gets all of them. The service's name.
    pub group: Arc<str>,
    /// The topics; a `*` at the end stands for all that begin so.
    pub topics: Vec<Arc<str>>,
    /// The most messages that may be out at once.
    pub prefetch: usize,
    /// How long a message may be out before it goes to another member.
    pub visibility: Duration,
}

impl Subscription {
    /// A subscription of a group to topics, with 100 messages out at once and 30 s for each.
    pub fn new<T: Into<Arc<str>>>(group: impl Into<Arc<str>>, topics: impl IntoIterator<Item = T>) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            prefetch: 100,
            visibility: Duration::from_secs(30),
        }
    }
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The message.
    pub message: Message,
    /// Which delivery it is, counted from 1, as far as the transport knows.
    pub attempt: u32,
    /// What the transport knows this delivery by.
    pub receipt: Arc<str>,
}

/// Carries messages between services, at least once.
///
/// What an implementation must keep true, and the suite in `conformance` tries:
///
/// * A message that was confirmed reaches every group that has subscribed before, also when broker, publisher or
///   subscriber end in between; it may come more than once.
/// * Messages of one key reach a group in the order in which they were published, one batch after the other. A message that
///   goes back comes again before later ones of its key.
/// * A lost connection is made again by itself; what is published meanwhile is an error that can be tried again, never a
///   silent loss.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Returns its name: `postgres`, `rabbitmq`, `nats`, `in-process`.
    fn name(&self) -> &'static str;

    /// Publishes messages and waits until the broker has confirmed them; the answers are in their order.
    ///
    /// Once one message of a key has failed, later ones of that key in the batch fail too, so that order is kept by trying
    /// all of them again.
    ///
    /// # Errors
    ///
    /// Only when nothing was published: no connection.
    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>>;

    /// Subscribes: from when it is answered, what is published to the topics is kept for the group.
    fn subscribe(&self, subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>>;

    /// Forgets a group and what is kept for it.
    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()>;
}

/// Receives messages for a member of a group.
///
/// Dropping it gives back what is out.
pub trait Subscriber: fmt::Debug + Send {
    /// Returns up to `max` messages, after waiting for the first at most so long.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: what had arrived comes again after its visibility.
    fn receive(&mut self, max: usize, most: Duration) -> Answer<'_, Vec<Delivered>>;

    /// Says that messages were handled. What comes too late is not an error: the message comes again, and the inbox knows it.
    fn acknowledge<'a>(&'a mut self, delivered: &'a [Delivered]) -> Answer<'a, ()>;

    /// Gives a message back that could not be handled, to come again after a time, before later ones of its key.
    fn give_back<'a>(&'a mut self, delivered: &'a Delivered, delay: Duration) -> Answer<'a, ()>;
}
