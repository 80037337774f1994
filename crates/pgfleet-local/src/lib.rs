//! A local PostgreSQL: finds or fetches the server, starts, stops and keeps it.
//!
//! [`Cluster::ensure_running`] is what `pgfleet up` calls: afterwards a server answers on
//! `127.0.0.1`, with its data in the solution's state folder. The server is not a child of the
//! caller: it outlives it, and the next call finds it again, also after the caller or the server
//! was killed. [`Binaries`] looks for the server programs on the machine and, when asked to, gets a
//! self-contained build through the machine's own Python package client.
//!
//! The crate is synchronous, prints nothing, and reads the environment in one place only
//! ([`Search::from_env`]). It knows nothing about databases, roles or schemas: it hands out a
//! superuser on an empty server.
#![cfg_attr(
    feature = "testing",
    doc = "\nFeature `testing`: one warm server per machine user and a database per test ([`testing`])."
)]

mod binaries;
mod cluster;
mod error;
mod fetch;
mod files;
mod initdb;
mod place;
mod port;
mod postmaster;
mod settings;
mod start;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod user;

pub use binaries::{Binaries, OLDEST_SUPPORTED, Search};
pub use cluster::{Cluster, ClusterOptions, HOST, Running, Status, StopMode, Stopped};
pub use error::Error;
pub use fetch::{Cache, FETCHED_MAJOR};
pub use user::ServerUser;
