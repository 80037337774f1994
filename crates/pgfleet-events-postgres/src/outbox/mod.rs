//! The outbox: messages in the service's own transaction, carried to a broker after its commit.
//!
//! [`Outbox::publish`] adds a row in the caller's transaction and a [`Relay`] carries it to a
//! [`Transport`](pgfleet_events::Transport). What is kept true:
//!
//! * a message is carried if and only if its transaction committed, at least once;
//! * of transactions that follow each other, the messages of one key arrive in that order; a message that cannot be
//!   delivered holds back its key only;
//! * nobody waits for a stranger's transaction: what is new is told by snapshots, not by the oldest transaction that runs;
//! * one relay at a time gets on. Every step adds the row of `outbox_cursor` after the one that it stands on, so whoever was
//!   overtaken fails as a whole;
//! * rows are neither updated nor deleted one by one. What was carried goes by emptying one of two slots.

mod horizon;
mod ledger;
mod options;
mod publish;
mod redrive;
mod relay;
mod row;
mod settle;
mod sql;
mod stats;
mod status;

pub use horizon::{Holder, horizon};
pub use options::{AfterDead, RelayOptions};
pub use publish::{Outbox, following};
pub use redrive::Retry;
pub use relay::Relay;
pub use stats::RelayStats;
pub use status::{DeadOutboxMessage, OutboxStatus, ParkedKey};
