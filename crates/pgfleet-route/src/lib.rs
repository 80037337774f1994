//! Where a connection goes: the names of connections, the strings of tenants, and the rules between them.
//!
//! A [`Router`] has a service's main database, the connection names that are mapped to it or to other services'
//! databases, and the tenants with databases of their own. The current [`Scope`] says for whom a task works; the router
//! decides by the [`Rules`] and hands out connections: a [`Writer`] or a [`Tx`] on the primary, a [`Reader`] on a
//! replica that is near enough, or has seen what the caller's [`Session`] wrote. All pools of a server share one budget.

mod directory;
mod error;
mod keys;
mod place;
mod reader;
mod replica;
mod router;
mod rules;
mod scope;
mod tenants;
mod writer;

pub use directory::{DirectoryOptions, Opener};
pub use error::Error;
pub use keys::{Keys, key_id};
pub use place::{Endpoints, Place, Ready, Standing};
pub use reader::Reader;
pub use replica::{ReplicaOptions, ReplicaStatus};
pub use router::{Options, Other, Router};
pub use rules::{Explanation, Outcome, Resolution, Rule, RuleError, Rules, Step, Strings};
pub use scope::{Scope, Session};
pub use tenants::{Tenant, Tenants};
pub use writer::{Tx, Writer};
