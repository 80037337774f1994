//! Streams and queues in the service's own database, and in memory.
//!
//! ```no_run
//! use pgfleet::events::{Expected, NewEvent, NewItem, QueueStore, StreamStore};
//! use pgfleet::{Module, Service};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let orders = Service::builder("orders").module(Module::event_streaming()).start().await?;
//! let events = orders.events()?;
//!
//! // A stream keeps what happened …
//! let placed = NewEvent::of("OrderPlaced", &serde_json::json!({ "amount": 30 }))?;
//! events.append("order-1", Expected::NoStream, vec![placed]).await?;
//!
//! // … and a queue hands each message to one consumer, until it is done.
//! let mail = NewItem::of("Mail", &serde_json::json!({ "to": "ann@example.org" }))?;
//! events.enqueue("mails", vec![mail]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The module makes the tables, before the service's own migrations. [`Service::events`](crate::Service::events) is one face
//! for streams and queues; which of them are in memory says [`Builder::streams`](crate::Builder::streams), or
//! `PGFLEET_<SERVICE>_STREAMS`, so that code does not change when a stream moves.
//! [`Service::event_store`](crate::Service::event_store) is what is on PostgreSQL, for appending in the service's own
//! transaction and for projections.
//!
//! While the service runs, its *keeper* removes what retention says, in one process of all that run the service: see
//! [`Builder::keeper`](crate::Builder::keeper). [`Service::shutdown`](crate::Service::shutdown) ends it.
//!
//! It is the service's main database, whatever the current [`Scope`](crate::Scope) is. In tenants' databases the module has
//! its tables too; nothing here leads there.

mod hosted;
mod plan;
mod service;

pub(crate) use hosted::Hosted;
pub use pgfleet_events::group::{self, Group, GroupOptions};
pub use pgfleet_events::handler::Handler;
pub use pgfleet_events::registry::{Events, Routing};
pub use pgfleet_events::replay::{self, Replay};
pub use pgfleet_events::subscription::{self, StreamSubscription};
pub use pgfleet_events::{
    Append, Appended, ConfigStore, ConsumerStore, DeadLetter, Delivery, Direction, Enqueued, Error, ErrorKind, Event,
    EventStore, Expected, Filter, Json, Lease, Meta, Moment, Nack, NewEvent, NewItem, Page, Position, QueueInfo,
    QueueStore, Receipt, Redrive, Removed, Retention, RetentionPolicy, Settled, StreamConfig, StreamInfo, StreamKind,
    StreamStore,
};
pub use pgfleet_events_postgres::projection::{self, Project, Projection};
pub use pgfleet_events_postgres::{KeeperOptions, KeeperStats, Options as StoreOptions, Store, failed};
pub use pgfleet_postgres::pool::Transaction;
pub(crate) use plan::Plan;

/// The name of the store in the service's database, for a [`Routing`].
pub const POSTGRES: &str = "postgres";

/// The name of the store in memory, for a [`Routing`]: gone with the process, and not seen by another one.
pub const MEMORY: &str = "memory";
