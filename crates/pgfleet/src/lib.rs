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
//! let db = service.connect().await?;
//! db.client().query("SELECT id FROM trips", &[]).await?;
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

/// So is this one, with everything that a test can take.
#[cfg(all(doctest, feature = "sqlx", feature = "test"))]
#[doc = include_str!("../../../docs/src/guides/test-databases.md")]
struct TestGuide;

mod builder;
pub mod embed;
mod environment;
mod error;
mod module;
mod observer;
mod readiness;
mod service;
mod start;
#[cfg(feature = "test")]
pub mod test;
mod worker;

pub use builder::Builder;
pub use error::{Error, ErrorKind};
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
pub use readiness::Readiness;
pub use service::Service;
