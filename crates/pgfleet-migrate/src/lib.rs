//! Plans, applies, reverts and records migrations and seeds in one database.
//!
//! The way of one run ([`run::migrate`]): look at the history without a lock; when something is
//! pending take the lock, read again, check every pending file, apply, seed, flush. What is kept
//! true at every step:
//!
//! * nothing that was read before the lock decides what is applied;
//! * a migration and its history row are one transaction: after any crash the next run goes on
//!   behind the last committed one;
//! * the lock is held by the very connection that migrates, so a lost lock is a lost migration;
//! * before anything is said outside the database, what was committed is on its disk.
//!
//! This crate knows nothing of manifests, tenants or the control database, and it prints nothing:
//! progress goes to an [`event::Observer`].

pub mod announce;
pub mod code;
pub mod db;
pub mod error;
pub mod event;
pub mod failure;
pub mod guest;
pub mod history;
mod live;
mod locate;
mod lock;
mod message;
mod no_transaction;
pub mod options;
pub mod path;
pub mod plan;
pub mod repair;
pub mod report;
pub mod revert;
pub mod run;
pub mod schema;
pub mod seed;
pub mod set;
pub mod step_error;
mod store;
pub mod target;
mod unit;
mod work;
pub mod worker;

pub use error::{Error, ErrorKind, ErrorRecord};
pub use event::{Event, Observer};
pub use options::Options;
pub use path::SetPath;
pub use plan::{Plan, State};
pub use report::{Outcome, Report};
pub use seed::Seeds;
pub use set::Set;
pub use step_error::StepError;
pub use target::Target;
