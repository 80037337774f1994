//! Queues and messages as they are shown.

use pgfleet_events::{DeadLetter, Delivery, InFlight, Moment, QueueInfo};
use serde::Serialize;
use serde_json::value::RawValue;

use super::stream::{millis, raw};

/// A queue as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct QueueShown {
    /// Its name.
    pub queue: String,
    /// Messages that are ready.
    pub ready: u64,
    /// Messages that wait for their time.
    pub delayed: u64,
    /// Messages that somebody has.
    pub in_flight: u64,
    /// Messages that were given up.
    pub dead: u64,
    /// How old the oldest message is that is ready, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// Messages that were delivered again, since the store was made.
    pub redelivered: u64,
}

impl From<&QueueInfo> for QueueShown {
    fn from(info: &QueueInfo) -> Self {
        Self {
            queue: info.queue.to_string(),
            ready: info.ready,
            delayed: info.delayed,
            in_flight: info.in_flight,
            dead: info.dead,
            oldest_ms: info.oldest.map(|oldest| millis(oldest.until(Moment::now()))),
            redelivered: info.redelivered,
        }
    }
}

/// A message that waits, as it is shown.
#[derive(Debug, Serialize)]
pub struct ItemShown<'a> {
    /// Its id.
    pub id: String,
    /// Which delivery the next one is.
    pub attempt: u32,
    /// When it was put in.
    pub enqueued_at: String,
    /// Its key.
    pub key: Option<&'a str>,
    /// Its priority.
    pub priority: i16,
    /// The name of its type.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// What it says.
    pub data: &'a RawValue,
}

impl<'a> From<&'a Delivery> for ItemShown<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            attempt: delivery.attempt,
            enqueued_at: delivery.enqueued_at.to_string(),
            key: delivery.key.as_deref(),
            priority: delivery.priority,
            kind: &delivery.kind,
            data: raw(delivery.data.as_str()),
        }
    }
}

/// A message that somebody has, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct FlightShown {
    /// Its id.
    pub id: String,
    /// Who has it.
    pub consumer: String,
    /// Since when.
    pub since: String,
    /// When it goes to somebody else.
    pub deadline: String,
    /// Which delivery it is.
    pub attempt: u32,
}

impl From<&InFlight> for FlightShown {
    fn from(flight: &InFlight) -> Self {
        Self {
            id: flight.id.to_string(),
            consumer: flight.consumer.to_string(),
            since: flight.since.to_string(),
            deadline: flight.deadline.to_string(),
            attempt: flight.attempt,
        }
    }
}

/// A message that was given up, as it is shown.
#[derive(Debug, Serialize)]
pub struct DeadShown<'a> {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: Option<&'a str>,
    /// Why.
    pub reason: &'a str,
    /// How often it was delivered.
    pub attempts: u32,
    /// When it was put in.
    pub enqueued_at: String,
    /// When it was given up.
    pub dead_at: String,
    /// The name of its type.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// What it says.
    pub data: &'a RawValue,
}

impl<'a> From<&'a DeadLetter> for DeadShown<'a> {
    fn from(dead: &'a DeadLetter) -> Self {
        Self {
            id: dead.id.to_string(),
            key: dead.key.as_deref(),
            reason: &dead.reason,
            attempts: dead.attempts,
            enqueued_at: dead.enqueued_at.to_string(),
            dead_at: dead.dead_at.to_string(),
            kind: &dead.kind,
            data: raw(dead.data.as_str()),
        }
    }
}
