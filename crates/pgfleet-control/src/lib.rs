//! The manifest, provisioning, isolation and the control database.
//!
//! What belongs to a whole solution: which servers and databases it has, who may reach them, and
//! running migrations over all of them. [`solution::Solution`] is what the command line and the
//! server call. Nothing here prints or reads the environment.

mod announcer;
pub mod bundle;
pub mod catalogue;
pub mod chain;
pub mod connections;
pub mod directory;
pub mod environment;
pub mod error;
pub mod events;
pub mod fleet;
pub mod grid;
pub mod isolation;
pub mod jobs;
pub mod local;
pub mod manifest;
mod modules;
pub mod moves;
pub mod physical;
pub mod place;
pub mod plans;
pub mod program;
pub mod provision;
pub mod roles;
pub mod rollouts;
mod rotate;
pub mod rotation;
pub mod seal;
pub mod services;
pub mod solution;
pub mod standing;
pub mod targets;
pub mod templates;
pub mod tenants;
pub mod vault;
mod worker;

pub use bundle::Bundle;
pub use error::{Error, ErrorKind};
pub use solution::Solution;
