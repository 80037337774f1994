//! Moving a tenant's database to another server.
//!
//! The data is copied while nobody can write: services are told that the tenant is being made, their
//! roles may not connect, and their sessions end. Both databases are read and compared before anything
//! leads to the new one. The old one stays closed for a while and can be gone back to.
//!
//! Every step is in `control.moves` before it is taken. Who dies leaves a move that the same command
//! goes on with, or that is cancelled; the database that the strings lead to is whole at any time.

mod begin;
mod contents;
mod copy;
mod fence;
mod hands;
mod programs;
mod record;
pub(crate) mod rollouts;
mod run;
mod shape;
mod source;
mod switch;
mod verbs;

use std::time::Duration;

use serde::Serialize;

pub use record::{Move, MoveState};

/// What is to be moved, and where.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The server in the manifest.
    pub server: String,
    /// The service whose data is meant; none means all that the tenant has databases for.
    pub service: Option<String>,
    /// How long the old database is kept; none is the manifest's `drop_after`.
    pub keep: Option<Duration>,
}

/// What came of a command about moves.
#[derive(Debug, Clone, Serialize)]
pub struct Moved {
    /// The moves that were worked on, as they are now.
    pub moves: Vec<Move>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}
