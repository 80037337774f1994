//! Streams, queues, outboxes and inboxes of a solution's databases: looked at and put right from outside of the services.
//!
//! [`Solution::event_database`](crate::Solution::event_database) finds the database that is meant and connects as the service's own application role, so
//! nothing can be done here that the service could not do. Everything goes through the interfaces of `pgfleet-events`.

mod broker;
mod database;
mod failed;
mod group;
mod messages;
mod queue;
mod read;
mod replay;
mod stream;

pub use database::EventDatabase;
pub use failed::failed;
pub use group::GroupShown;
pub use messages::{DeadOutboxShown, Held, InboxShown, KeyShown, OutboxRetried, OutboxShown};

pub use pgfleet_events_postgres::Store;
pub use queue::{DeadShown, FlightShown, ItemShown, QueueShown};
pub use read::{Begin, Reading};
pub use replay::{Replay, Replayed};
pub use stream::{ConfigShown, EventShown, PolicyShown, RetentionShown, StreamShown};
