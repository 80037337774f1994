//! Messages between services.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::error::Error;
use crate::event::Meta;
use crate::json::Json;
use crate::moment::Moment;

/// A message about to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its id: whoever handles messages once tells them apart by it.
    pub id: Uuid,
    /// Where it goes: services subscribe to topics. Without one it is the name of its type.
    pub topic: Option<Arc<str>>,
    /// The name of its type.
    pub kind: Arc<str>,
    /// Messages of one key arrive in the order in which they were committed.
    pub key: Option<Arc<str>>,
    /// What it says.
    pub data: Json,
    /// What is said about it.
    pub meta: Meta,
    /// How long it waits before it is published.
    pub delay: Duration,
    /// How long it is of any use, from when it is written: what could not be delivered by then is given up.
    pub deliver_within: Option<Duration>,
}

impl NewMessage {
    /// Makes a message of a type's name and of data that is JSON already.
    pub fn new(kind: impl Into<Arc<str>>, data: Json) -> Self {
        Self {
            id: Uuid::now_v7(),
            topic: None,
            kind: kind.into(),
            key: None,
            data,
            meta: Meta::default(),
            delay: Duration::ZERO,
            deliver_within: None,
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

    /// Sets the key whose messages arrive in order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets where it goes.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Sets how long it waits before it is published.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A message between services, as a transport carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: Uuid,
    /// Where it goes.
    pub topic: Arc<str>,
    /// The name of its type.
    pub kind: Arc<str>,
    /// The service that it comes from.
    pub source: Arc<str>,
    /// When it was written.
    pub time: Moment,
    /// Messages of one key arrive in the order in which they were committed.
    pub key: Option<Arc<str>>,
    /// What it says.
    pub data: Json,
    /// What is said about it.
    pub meta: Meta,
}
