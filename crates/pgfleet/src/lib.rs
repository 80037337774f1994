//! The databases of a microservice system as one fleet: what a service depends on.
//!
//! A service says what its database needs, and starts when it is there:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let service = pgfleet::Service::builder("trip")
//!     .migrations(pgfleet::embed::Folder::new("migrations", "pgfleet", &[
//!         ("0001_create_trips.sql", "CREATE TABLE trips (id bigint PRIMARY KEY)"),
//!     ]))
//!     .start()
//!     .await?;
//! let mut db = service.reader().await?;
//! db.query("SELECT id FROM trips", &[]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`migrations!`] puts a folder into the program. Migrations and seeders can be Rust: see
//! [`SchemaMigration`], [`Migration`], [`Backfill`] and [`Seeder`].
//!
//! Every program built with it answers `<program> pgfleet worker`, through which the command line
//! runs what is Rust in other databases: see [`Builder::start`].

/// What the guides show is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/guides/service.md")]
struct Guide;

/// And what this one shows.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/guides/connections.md")]
struct ConnectionsGuide;

/// And this one.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/guides/messages.md")]
struct MessagesGuide;

/// So is this one, with everything that a test can take.
#[cfg(all(doctest, feature = "sqlx", feature = "test"))]
#[doc = include_str!("../../../docs/src/guides/test-databases.md")]
struct TestGuide;

/// And this one runs, on databases of tests.
#[cfg(all(doctest, feature = "sqlx", feature = "test"))]
#[doc = include_str!("../../../docs/src/guides/values.md")]
struct ValuesGuide;

mod builder;
mod connections;
pub mod embed;
mod environment;
mod error;
pub mod events;
#[cfg(feature = "sqlx")]
mod from_sqlx;
#[cfg(feature = "tower")]
pub mod http;
#[cfg(feature = "sqlx")]
mod lending;
pub mod messages;
mod module;
mod observer;
#[cfg(feature = "tower")]
mod problem;
mod readiness;
mod routing;
mod service;
mod start;
#[cfg(feature = "test")]
pub mod test;
pub mod values;
mod worker;

pub use builder::Builder;
pub use connections::Named;
pub use error::{Error, ErrorKind};
#[cfg(feature = "sqlx")]
pub use lending::{LentPool, note_write};
pub use messages::{Outbox, Trace};
pub use module::Module;
#[cfg(feature = "test")]
pub use pgfleet_macros::test;
pub use pgfleet_macros::{migrations, seeds};
pub use pgfleet_migrate::announce::{Applied, AppliedSet};
pub use pgfleet_migrate::code::{Backfill, Batch, IntoStep, Migration, SchemaMigration, Seeder, StepResult};
pub use pgfleet_migrate::db::Db;
pub use pgfleet_migrate::schema::{ForeignKey, Index, OnDelete, Schema};
pub use pgfleet_migrate::{Event, Observer, Options, Outcome, Report, StepError, options};
pub use pgfleet_postgres::Connection;
pub use pgfleet_postgres::pool::{Isolation, PoolOptions, Statements, TransactionOptions};
pub use pgfleet_route::{Reader, ReplicaOptions, Router, Scope, Session, Tx, Writer};
pub use readiness::Readiness;
pub use service::Service;
pub use values::{Entity, Id, Money, Timestamp, Uid};
