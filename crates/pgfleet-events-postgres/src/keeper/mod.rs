//! The keeper: what is done for a store by itself, by one process at a time.
//!
//! It removes what goes beyond the limits of retention, of streams and of queues; ids of messages and dead letters whose
//! time is over; and it puts ticks of long ago together. In rounds, each in steps of which none takes long.
//!
//! Any number may be started, in any number of processes. One of them leads, by a lease in a row of the database
//! (`keepers`) that has the database's clock. It is not a session's lock: behind a pooler in transaction mode that would
//! belong to whoever is given the session next, a cut of the network would keep it for as long as the server takes to see
//! it, and a connection would have to stay open for it. Losing the connection loses nothing here: who leads goes on with
//! another one.
//!
//! The lease is there so that work is done once. Nothing depends on it: what a step does is decided by what is in the
//! tables, in one transaction, so a keeper that was asleep for an hour in the middle of a step, and two that believe to
//! lead, do no harm. A step is shorter than the lease, which is renewed between steps.
//!
//! Who does not lead asks once in a round, and writes nothing. Without the keeper all works as before; tables grow.

mod options;
mod round;
mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgfleet_events::Error;
use pgfleet_postgres::pool::{Pool, PoolOptions};
use pgfleet_postgres::retry;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use self::options::KeeperOptions;
use self::round::Round;
pub use self::stats::KeeperStats;
use self::stats::{Counters, add};
use crate::error::failed;
use crate::store::{Options, Store};

/// A keeper that is at work until it is stopped or dropped.
///
/// Dropping it ends it at once, as if its process were killed: what it was at is rolled back, and another keeper leads when
/// the lease is over. [`stop`](Self::stop) lets another one go on at once.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// What the handle and the task have in common.
#[derive(Debug)]
struct Shared {
    /// Connections of its own, at most one, whose statements end soon.
    store: Store,
    options: KeeperOptions,
    /// Who it is, in the row of the lease.
    name: String,
    counters: Counters,
    stopped: AtomicBool,
    stop: Notify,
}

impl Store {
    /// Starts a keeper for the store: see [`Keeper`]. To be called within a runtime.
    ///
    /// It has a connection of its own while it is at work, out of the budget of the store's pool.
    pub fn keep(&self, options: KeeperOptions) -> Keeper {
        let (of_store, limit) = (&self.0.pool, options.step_limit());
        let mut purpose = of_store.purpose().clone();
        purpose.settings.retain(|(name, _)| !["statement_timeout", "lock_timeout"].contains(name));
        // The functions have time-outs for locks of their own, for poolers that take no settings.
        let purpose = purpose.setting("lock_timeout", "2s").setting("jit", "off");
        let own = PoolOptions {
            max: 1,
            min: 0,
            command_timeout: Some(limit),
            connect_timeout: of_store.options().connect_timeout.min(limit),
            ..of_store.options().clone()
        };
        let pool = Pool::new(of_store.budget(), of_store.address().clone(), purpose, own);
        let store = Store::new(pool, Options::clone(&self.0.options));
        let shared = Arc::new(Shared {
            store,
            options,
            name: uuid::Uuid::now_v7().simple().to_string(),
            counters: Counters::default(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
        });
        let task = tokio::spawn(Arc::clone(&shared).run());
        Keeper { shared, task: Some(task) }
    }
}

impl Keeper {
    /// Returns what it has done.
    pub fn stats(&self) -> KeeperStats {
        self.shared.counters.read()
    }

    /// Ends it after the step that it is at, and lets another keeper lead at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends it as dropping the keeper does.
    pub async fn stop(mut self) -> KeeperStats {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.stop.notify_one();
        if let Some(task) = &mut self.task {
            // It was ended before, or has panicked: then there is nothing left to end.
            let _ended = task.await;
        }
        self.stats()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut leading = None;
        let mut failures = 0;
        while !self.is_stopped() {
            match self.round(&mut leading).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    add(&self.counters.failed, 1);
                    tracing::warn!(target: "pgfleet::keeper", failures, error = &error as &dyn std::error::Error, "the tables are not kept in order; trying again");
                }
            }
            tokio::select! {
                biased;
                () = self.stop.notified() => {}
                () = tokio::time::sleep(self.pause(failures)) => {}
            }
        }
        if leading.is_some()
            && let Err(error) = self.resign().await
        {
            tracing::debug!(target: "pgfleet::keeper", %error, "the lease was not given back; it ends by itself");
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The time to the next round: not the same for all, and sooner after something has failed.
    fn pause(&self, failures: u32) -> Duration {
        let interval = self.options.interval;
        if failures > 0 {
            return retry::backoff(failures, interval.min(Duration::from_secs(1)), interval);
        }
        retry::between(interval.mul_f64(0.9), interval.mul_f64(1.1))
    }

    /// Does what there is to do, if this is the one who leads.
    async fn round(&self, leading: &mut Option<i64>) -> Result<(), Error> {
        let Some(mut round) = Round::begin(self, leading.take()).await? else {
            add(&self.counters.looked, 1);
            return Ok(());
        };
        *leading = Some(round.epoch());
        let done = round.work().await;
        if !round.leads() {
            *leading = None;
        }
        done
    }

    async fn resign(&self) -> Result<(), Error> {
        let sql = format!("SELECT {}($1)", self.store.table("keeper_resign"));
        let db = self.store.0.connection().await?;
        db.query_one(&sql, &[&self.name]).await.map_err(|error| failed("the lease could not be given back", error))?;
        Ok(())
    }
}
