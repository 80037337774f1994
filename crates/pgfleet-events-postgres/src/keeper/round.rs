//! One round of the keeper that leads.

use std::time::Instant;

use pgfleet_events::Error;

use super::Shared;
use super::stats::{KeeperStats, add};
use crate::error::failed;
use crate::retention::Run;

/// How many ticks go together into one row, and how many rows are looked at in one step.
const RUN: i32 = 1_000;
const ROWS: i32 = 5_000;

/// How many rows of ticks are looked at in one step whether anything of them is left.
const LOOKED: i32 = 1_000;

/// How much the cleaning of queues removes in one step when there is more.
const CLEANED: i64 = 10_000;

pub(super) struct Round<'a> {
    keeper: &'a Shared,
    epoch: i64,
    /// Whether it led in the round before, too.
    is_first: bool,
    renewed: Instant,
    leads: bool,
}

impl<'a> Round<'a> {
    /// Takes or renews the lease; none while another one leads.
    pub(super) async fn begin(keeper: &'a Shared, led: Option<i64>) -> Result<Option<Self>, Error> {
        let renewed = Instant::now();
        let epoch = lead(keeper).await?;
        if epoch == 0 {
            return Ok(None);
        }
        let is_first = led != Some(epoch);
        if is_first {
            add(&keeper.counters.elected, 1);
            tracing::info!(target: "pgfleet::keeper", keeper = keeper.name, epoch, "this keeper leads");
        }
        add(&keeper.counters.rounds, 1);
        Ok(Some(Self { keeper, epoch, is_first, renewed, leads: true }))
    }

    pub(super) fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    pub(super) async fn work(&mut self) -> Result<(), Error> {
        let before = self.keeper.counters.read();
        // What was done counts, also where something fails behind it.
        let done = self.all().await;
        self.report(before);
        done
    }

    async fn all(&mut self) -> Result<(), Error> {
        self.retain().await?;
        self.clean_queues().await?;
        self.merge_ticks().await
    }

    /// Whether to go on: renews the lease where that is due.
    async fn goes_on(&mut self) -> Result<bool, Error> {
        if self.keeper.is_stopped() {
            return Ok(false);
        }
        if self.leads && self.renewed.elapsed() >= self.keeper.options.lease / 3 {
            let renewed = Instant::now();
            if lead(self.keeper).await? == self.epoch {
                self.renewed = renewed;
            } else {
                self.leads = false;
                add(&self.keeper.counters.fenced, 1);
                tracing::info!(target: "pgfleet::keeper", keeper = self.keeper.name, "another keeper took over");
            }
        }
        Ok(self.leads)
    }

    async fn retain(&mut self) -> Result<(), Error> {
        let (store, counters) = (&self.keeper.store, &self.keeper.counters);
        let mut run = Run::new(store, self.keeper.options.most()).await?;
        let (mut events, mut messages) = (0, 0);
        loop {
            let more = run.step(store).await?;
            add(&counters.events, run.events.events - events);
            add(&counters.messages, run.messages.events - messages);
            (events, messages) = (run.events.events, run.messages.events);
            if !more || !self.goes_on().await? {
                break;
            }
        }
        if events > 0 || self.is_first {
            self.drop_ticks().await?;
        }
        if messages > 0 {
            // What is removed frees its space when the tables are emptied in turn, which nobody else may do for a queue
            // that nobody takes from.
            store.rotate_if_full().await?;
        }
        Ok(())
    }

    /// Removes ids that may come again and dead letters that are old.
    async fn clean_queues(&mut self) -> Result<(), Error> {
        while self.goes_on().await? {
            let cleaned = self.keeper.store.clean_queues().await?;
            add(&self.keeper.counters.expired, cleaned.max(0).unsigned_abs());
            if cleaned < CLEANED {
                break;
            }
        }
        Ok(())
    }

    async fn merge_ticks(&mut self) -> Result<(), Error> {
        let Some(age) = self.keeper.options.merge_ticks else { return Ok(()) };
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let store = &self.keeper.store;
        let sql = format!(
            "SELECT merged, more FROM {}($1::bigint * interval '1 microsecond', $2, $3)",
            store.table("merge_ticks")
        );
        while self.goes_on().await? {
            let db = store.0.connection().await?;
            let row = db.query_one(&sql, &[&age, &RUN, &ROWS]).await;
            let row = row.map_err(|error| failed("ticks could not be put together", error))?;
            add(&self.keeper.counters.merged_ticks, row.get::<_, i64>(0).unsigned_abs());
            if !row.get::<_, bool>(1) {
                break;
            }
        }
        Ok(())
    }

    async fn drop_ticks(&mut self) -> Result<(), Error> {
        let store = &self.keeper.store;
        let sql = format!("SELECT dropped, upto FROM {}($1, $2)", store.table("drop_ticks"));
        let mut after = 0_i64;
        while self.goes_on().await? {
            let db = store.0.connection().await?;
            let row = db.query_one(&sql, &[&after, &LOOKED]).await;
            let row = row.map_err(|error| failed("empty ticks could not be removed", error))?;
            add(&self.keeper.counters.dropped_ticks, row.get::<_, i64>(0).unsigned_abs());
            let Some(upto) = row.get(1) else { break };
            after = upto;
        }
        Ok(())
    }

    fn report(&self, before: KeeperStats) {
        let now = self.keeper.counters.read();
        let what = [
            now.events - before.events,
            now.messages - before.messages,
            now.expired - before.expired,
            now.merged_ticks - before.merged_ticks,
            now.dropped_ticks - before.dropped_ticks,
        ];
        if let [events, messages, expired, merged_ticks, dropped_ticks] = what
            && what.iter().any(|count| *count > 0)
        {
            tracing::info!(target: "pgfleet::keeper", events, messages, expired, merged_ticks, dropped_ticks, "removed what need not be kept");
        }
    }
}

/// Takes or renews the lease; returns its epoch, 0 where another one has it.
async fn lead(keeper: &Shared) -> Result<i64, Error> {
    let sql = format!("SELECT {}($1, $2)", keeper.store.table("keeper_lead"));
    let time = i64::try_from(keeper.options.counts().as_micros()).unwrap_or(i64::MAX);
    let db = keeper.store.0.connection().await?;
    let row = db.query_one(&sql, &[&keeper.name, &time]).await;
    Ok(row.map_err(|error| failed("the lease could not be asked for", error))?.get(0))
}
