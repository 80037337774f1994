//! Projections: tables that are made of events, with how far they were made in the same transaction.
//!
//! What a handler writes and the offset behind it are committed together, so each event counts once, whatever crashes. The
//! lease on the group's part is the fence: who lost it cannot commit, and with his offset his rows are gone, too.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{ConsumerStore as _, Error, Event, Filter, Lease, Position, StreamStore as _};
use pgfleet_postgres::pool::{Pool, Transaction};
use pgfleet_postgres::retry;
use tokio::sync::Notify;

use crate::error::failed;
use crate::store::Store;

/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What a handler returns.
pub type Handled<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Makes rows of events.
pub trait Project: Send + Sync {
    /// Handles events, in order, within the transaction that stores how far they were handled.
    fn events<'a>(&'a self, transaction: &'a Transaction, events: &'a [Event]) -> Handled<'a>;

    /// Empties what was made, within a transaction, before it is made anew.
    fn clear<'a>(&'a self, transaction: &'a Transaction) -> Handled<'a>;
}

/// A projection: a group of one part whose offset is stored with its rows.
///
/// The rows must be in the database of the store.
pub struct Projection {
    store: Store,
    group: Arc<str>,
    member: Arc<str>,
    filter: Filter,
    project: Arc<dyn Project>,
    lease_time: Duration,
    /// It was emptied here: who keeps it up need not wait for new events to see that.
    rebuilt: Notify,
}

impl fmt::Debug for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection").field("group", &self.group).field("member", &self.member).finish_non_exhaustive()
    }
}

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How many events were handled.
    pub events: usize,
    /// How far the projection is.
    pub position: Position,
    /// Whether there was nothing behind it.
    pub at_end: bool,
}

impl Projection {
    /// Makes a projection under a name, for a member of those who may keep it up: one at a time does.
    pub fn new(
        store: Store,
        name: impl Into<Arc<str>>,
        member: impl Into<Arc<str>>,
        filter: Filter,
        project: Arc<dyn Project>,
    ) -> Self {
        let lease_time = Duration::from_secs(30);
        Self { store, group: name.into(), member: member.into(), filter, project, lease_time, rebuilt: Notify::new() }
    }

    fn pool(&self) -> &Pool {
        &self.store.0.pool
    }

    /// Takes or renews the lease; none while somebody else has it.
    ///
    /// # Errors
    ///
    /// As [`ConsumerStore::lease`](pgfleet_events::ConsumerStore::lease).
    pub async fn lease(&self) -> Result<Option<Lease>, Error> {
        let leases = self.store.lease(&self.group, &self.member, 1, Position::START, self.lease_time).await?;
        Ok(leases.into_iter().next())
    }

    /// Handles the next events behind the lease's position, and moves that.
    ///
    /// # Errors
    ///
    /// The handler's, and [`Fenced`](pgfleet_events::ErrorKind::Fenced) when the lease was given to somebody else: nothing
    /// was written then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the step was done; its rows and its offset are there together or not at all.
    pub async fn step(&self, lease: &mut Lease) -> Result<Step, Error> {
        let page = self.store.read_all(lease.position, self.store.0.options.read_batch, &self.filter).await?;
        if page.next != lease.position {
            let doing = |error| failed(format!("projection {} could not be kept up", self.group), error);
            let transaction = self.pool().begin().await.map_err(doing)?;
            // First, so that whoever was fenced does no work, and whoever takes over waits for the end of this.
            self.store.commit_in(&transaction, lease, page.next).await?;
            if !page.events.is_empty() {
                self.project.events(&transaction, &page.events).await?;
            }
            transaction.commit().await.map_err(doing)?;
            lease.position = page.next;
        }
        Ok(Step { events: page.events.len(), position: page.next, at_end: page.at_end })
    }

    /// Empties the projection and sets it to the start, in one transaction; leases on it end.
    ///
    /// Where this one is [run](Self::run) it is made anew at once, elsewhere when the lease is renewed.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub async fn rebuild(&self) -> Result<(), Error> {
        // There is a group to be set, also where nothing was ever projected.
        self.lease().await?;
        let doing = |error| failed(format!("projection {} could not be emptied", self.group), error);
        let transaction = self.pool().begin().await.map_err(doing)?;
        transaction.query(&self.store.0.consumers.reset, &[&&*self.group, &0_i64, &0_i64]).await.map_err(doing)?;
        self.project.clear(&transaction).await?;
        transaction.commit().await.map_err(doing)?;
        self.rebuilt.notify_one();
        Ok(())
    }

    /// Keeps it up for as long as the future is polled; waits where there is nothing to do, or somebody else does it.
    ///
    /// Failures that may pass, of the handler, too, are logged and tried again, without end.
    ///
    /// # Errors
    ///
    /// What trying again does not help.
    ///
    /// # Cancel safety
    ///
    /// As [`step`](Self::step).
    pub async fn run(&self) -> Result<(), Error> {
        let mut failures = 0;
        loop {
            let error = match self.keep_up(&mut failures).await {
                Err(error) if error.is_retryable() => error,
                ended => return ended,
            };
            failures += 1;
            tracing::warn!(
                target: "pgfleet::projection",
                projection = &*self.group,
                failures,
                error = &error as &dyn std::error::Error,
                "it is not kept up; trying again"
            );
            tokio::time::sleep(retry::backoff(failures, AGAIN.0, AGAIN.1)).await;
        }
    }

    /// Keeps it up until something fails; what was done since the failure before ends the count of those.
    async fn keep_up(&self, failures: &mut u32) -> Result<(), Error> {
        loop {
            let Some(mut lease) = self.lease().await? else {
                tokio::time::sleep(self.lease_time / 3).await;
                continue;
            };
            let mut renew = std::time::Instant::now() + self.lease_time / 3;
            loop {
                let step = match self.step(&mut lease).await {
                    Ok(step) => step,
                    Err(error) if error.is_fenced() => break,
                    Err(error) => return Err(error),
                };
                *failures = 0;
                if step.at_end {
                    tokio::select! {
                        waited = self.store.wait(step.position, self.lease_time / 3) => waited?,
                        () = self.rebuilt.notified() => renew = std::time::Instant::now(),
                    }
                }
                if std::time::Instant::now() >= renew {
                    match self.lease().await? {
                        // Reset by somebody: what is stored counts.
                        Some(renewed) => lease = renewed,
                        None => break,
                    }
                    renew = std::time::Instant::now() + self.lease_time / 3;
                }
            }
        }
    }
}
