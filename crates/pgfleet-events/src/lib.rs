//! Streams, queues and messages between services: the words, the interfaces, and an implementation in memory.
//!
//! * A *stream* ([`StreamStore`]) keeps its events for good, in order, and is read from any place in it. All streams of a
//!   store have one common order too, which is the same for every reader.
//! * A *queue* ([`QueueStore`]) hands each message to one consumer, for a time, until somebody says that it is done.
//! * A *transport* ([`Transport`]) carries [`Message`]s between services, at least once.
//!
//! On top of the stores, and the same on all of them:
//!
//! * [`subscription`] follows one stream or all, [`group`] shares that out among the members of a group, and [`replay`] has
//!   events handled again.
//! * [`registry`] makes several stores one, [`upcast`] reads events of older versions, [`snapshot`] loads what is made of
//!   a stream, and [`cloudevents`] writes messages for others.
//!
//! Who uses them writes against the traits; whether a store is in memory or on PostgreSQL is configuration. This crate
//! does no I/O and stands on nothing of ours.

mod answer;
mod backoff;
pub mod cloudevents;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consumer;
mod error;
mod event;
pub mod group;
pub mod handler;
mod in_process;
mod json;
mod memory;
mod message;
mod moment;
mod position;
mod queue;
mod reading;
pub mod registry;
pub mod replay;
pub mod snapshot;
mod store;
mod stream;
pub mod subscription;
#[cfg(test)]
mod testing;
mod transport;
pub mod upcast;

pub use answer::Answer;
pub use config::{ConfigStore, Removed, Retention, RetentionPolicy, StreamConfig, StreamKind};
pub use consumer::{ConsumerStore, GroupOffset, Lease};
pub use error::{Error, ErrorKind};
pub use event::{Event, Meta, NewEvent};
pub use handler::Handler;
pub use in_process::InProcess;
pub use json::Json;
pub use memory::{Clock, Memory};
pub use message::{Message, NewMessage};
pub use moment::Moment;
pub use position::Position;
pub use queue::{
    DeadLetter, Delivery, Enqueued, InFlight, Nack, NewItem, QueueInfo, QueueStore, Receipt, Redrive, Settled,
};
pub use store::{EventStore, GroupStore};
pub use stream::{Append, Appended, Direction, Expected, Filter, Page, StreamInfo, StreamStore};
pub use transport::{Delivered, Published, Subscriber, Subscription, Transport};
