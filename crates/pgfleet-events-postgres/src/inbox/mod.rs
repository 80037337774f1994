//! The inbox: each message is handled once, in the transaction of its handler.
//!
//! [`Inbox::begin`] notes a message in the handler's transaction; a [`Consumer`] takes messages from a
//! [`Subscriber`](pgfleet_events::Subscriber) and does all of it. What is kept true:
//!
//! * what a handler writes and that its message was handled are one transaction, and the broker is told afterwards: whatever
//!   ends in between, a message has its effect once;
//! * messages are remembered for some days. One that is older is refused and becomes a dead letter; it is never handled
//!   again unseen;
//! * a message that cannot be handled holds back its key only. It and what follows it are kept here, so the broker is not
//!   held up, and are handled in order later;
//! * who handles messages that were put aside holds the lock of their key's row in the same transaction, so whoever was
//!   cut off has changed nothing.

mod aside;
mod consumer;
mod databases;
mod handler;
#[expect(clippy::module_inception, reason = "the noun of this folder")]
mod inbox;
mod options;
mod sql;
mod stats;
mod status;

pub use consumer::Consumer;
pub use databases::{Databases, Work};
pub use handler::{Failure, Handler, Handling};
pub use inbox::{Begun, Inbox};
pub use options::ConsumerOptions;
pub use stats::ConsumerStats;
pub use status::{InboxStatus, ParkedInboxKey};
