//! The worker that carries messages to a broker.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{Error, Transport};
use pgfleet_postgres::pool::{Pool, PoolOptions, Pooled};
use pgfleet_postgres::retry;
use tokio::time::Instant;

use super::ledger::Cursor;
use super::options::RelayOptions;
use super::publish::Outbox;
use super::stats::{Counters, RelayStats, add};
use crate::error::failed;
use crate::outbox::relay::leading::Leading;

mod ahead;
mod lanes;
mod leading;
mod tend;

/// Carries what was published in one database to a broker; cheap to clone.
///
/// Any number may run for one database, in any number of processes: one of them carries, the others wait for it to be
/// silent. Whoever was overtaken, after a pause for instance, changes nothing any more.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    outbox: Outbox,
    pool: Pool,
    transport: Arc<dyn Transport>,
    options: RelayOptions,
    counters: Counters,
}

impl Relay {
    /// A relay for the outbox in a pool's database.
    ///
    /// It opens connections of its own to that database, at most two, out of the same budget: their settings differ.
    pub fn new(outbox: Outbox, pool: &Pool, transport: Arc<dyn Transport>, options: RelayOptions) -> Self {
        // The tables are either empty or full, and statistics are of another moment. A commit that is lost means that its
        // messages are published again.
        let mut purpose = pool.purpose().clone();
        purpose.settings.retain(|(name, _)| *name != "synchronous_commit");
        let purpose = purpose
            .setting("synchronous_commit", "off")
            .setting("jit", "off")
            .setting("enable_seqscan", "off")
            .setting("enable_bitmapscan", "off")
            .setting("plan_cache_mode", "force_generic_plan");
        let own = PoolOptions { max: 2, min: 0, held_warning: Duration::from_hours(24), ..pool.options().clone() };
        let pool = Pool::new(pool.budget(), pool.address().clone(), purpose, own);
        Self(Arc::new(Inner { outbox, pool, transport, options, counters: Counters::default() }))
    }

    /// Returns what it has done.
    pub fn stats(&self) -> RelayStats {
        self.0.counters.read()
    }

    /// Carries until `stop` is ready: then what is being published is ended and another relay can go on at once.
    ///
    /// Errors are logged and tried again, for ever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: what was published and not yet noted is published again by the next relay, after
    /// the lease.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let mut stop = std::pin::pin!(stop);
        // Which one this is, in the cursor's rows.
        let name = uuid::Uuid::now_v7().simple().to_string();
        let mut tries = 0;
        loop {
            let began = Instant::now();
            match self.lead(&name, stop.as_mut()).await {
                Ok(()) => return,
                Err(error) if error.is_fenced() => {
                    add(&self.0.counters.fenced, 1);
                    tracing::info!(target: "pgfleet::outbox", relay = name, "another relay took over");
                    tries = 0;
                }
                Err(error) => {
                    if began.elapsed() > self.0.options.lease {
                        tries = 0;
                    }
                    tries += 1;
                    tracing::warn!(target: "pgfleet::outbox", tries, error = &error as &dyn std::error::Error, "the relay failed; trying again");
                    let pause = retry::backoff(tries, self.0.options.backoff.0, self.0.options.backoff.1);
                    tokio::select! {
                        () = &mut stop => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Waits to be the one that carries, and carries until stopped or overtaken.
    async fn lead(
        &self,
        name: &str,
        mut stop: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<(), Error> {
        // One connection as long as it carries: losing it may mean that the server has forgotten commits and gives numbers of
        // transactions again, so nothing that was read before may count afterwards.
        let Some((cursor, db)) = self.elect(name, stop.as_mut()).await? else { return Ok(()) };
        add(&self.0.counters.elected, 1);
        let mut leading = Leading::new(&self.0, &db, cursor).await?;
        leading.carry(&db, stop).await?;
        leading.resign(&db).await
    }

    /// Waits until nobody else carries, and takes over.
    async fn elect(
        &self,
        name: &str,
        mut stop: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<Option<(Cursor, Pooled)>, Error> {
        let inner = &self.0;
        let sql = &inner.outbox.0.sql;
        loop {
            let wait = {
                let db = inner.pool.get().await.map_err(|error| failed("cannot look at the outbox", error))?;
                let newest = Cursor::newest(&db, sql).await?;
                if newest.free || newest.cursor.holder == name {
                    let mut next = newest.cursor.clone();
                    next.epoch += 1;
                    name.clone_into(&mut next.holder);
                    match newest.cursor.step(&db, sql, &mut next, inner.options.lease).await {
                        Ok(()) => return Ok(Some((next, db))),
                        Err(error) if error.is_fenced() => continue,
                        Err(error) => return Err(error),
                    }
                }
                newest.remaining
            };
            // A little later, so that who renews in time is not asked in vain; and not all at once.
            let most = inner.options.poll.max(Duration::from_millis(20));
            let wait = retry::between(wait.min(most), (wait + wait / 10).min(most));
            tokio::select! {
                () = &mut stop => return Ok(None),
                () = tokio::time::sleep(wait.max(Duration::from_millis(10))) => {}
            }
        }
    }
}
