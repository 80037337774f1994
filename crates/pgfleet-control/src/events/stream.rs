//! Streams and events as they are shown.

use std::time::Duration;

use pgfleet_events::{Event, Retention, RetentionPolicy, StreamConfig, StreamInfo};
use serde::Serialize;
use serde_json::value::RawValue;

/// A stream as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct StreamShown {
    /// Its name.
    pub stream: String,
    /// How many events it has.
    pub length: u64,
    /// The version of the oldest.
    pub first: u64,
    /// The version of the newest.
    pub last: u64,
    /// When the oldest was appended.
    pub first_at: String,
    /// When the newest was appended.
    pub last_at: String,
    /// Whether nothing can be appended.
    pub archived: bool,
}

impl From<&StreamInfo> for StreamShown {
    fn from(info: &StreamInfo) -> Self {
        Self {
            stream: info.stream.to_string(),
            length: info.length,
            first: info.first,
            last: info.last,
            first_at: info.first_at.to_string(),
            last_at: info.last_at.to_string(),
            archived: info.archived,
        }
    }
}

/// An event as it is shown: one line of JSON.
#[derive(Debug, Serialize)]
pub struct EventShown<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// Its place in the stream.
    pub version: u64,
    /// Its place among all, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// When it was appended.
    pub at: String,
    /// Its id.
    pub id: String,
    /// The name of its type.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// What a whole piece of business has in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<&'a str>,
    /// The id of what caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<&'a str>,
    /// The trace that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// The tenant under whose scope it was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<&'a str>,
    /// Anything else that is said about it.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub headers: &'a std::collections::BTreeMap<String, String>,
    /// What it says.
    pub data: &'a RawValue,
}

impl<'a> From<&'a Event> for EventShown<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            stream: &event.stream,
            version: event.version,
            position: event.position.map(|position| position.to_string()),
            at: event.at.to_string(),
            id: event.id.to_string(),
            kind: &event.kind,
            correlation_id: event.meta.correlation_id.as_deref(),
            causation_id: event.meta.causation_id.as_deref(),
            traceparent: event.meta.traceparent.as_deref(),
            tenant: event.meta.tenant.as_deref(),
            headers: &event.meta.headers,
            data: raw(event.data.as_str()),
        }
    }
}

/// Text that a store has taken as JSON already; anything else is none.
pub(super) fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or(RawValue::NULL)
}

/// What is configured for a stream or a queue, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct ConfigShown {
    /// Its name.
    pub name: String,
    /// `stream` or `queue`.
    pub kind: &'static str,
    /// How often a message is delivered at most.
    pub max_attempts: u32,
    /// How long a delivery may take, in milliseconds.
    pub visibility_ms: u64,
    /// How long ids are remembered, in milliseconds.
    pub dedup_window_ms: u64,
    /// Whether messages wait behind a dead letter of their key.
    pub park_keys: bool,
    /// The most messages that may wait; 0 is without end.
    pub max_length: u64,
    /// How long dead letters are kept, in milliseconds; 0 is for ever.
    pub keep_dead_ms: u64,
    /// What is removed by itself.
    #[serde(flatten)]
    pub retention: RetentionShown,
    /// Whether the JSON of events is indexed.
    pub index_data: bool,
    /// Whether it is closed for what is new.
    pub closed: bool,
}

/// What is removed by itself, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct RetentionShown {
    /// Events older than this, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// More events than this.
    pub max_count: Option<u64>,
    /// More bytes than this.
    pub max_bytes: Option<u64>,
}

impl From<Retention> for RetentionShown {
    fn from(retention: Retention) -> Self {
        Self {
            max_age_ms: retention.max_age.map(millis),
            max_count: retention.max_count,
            max_bytes: retention.max_bytes,
        }
    }
}

impl From<&StreamConfig> for ConfigShown {
    fn from(config: &StreamConfig) -> Self {
        Self {
            name: config.name.to_string(),
            kind: config.kind.word(),
            max_attempts: config.max_attempts,
            visibility_ms: millis(config.visibility),
            dedup_window_ms: millis(config.dedup_window),
            park_keys: config.park_keys,
            max_length: config.max_length,
            keep_dead_ms: millis(config.keep_dead),
            retention: config.retention.into(),
            index_data: config.index_data,
            closed: config.closed,
        }
    }
}

/// A retention policy as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyShown {
    /// Its name.
    pub name: String,
    /// The streams.
    pub streams: String,
    /// What is removed.
    #[serde(flatten)]
    pub retention: RetentionShown,
    /// Whether it is in force.
    pub enabled: bool,
}

impl From<&RetentionPolicy> for PolicyShown {
    fn from(policy: &RetentionPolicy) -> Self {
        Self {
            name: policy.name.to_string(),
            streams: policy.streams.to_string(),
            retention: policy.retention.into(),
            enabled: policy.enabled,
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
