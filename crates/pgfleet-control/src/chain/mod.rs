//! How tenants follow their services.
//!
//! A service's own database is migrated, and every tenant with a database of its own has to follow;
//! a tenant is made or given another connection string, and what the string leads to has to be made,
//! migrated and seeded. None of that is asked for by whoever caused it: triggers write a message in the
//! very transaction that does ([`TableTransport`]), and [`Solution::run_chain`](crate::Solution::run_chain)
//! handles the messages, wherever it runs:
//!
//! ```text
//! history row ──► AppliedDatabaseMigrations ──► one ApplyDatabaseMigrations per tenant that is behind
//! tenant row ──► TenantCreated ──► its databases
//! string row ──► TenantConnectionStringUpdated ──► the database, then the hook
//! ```
//!
//! Handling is idempotent: what a handler does is looked for, not remembered. So a message may be
//! handled twice, and one that came too late finds nothing to do.

mod bring;
mod broker;
mod event;
mod failed;
mod handle;
mod hook;
mod look;
mod message;
mod run;
mod table;
mod transport;

pub use broker::BrokerTransport;
pub use event::{ChainEvent, ChainListener};
pub use message::{
    AppliedDatabaseMigrations, ApplyDatabaseMigrations, Draft, FailedMessage, Message, Received,
    TenantConnectionStringUpdated, TenantCreated,
};
pub use run::{ChainOptions, Until};
pub use table::TableTransport;
pub use transport::{Answer, Transport};
