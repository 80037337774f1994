//! One database as one role, with its pools and the replicas it can be read on.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Error as PgError, Purpose};

use crate::error::Error;
use crate::replica::Replica;

/// For how long the answer that a database is behind is given again without looking.
const BEHIND_AGAIN: Duration = Duration::from_secs(1);

/// Where a database is written, and where it can be read.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// The primary; it may name several hosts, of which the one that takes writes is used.
    pub writer: Address,
    /// Replicas.
    pub readers: Vec<Address>,
}

impl From<Address> for Endpoints {
    fn from(writer: Address) -> Self {
        Self { writer, readers: Vec::new() }
    }
}

/// Says whether a tenant's database has what the service needs.
pub trait Ready: Send + Sync {
    /// Looks at a database.
    fn look<'a>(&'a self, address: &'a Address)
    -> Pin<Box<dyn Future<Output = Result<Standing, PgError>> + Send + 'a>>;
}

/// Where a database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has what is needed.
    Ready,
    /// It is behind.
    Behind {
        /// The version that it is at.
        have: String,
        /// The version that is needed.
        need: String,
    },
}

/// How the pools of a place are made.
pub(crate) struct Making {
    pub(crate) purpose: Purpose,
    pub(crate) options: PoolOptions,
    pub(crate) budget: Budget,
}

/// One database as one role; its pools are made when they are first used.
pub struct Place {
    pub(crate) writer: Address,
    pub(crate) readers: Vec<(Arc<Replica>, Address)>,
    pub(crate) making: Making,
    writes: OnceLock<Pool>,
    /// Reads on the primary, in sessions that only read.
    reads: OnceLock<Pool>,
    replicas: Vec<OnceLock<Pool>>,
    /// Whether it was seen to have what the service needs.
    ready: AtomicBool,
    behind: tokio::sync::Mutex<Option<(Instant, String, String)>>,
    /// What somebody else keeps per place: the pools of another client library.
    kept: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({})", self.writer)
    }
}

impl Place {
    pub(crate) fn new(writer: Address, readers: Vec<(Arc<Replica>, Address)>, making: Making) -> Self {
        let replicas = readers.iter().map(|_| OnceLock::new()).collect();
        Self {
            writer,
            readers,
            making,
            writes: OnceLock::new(),
            reads: OnceLock::new(),
            replicas,
            ready: AtomicBool::new(false),
            behind: tokio::sync::Mutex::new(None),
            kept: Mutex::default(),
        }
    }

    /// Returns where it is written.
    pub fn address(&self) -> &Address {
        &self.writer
    }

    /// Returns whether it can be read elsewhere than where it is written.
    pub fn has_replicas(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Returns the pool of connections that write.
    pub fn pool(&self) -> &Pool {
        self.writes.get_or_init(|| {
            let Making { purpose, options, budget } = &self.making;
            Pool::new(budget, self.writer.clone(), purpose.clone(), options.clone())
        })
    }

    /// Returns how its pools behave, and the budget that they share: for the pool of another client library.
    pub fn pooling(&self) -> (&PoolOptions, &Budget, &Purpose) {
        (&self.making.options, &self.making.budget, &self.making.purpose)
    }

    /// Returns what is kept here of a type; made when it is not there yet.
    pub fn keep<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = kept.get(&TypeId::of::<T>()).cloned().and_then(|there| there.downcast().ok()) {
            return there;
        }
        let new = Arc::new(make());
        kept.insert(TypeId::of::<T>(), new.clone());
        new
    }

    /// Returns the pool of connections to the primary that only read.
    pub fn reading_pool(&self) -> &Pool {
        self.reads.get_or_init(|| self.reading(&self.making.budget, &self.writer))
    }

    /// Returns the pool of connections to one of the replicas.
    pub(crate) fn replica_pool(&self, at: usize) -> &Pool {
        let (replica, address) = &self.readers[at];
        self.replicas[at].get_or_init(|| self.reading(replica.budget(), address))
    }

    fn reading(&self, budget: &Budget, address: &Address) -> Pool {
        let purpose = self.making.purpose.clone().setting("default_transaction_read_only", "on");
        Pool::new(budget, address.clone(), purpose, PoolOptions { min: 0, ..self.making.options.clone() })
    }

    /// Returns when the database has what is needed; looks once, and then again only while it has not.
    pub(crate) async fn until_ready(&self, tenant: &str, ready: &dyn Ready) -> Result<(), Error> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        // One looks, the others wait for what it finds.
        let mut behind = self.behind.lock().await;
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let not_ready = |have: &str, need: &str| Error::TenantNotReady {
            tenant: tenant.to_owned(),
            have: have.to_owned(),
            need: need.to_owned(),
        };
        if let Some((seen, have, need)) = &*behind
            && seen.elapsed() < BEHIND_AGAIN
        {
            return Err(not_ready(have, need));
        }
        match ready.look(&self.writer).await? {
            Standing::Ready => {
                self.ready.store(true, Ordering::Release);
                Ok(())
            }
            Standing::Behind { have, need } => {
                let error = not_ready(&have, &need);
                *behind = Some((Instant::now(), have, need));
                Err(error)
            }
        }
    }
}
