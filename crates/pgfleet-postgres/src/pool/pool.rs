//! A pool of connections to one database as one role.

use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::budget::{Acquired, Answer, Budget, Membership, Slot};
use super::options::PoolOptions;
use super::pooled::{Live, Pooled};
use super::stats::PoolStats;
use super::transaction::{Transaction, TransactionOptions};
use crate::connect::connect_with_guard;
use crate::{Address, Error, ErrorKind, Purpose, retry};

/// First and longest wait before a full server is tried again.
const FULL_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often idle connections are looked at, at most and at least.
const TEND: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Connections to one database as one role; cheap to clone.
#[derive(Clone)]
pub struct Pool(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) membership: Membership,
    pub(super) address: Address,
    pub(super) options: PoolOptions,
    purpose: Purpose,
    budget: Budget,
    /// Whether a task looks after what is open.
    tended: AtomicBool,
    /// Which cluster this is, once somebody asked.
    pub(super) system: OnceLock<u64>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("address", &self.0.address).field("stats", &self.stats()).finish()
    }
}

impl Pool {
    /// Makes a pool; opens nothing yet.
    ///
    /// The purpose's settings are given to each connection at its start, with `statement_timeout` from the options'
    /// `command_timeout`.
    pub fn new(budget: &Budget, address: Address, mut purpose: Purpose, options: PoolOptions) -> Self {
        if let Some(limit) = options.command_timeout
            && !purpose.settings.iter().any(|(name, _)| *name == "statement_timeout")
        {
            purpose = purpose.setting("statement_timeout", limit.as_millis().max(1).to_string());
        }
        let membership = budget.add(options.limits(address.database()));
        Self(Arc::new(Inner {
            membership,
            address,
            options,
            purpose,
            budget: budget.clone(),
            tended: AtomicBool::new(false),
            system: OnceLock::new(),
        }))
    }

    /// Returns where its connections go.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Returns the budget that it shares.
    pub fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Returns how it behaves.
    pub fn options(&self) -> &PoolOptions {
        &self.0.options
    }

    /// Returns what its connections are for, with their settings.
    pub fn purpose(&self) -> &Purpose {
        &self.0.purpose
    }

    /// Returns its state and counts.
    pub fn stats(&self) -> PoolStats {
        self.0.membership.stats()
    }

    /// Takes a connection: an idle one, a new one, or the next that comes back.
    ///
    /// A full server (53300) is tried again. The caller's place is kept for warnings about connections that are held
    /// for long.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] when there is none within `connect_timeout`, and what connecting fails with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives its place in the queue, or the connection that had just come, to the next.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<Pooled, Error>> + Send + use<'_> {
        self.get_for(Location::caller())
    }

    /// Takes a connection for the code at this place.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`].
    pub async fn get_for(&self, place: &'static Location<'static>) -> Result<Pooled, Error> {
        // The usual case has no timer.
        match self.0.membership.acquire(place) {
            Acquired::Ready(resource, lease) => Ok(Pooled::new(self.clone(), Live::of(resource), lease)),
            other => {
                let limit = self.0.options.connect_timeout;
                // Boxed: connecting has a large state, which the usual case should not carry around.
                match tokio::time::timeout(limit, Box::pin(self.take(other, place))).await {
                    Ok(taken) => taken,
                    Err(_) => Err(self.exhausted()),
                }
            }
        }
    }

    /// Opens connections up to the minimum and tries each: for a service that starts.
    ///
    /// # Errors
    ///
    /// What connecting fails with.
    pub async fn warm(&self) -> Result<(), Error> {
        let (_, slots) = self.0.membership.tend(Instant::now());
        self.look_after();
        for slot in slots {
            let live = self.open(slot).await?;
            self.0.membership.park(live);
        }
        Ok(())
    }

    /// Closes what is idle, so that what is taken next is connected anew.
    pub fn flush(&self) {
        self.0.membership.flush();
    }

    /// Takes a connection and begins a transaction.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`].
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<Transaction, Error>> + Send + use<'_> {
        self.begin_for(TransactionOptions::default(), Location::caller())
    }

    /// Takes a connection and begins a transaction of this kind, for the code at this place.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`].
    pub async fn begin_for(
        &self,
        options: TransactionOptions,
        place: &'static Location<'static>,
    ) -> Result<Transaction, Error> {
        self.get_for(place).await?.begin(options).await
    }

    async fn take(&self, mut acquired: Acquired, place: &'static Location<'static>) -> Result<Pooled, Error> {
        let mut tries = 0;
        loop {
            let slot = match acquired {
                Acquired::Ready(resource, lease) => {
                    return Ok(Pooled::new(self.clone(), Live::of(resource), lease));
                }
                Acquired::Open(slot) => slot,
                Acquired::Wait(mut wait) => match wait.turn().await {
                    Answer::Resource(resource) => {
                        let lease = self.0.membership.lease(place, false);
                        return Ok(Pooled::new(self.clone(), Live::of(resource), lease));
                    }
                    Answer::Slot(slot) => slot,
                    Answer::Closed => return Err(self.exhausted()),
                },
            };
            match self.open(slot).await {
                Ok(live) => {
                    self.look_after();
                    let lease = self.0.membership.lease(place, true);
                    return Ok(Pooled::new(self.clone(), live, lease));
                }
                // Others have the server's slots for the moment; ours went back to who may have better luck.
                Err(error) if error.kind() == ErrorKind::Full => {
                    tries += 1;
                    tracing::debug!(server = self.0.budget.name(), tries, "the server is full; trying again");
                    tokio::time::sleep(retry::backoff(tries, FULL_WAIT.0, FULL_WAIT.1)).await;
                }
                Err(error) => return Err(error),
            }
            acquired = self.0.membership.acquire(place);
        }
    }

    async fn open(&self, slot: Slot) -> Result<Box<Live>, Error> {
        let connection = connect_with_guard(&self.0.address, &self.0.purpose, slot).await?;
        Ok(Box::new(Live::new(connection, &self.0.options).await?))
    }

    /// Starts the task that looks after what is open, when it does not run.
    fn look_after(&self) {
        if !self.0.tended.swap(true, Ordering::AcqRel) {
            tokio::spawn(tend(Arc::downgrade(&self.0)));
        }
    }

    #[cold]
    fn exhausted(&self) -> Error {
        self.0.membership.count_timeout();
        let address = &self.0.address;
        Error::with_source(
            ErrorKind::Exhausted,
            format!(
                "no connection to database {} on {} within {} s",
                address.database(),
                address.server(),
                self.0.options.connect_timeout.as_secs_f64()
            ),
            self.0.membership.describe(),
        )
    }
}

/// Looks after a pool as long as it holds something.
async fn tend(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let pool = Pool(strong);
        let (overdue, slots) = pool.0.membership.tend(Instant::now());
        for held in overdue {
            tracing::warn!(
                database = pool.0.address.database(),
                place = %held.place,
                held = held.held.as_secs_f64(),
                "a connection is held for long"
            );
        }
        for slot in slots {
            match pool.open(slot).await {
                Ok(live) => pool.0.membership.park(live),
                Err(error) => {
                    // Whoever needs one is told; this was only to have it ready.
                    tracing::debug!(%error, "no connection could be opened ahead");
                    break;
                }
            }
        }
        let pause = (pool.0.options.idle_timeout / 4).min(pool.0.options.held_warning / 4).clamp(TEND.0, TEND.1);
        let stats = pool.stats();
        if stats.open == 0 && stats.in_use == 0 {
            pool.0.tended.store(false, Ordering::Release);
            // Somebody may have opened one between the look and the store.
            if pool.stats().open == 0 || pool.0.tended.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        drop(pool);
        tokio::time::sleep(pause).await;
    }
}
