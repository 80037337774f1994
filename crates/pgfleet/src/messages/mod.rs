//! Messages between services: published in the service's own transaction, handled once in the handler's.
//!
//! ```no_run
//! use pgfleet::messages::{Failure, Handle, Message, MessageBody};
//! use pgfleet::{Module, Service, Tx};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct SeatBooked {
//!     trip: String,
//!     seats: i32,
//! }
//!
//! impl MessageBody for SeatBooked {
//!     const KIND: &'static str = "SeatBooked";
//!
//!     // What concerns one trip arrives in the order in which it was committed.
//!     fn key(&self) -> Option<String> {
//!         Some(self.trip.clone())
//!     }
//! }
//!
//! struct Tell;
//!
//! impl Handle<SeatBooked> for Tell {
//!     async fn handle(&self, tx: &mut Tx, booked: SeatBooked, _: &Message) -> Result<(), Failure> {
//!         tx.execute("INSERT INTO notifications (trip, seats) VALUES ($1, $2)", &[&booked.trip, &booked.seats]).await?;
//!         Ok(())
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // One service publishes …
//! let trip = Service::builder("trip").module(Module::outbox()).start().await?;
//! let mut tx = trip.begin().await?;
//! trip.outbox().publish(&mut tx, &SeatBooked { trip: "t_1".into(), seats: 2 }).await?;
//! tx.commit().await?;
//!
//! // … and another one handles.
//! let notifications = Service::builder("notifications").module(Module::inbox()).handle(Tell).start().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A service with the module `outbox` carries what was published to the broker by itself, one with handlers receives;
//! `PGFLEET_<SERVICE>_EVENTS_BROKER` and `_URL`, which `pgfleet up` sets, say which broker, and `_NAME` under which name
//! the solution lives on it. Each tenant's database has an outbox and an inbox of its own, and a message is handled under the scope of its tenant.

mod body;
mod databases;
mod handler;
mod outbox;
mod relays;
mod trace;
mod transport;
mod workers;

pub use body::MessageBody;
pub use handler::Handle;
pub(crate) use handler::Registered;
pub use outbox::Outbox;
pub use pgfleet_events::{InProcess, Json, Message, Meta, NewMessage, Transport};
pub use pgfleet_events_postgres::Executor;
pub use pgfleet_events_postgres::inbox::{ConsumerOptions, Failure};
pub use pgfleet_events_postgres::outbox::{AfterDead, RelayOptions};
pub use trace::Trace;
pub(crate) use workers::{Plan, Workers};
