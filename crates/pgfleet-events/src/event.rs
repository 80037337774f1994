//! Events: what happened, in a stream.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::error::Error;
use crate::json::Json;
use crate::moment::Moment;
use crate::position::Position;

/// What is said about an event or a message, beside what it says itself.
///
/// Most events have little of it, so an empty one costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// What a whole piece of business has in common; events can be read by it.
    pub correlation_id: Option<Arc<str>>,
    /// The id of what caused this one.
    pub causation_id: Option<Arc<str>>,
    /// The trace that it belongs to, as W3C's `traceparent`.
    pub traceparent: Option<Arc<str>>,
    /// W3C's `tracestate`, beside it.
    pub tracestate: Option<Arc<str>>,
    /// The tenant under whose scope it was written.
    pub tenant: Option<Arc<str>>,
    /// Anything else, by name.
    pub headers: BTreeMap<String, String>,
}

impl Meta {
    /// Returns whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An event about to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its id, unique for ever; a new one sorts by time.
    pub id: Uuid,
    /// The name of its type: `SeatBooked`.
    pub kind: Cow<'static, str>,
    /// What it says.
    pub data: Json,
    /// What is said about it.
    pub meta: Meta,
}

impl NewEvent {
    /// Makes an event of a type's name and of data that is JSON already.
    pub fn new(kind: impl Into<Cow<'static, str>>, data: Json) -> Self {
        Self { id: Uuid::now_v7(), kind: kind.into(), data, meta: Meta::default() }
    }

    /// Makes an event of a type's name and of a value.
    ///
    /// ```
    /// # fn main() -> Result<(), pgfleet_events::Error> {
    /// let event = pgfleet_events::NewEvent::of("SeatBooked", &serde_json::json!({ "seat": 12 }))?;
    /// assert_eq!(event.data.as_str(), r#"{"seat":12}"#);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Json::of`].
    pub fn of<T: Serialize + ?Sized>(kind: impl Into<Cow<'static, str>>, value: &T) -> Result<Self, Error> {
        Ok(Self::new(kind, Json::of(value)?))
    }

    /// Sets the id: who appends the same event twice after a lost answer finds it by that.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Sets what a whole piece of business has in common.
    #[must_use]
    pub fn correlation(mut self, id: impl Into<Arc<str>>) -> Self {
        self.meta.correlation_id = Some(id.into());
        self
    }

    /// Sets the id of what caused it.
    #[must_use]
    pub fn causation(mut self, id: impl Into<Arc<str>>) -> Self {
        self.meta.causation_id = Some(id.into());
        self
    }

    /// Sets all that is said about it.
    #[must_use]
    pub fn meta(mut self, meta: Meta) -> Self {
        self.meta = meta;
        self
    }
}

/// An event that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The stream that it is in.
    pub stream: Arc<str>,
    /// Its place in the stream, counted from 1 without a gap.
    pub version: u64,
    /// Its place among all streams; none where the store has not given it one yet, which reading a single stream right
    /// after an append can meet.
    pub position: Option<Position>,
    /// When it was appended, by the store's clock.
    pub at: Moment,
    /// Its id.
    pub id: Uuid,
    /// The name of its type.
    pub kind: Arc<str>,
    /// What it says.
    pub data: Json,
    /// What is said about it.
    pub meta: Meta,
}
