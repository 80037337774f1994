//! A warm server per machine user, and a database per test.
//!
//! The first test of a day starts the server ([`TestServer::shared`]); it is *left running*, so the
//! next test process connects within milliseconds. Test commands end with
//! [`TestServer::stop_all`]. The server is not durable; its data is in `/var/tmp/pgfleet-test-<uid>`
//! and may be deleted at any time when it is stopped.
//!
//! ```no_run
//! # async fn example() {
//! use pgfleet_local::testing::TestServer;
//! let server = TestServer::shared().await;
//! let database = server.database().await;
//! let url = database.url(); // postgres://postgres:…@127.0.0.1:<port>/pgt_…
//! # }
//! ```
//!
//! [`Databases`] makes them, on this server and on any other: empty ones, and copies of a template that is made once
//! ([`Recipe`]).
//!
//! Functions of [`TestServer`] panic with the reason instead of returning errors: a test cannot go on without
//! its server.

mod brokers;
mod comment;
mod database;
mod databases;
mod lines;
mod name;
mod own;
mod pooler;
mod proxy;
mod replica;
mod server;
mod sweep;
mod template;
#[cfg(feature = "testing-tls")]
mod tls;

pub use brokers::Broker;
pub use database::TestDatabase;
pub use databases::Databases;
pub use own::OwnServer;
pub use pooler::{PoolMode, Pooler, PoolerOptions};
pub use proxy::{Proxy, Weather};
pub use replica::Replica;
pub use server::TestServer;
pub use template::Recipe;
#[cfg(feature = "testing-tls")]
pub use tls::{ClientFiles, Shown, TlsServer};

use crate::cluster::HOST;
use crate::error::{Error, Kind};

/// A URL of a server on this machine with another port.
fn other_port(url: &str, port: u16) -> String {
    let (before, after) =
        url.split_once(&format!("@{HOST}:")).unwrap_or_else(|| panic!("a URL of the test server is needed"));
    let rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    format!("{before}@{HOST}:{port}{rest}")
}

fn database_error(action: &str, source: tokio_postgres::Error) -> Error {
    Kind::Database { action: action.to_owned(), source }.into()
}
