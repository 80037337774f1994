//! Tests with a migrated and seeded database of their own.
//!
//! ```
//! use pgfleet::test::Database;
//!
//! #[pgfleet::test(service = service)]
//! async fn a_trip_has_an_id(db: Database) -> Result<(), pgfleet::Error> {
//!     let connection = db.connect().await?;
//!     connection.execute("INSERT INTO trips (id) VALUES (1)", &[]).await?;
//!     assert_eq!(connection.query("SELECT id FROM trips", &[]).await?.len(), 1);
//!     Ok(())
//! }
//!
//! fn service() -> pgfleet::Builder {
//!     pgfleet::Service::builder("trip").migrations(pgfleet::embed::Folder::new(
//!         "migrations",
//!         "pgfleet",
//!         &[("1_trips.sql", "CREATE TABLE trips (id bigint PRIMARY KEY)")],
//!     ))
//! }
//! # fn main() { }
//! ```
//!
//! The first test that needs a schema makes a *template*: a database with all migrations and seeds, named by a hash of
//! all that decides what is in it. Every test gets a copy of it, which goes away with the test. Other tests, also those
//! of other processes, use the same template, and wait while it is made. A changed file is another hash, so another
//! template; old ones are removed. A service with migrations or seeders in Rust gets a new template whenever its test
//! program was built anew, since nobody can see what changed in code.
//!
//! Where the databases are:
//!
//! * on the server that `PGFLEET_TEST_URL` says, as a role that may create databases. `DATABASE_URL` is not looked at:
//!   it names the database that sqlx checks queries against, or the one that somebody works with;
//! * without it, on a server of this machine's user that is started for tests, is not durable, and stays running.
//!
//! A database whose process died is removed by the next process that makes one. On a server that is not only for tests
//! nothing is touched that does not bear our comment.
//!
//! `PGFLEET_TEST_KEEP=1` leaves the database of a test that failed, for a week, and says where it is.

mod database;
mod from;
mod outcome;
mod run;
mod server;
mod template;

pub use database::Database;
pub use from::FromDatabase;
pub use outcome::Outcome;
pub use run::run;
