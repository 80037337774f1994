//! Making servers what the manifest says: roles, databases, rights, extensions.
//!
//! [`state`] reads what is, [`desired`] says what should be, [`steps`] computes the statements
//! between them (pure, so that a dry run shows exactly what a run does), and [`run`] executes them
//! under one lock per server. The server is the truth: what was dropped or granted behind our back
//! is a difference like any other.

pub mod budget;
pub mod desired;
mod guest_steps;
mod role_steps;
pub mod run;
pub mod state;
pub mod steps;
pub(crate) mod tenant;

pub use desired::DesiredServer;
pub use role_steps::Passwords;
pub use run::{Provisioned, Statement, provision_server};
pub use steps::Step;
