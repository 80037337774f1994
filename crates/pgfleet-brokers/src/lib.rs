//! Transports between services: RabbitMQ, NATS JetStream, and a bus database on PostgreSQL.
//!
//! All of them keep what [`Transport`](pgfleet_events::Transport) promises; [`connect`] makes one from what is configured.
//!
//! How messages of a key keep their order over a broker that hands messages to whoever is free: keys are dealt to partitions
//! by their hash, and each group has a queue (RabbitMQ) or a consumer (NATS) for each of them, of which the broker lets one
//! member at a time have messages. Messages without a key are not among them: any member takes the next.

mod connect;
mod envelope;
mod error;
#[cfg(feature = "nats")]
mod nats;
mod partition;
mod pause;
pub mod postgres;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod topic;
mod window;

pub use connect::{BrokerKind, Options, connect};
#[cfg(feature = "nats")]
pub use nats::Nats;
pub use postgres::Postgres;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::RabbitMq;
