//! Pools of connections that share one budget per server.
//!
//! A [`Pool`] belongs to one database and role, a [`Budget`] to one server. Pools open lazily, keep what is used, close
//! what is idle, and together never hold more than the budget; see [`Budget`] for who gets the next slot.
//!
//! ```no_run
//! # async fn example() -> Result<(), pgfleet_postgres::Error> {
//! use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
//! use pgfleet_postgres::{Address, Purpose};
//!
//! let budget = Budget::new("main", 60);
//! let address = Address::parse("postgresql://app:secret@db.local/trip")?;
//! let pool = Pool::new(&budget, address, Purpose::new("trip"), PoolOptions::default());
//! let db = pool.get().await?;
//! let rows = db.query("SELECT id FROM trips WHERE driver_id = $1", &[&"d_1"]).await?;
//! # Ok(())
//! # }
//! ```

mod budget;
mod foreign;
mod options;
#[expect(clippy::module_inception, reason = "the noun of this folder")]
mod pool;
mod pooled;
mod statements;
mod stats;
mod transaction;

pub use budget::{Budget, Resource, Slot};
pub use foreign::{Foreign, ForeignPool, Lent};
pub use options::{PoolOptions, Statements};
pub use pool::Pool;
pub use pooled::Pooled;
pub use stats::{BudgetStats, Histogram, PoolStats};
pub use transaction::{AfterCommit, Isolation, Transaction, TransactionOptions};
