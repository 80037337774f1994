//! What is configured for a stream or a queue, and what is removed by itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;

/// Whether events stay or are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// A persistent stream.
    Stream,
    /// An ephemeral stream: a queue.
    Queue,
}

impl StreamKind {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Queue => "queue",
        }
    }
}

/// What is configured for a stream or a queue. What is not said is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// Its name; for streams a `*` at the end stands for all that begin so, and the longest that fits counts.
    pub name: Arc<str>,
    /// Stream or queue.
    pub kind: StreamKind,
    /// Queues: how often a message is delivered before it becomes a dead letter; 0 is without end. 5 by default.
    pub max_attempts: u32,
    /// Queues: how long a delivery may take when the consumer does not say; 30 s by default.
    pub visibility: Duration,
    /// Queues: how long the ids of messages are remembered that must not come twice; 24 h by default.
    pub dedup_window: Duration,
    /// Queues: whether messages wait whose key has a dead letter; `true` by default.
    pub park_keys: bool,
    /// Queues: the most messages that may wait in it, beyond which `enqueue` is refused; 0 is without end, the default.
    pub max_length: u64,
    /// Queues: how long dead letters are kept; zero is for ever. 30 days by default.
    pub keep_dead: Duration,
    /// Streams: what is removed by itself. Queues: likewise, of messages that nobody took.
    pub retention: Retention,
    /// Streams: whether the JSON of events is indexed (GIN).
    pub index_data: bool,
    /// Whether it is closed for what is new.
    pub closed: bool,
}

impl StreamConfig {
    /// The defaults, for a name.
    pub fn new(name: impl Into<Arc<str>>, kind: StreamKind) -> Self {
        Self {
            name: name.into(),
            kind,
            max_attempts: 5,
            visibility: Duration::from_secs(30),
            dedup_window: Duration::from_hours(24),
            park_keys: true,
            max_length: 0,
            keep_dead: Duration::from_hours(30 * 24),
            retention: Retention::default(),
            index_data: false,
            closed: false,
        }
    }
}

/// What is removed by itself: what goes beyond any of the limits, the oldest first. Without limits nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Events older than this.
    pub max_age: Option<Duration>,
    /// More events than this, in each stream.
    pub max_count: Option<u64>,
    /// More bytes of data than this, in each stream.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Returns whether nothing is removed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A retention that has a name and holds for all streams whose names fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// The policy's name.
    pub name: Arc<str>,
    /// The streams: a name, or the beginning of names with a `*` behind it.
    pub streams: Arc<str>,
    /// What is removed.
    pub retention: Retention,
    /// Whether it is in force.
    pub enabled: bool,
}

/// What a run of the retention removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Streams that lost events.
    pub streams: u64,
    /// Events and messages.
    pub events: u64,
}

/// Keeps configurations and retention policies.
pub trait ConfigStore: fmt::Debug + Send + Sync {
    /// Sets what is configured for a stream or a queue.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for what cannot be.
    fn configure<'a>(&'a self, config: &'a StreamConfig) -> Answer<'a, ()>;

    /// Returns what holds for a stream or a queue: what was configured, else the defaults.
    fn config<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, StreamConfig>;

    /// Lists what was configured, by name.
    fn configs(&self) -> Answer<'_, Vec<StreamConfig>>;

    /// Goes back to the defaults; says whether anything was configured.
    fn unconfigure<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, bool>;

    /// Makes or changes a retention policy, by its name.
    fn set_policy<'a>(&'a self, policy: &'a RetentionPolicy) -> Answer<'a, ()>;

    /// Lists the retention policies by name.
    fn policies(&self) -> Answer<'_, Vec<RetentionPolicy>>;

    /// Removes a retention policy; says whether there was one.
    fn remove_policy<'a>(&'a self, name: &'a str) -> Answer<'a, bool>;

    /// Removes what the policies and configurations say, now. Without it a worker does so by itself.
    fn apply_retention(&self) -> Answer<'_, Removed>;
}
