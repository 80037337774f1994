//! Streams, queues, outbox and inbox on PostgreSQL.
//!
//! [`Store`] keeps streams and queues in the tables of the module `event_streaming` ([`module`]); the modules `outbox` and
//! `inbox` are tables of each service, beside its own.
//!
//! What it keeps true, and how, is in the traits of `pgfleet-events` and in the modules here.

mod carried;
mod config;
mod consumers;
mod error;
pub mod executor;
pub mod inbox;
pub mod keeper;
pub mod module;
pub mod outbox;
pub mod projection;
mod queues;
mod retention;
mod store;
mod streams;
mod wire;

pub use error::failed;
pub use executor::Executor;
pub use inbox::{Consumer, ConsumerOptions, Inbox};
pub use keeper::{Keeper, KeeperOptions, KeeperStats};
pub use outbox::{Outbox, Relay, RelayOptions};
pub use store::{Options, Store};
