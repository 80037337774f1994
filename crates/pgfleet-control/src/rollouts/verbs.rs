//! Pausing, going on, trying again, ending.

use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_postgres::Type;

use super::begin::{Ask, adjust};
use super::read::{Rollout, find};
use super::{RolloutState, failed};
use crate::bundle::Bundle;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::plans::Plans;
use crate::solution::Solution;

impl Solution {
    /// Pauses a rollout: what runs is finished, nothing more is taken.
    ///
    /// # Errors
    ///
    /// There is no such rollout, or it is over. That it is paused already is none.
    pub async fn pause_rollout(&self, id: i64) -> Result<Rollout, Error> {
        let who = &self.options().who;
        let reason = format!("paused by {} on {}", who.user, who.host);
        let sql = "UPDATE control.rollouts SET state = 'paused', reason = $2 WHERE id = $1 AND state = 'running'";
        self.change(id, "pause", async |catalogue, rollout| match rollout.state {
            RolloutState::Running => execute(catalogue, sql, &[(&id, Type::INT8), (&reason, Type::TEXT)]).await,
            RolloutState::Paused => Ok(0),
            state => Err(refused("pause", id, state)),
        })
        .await
    }

    /// Ends a rollout: what runs is finished, what waits is left as it is for ever.
    ///
    /// # Errors
    ///
    /// There is no such rollout, or it is done. That it is cancelled already is none.
    pub async fn cancel_rollout(&self, id: i64) -> Result<Rollout, Error> {
        let who = &self.options().who;
        let reason = format!("cancelled by {} on {}", who.user, who.host);
        self.change(id, "cancel", async |catalogue, rollout| match rollout.state {
            RolloutState::Cancelled => Ok(0),
            RolloutState::Done => Err(refused("cancel", id, RolloutState::Done)),
            _ => {
                let sql = "UPDATE control.rollouts SET state = 'cancelled', reason = $2, ended_at = clock_timestamp() \
                           WHERE id = $1";
                execute(catalogue, sql, &[(&id, Type::INT8), (&reason, Type::TEXT)]).await?;
                let sql = "UPDATE control.rollout_targets SET state = 'skipped', error = coalesce(error, 'cancelled') \
                           WHERE rollout = $1 AND state = 'waiting'";
                execute(catalogue, sql, &[(&id, Type::INT8)]).await
            }
        })
        .await
    }

    /// Has a rollout go on that is paused or halted, and returns what targets are brought to; failures so
    /// far halt it no more.
    ///
    /// # Errors
    ///
    /// There is no such rollout, it is over, or the files here are not those that it began with.
    pub async fn resume_rollout(&mut self, id: i64, ask: &Ask, observer: &Arc<dyn Observer>) -> Result<Plans, Error> {
        let rollout = self.rollout(id).await?;
        if rollout.state.is_over() {
            return Err(refused("resume", id, rollout.state));
        }
        let plans = self.plans_of(&rollout, ask, observer).await?;
        self.change(id, "resume", async |catalogue, rollout| {
            adjust(catalogue, id, ask).await?;
            match rollout.state {
                RolloutState::Running => Ok(0),
                state if state.is_over() => Err(refused("resume", id, state)),
                _ => {
                    let sql = "UPDATE control.rollouts r SET state = 'running', reason = NULL, forgiven = (SELECT count(*) \
                               FROM control.rollout_targets t WHERE t.rollout = r.id AND t.state = 'failed') WHERE id = $1";
                    execute(catalogue, sql, &[(&id, Type::INT8)]).await
                }
            }
        })
        .await?;
        Ok(plans)
    }

    /// Has a rollout take those targets again that failed, and go on.
    ///
    /// # Errors
    ///
    /// There is no such rollout, it was cancelled, nothing failed, another one is not finished, or the
    /// files here are not those that it began with.
    pub async fn retry_rollout(&mut self, id: i64, ask: &Ask, observer: &Arc<dyn Observer>) -> Result<Plans, Error> {
        let rollout = self.rollout(id).await?;
        if rollout.state == RolloutState::Cancelled {
            return Err(refused("retry", id, rollout.state));
        }
        if rollout.counts.failed == 0 {
            return Err(Error::new(ErrorKind::Failed, format!("nothing of rollout {id} failed"))
                .hinted(format!("see it: pgfleet rollout show {id}")));
        }
        let plans = self.plans_of(&rollout, ask, observer).await?;
        self.change(id, "retry", async |catalogue, rollout| {
            if rollout.state == RolloutState::Cancelled {
                return Err(refused("retry", id, rollout.state));
            }
            adjust(catalogue, id, ask).await?;
            let sql = "UPDATE control.rollout_targets SET state = 'waiting', ended_at = NULL \
                       WHERE rollout = $1 AND state = 'failed'";
            execute(catalogue, sql, &[(&id, Type::INT8)]).await?;
            let sql = "UPDATE control.rollouts r SET state = 'running', reason = NULL, forgiven = 0, ended_at = NULL \
                       WHERE id = $1 AND NOT EXISTS (SELECT FROM control.rollouts o WHERE o.id <> r.id \
                         AND o.state IN ('planned', 'running', 'paused', 'halted'))";
            match execute(catalogue, sql, &[(&id, Type::INT8)]).await? {
                0 => Err(Error::new(
                    ErrorKind::Failed,
                    format!("cannot retry rollout {id}: another one is not finished"),
                )
                .hinted("see which: pgfleet rollout list")),
                changed => Ok(changed),
            }
        })
        .await?;
        Ok(plans)
    }

    /// Reads the plans of a rollout from the bundle that it began with, or from the files here.
    async fn plans_of(&mut self, rollout: &Rollout, ask: &Ask, observer: &Arc<dyn Observer>) -> Result<Plans, Error> {
        let id = rollout.id;
        self.use_bundle_of(id).await?;
        let names: Vec<String> = rollout.what.revert.iter().map(|revert| revert.service.clone()).collect();
        let plans = self.plans(&names, observer).await?;
        if let Some(error) = plans.refusal() {
            return Err(Error::of_program(format!("cannot go on with rollout {id}"), &error));
        }
        let differs: Vec<&str> = rollout
            .what
            .prints
            .iter()
            .filter(|(service, print)| plans.get(service).is_none_or(|plan| plan.print != **print))
            .map(|(service, _)| service.as_str())
            .collect();
        if !differs.is_empty() {
            return Err(Error::new(ErrorKind::Failed, format!("cannot go on with rollout {id}"))
                .cause(format!("the files here are not those that it began with: {}", differs.join(", ")))
                .hinted(format!(
                    "go on with the same files; or end it with `pgfleet rollout cancel {id}` and begin with these: \
                     pgfleet migrate"
                )));
        }
        let missing: Vec<&str> = rollout
            .what
            .properties
            .iter()
            .filter(|name| !ask.properties.contains_key(*name))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return Err(Error::new(ErrorKind::Configuration, format!("cannot go on with rollout {id}"))
                .cause(format!("it began with --property {}", missing.join(", ")))
                .hinted("give the same properties"));
        }
        Ok(plans)
    }

    /// Takes the sets from the bundle that a rollout began with, if it did.
    async fn use_bundle_of(&mut self, id: i64) -> Result<(), Error> {
        let catalogue = self.tenant_catalogue().await?;
        let sql = "SELECT bundle FROM control.rollouts WHERE id = $1 AND bundle IS NOT NULL";
        let rows = catalogue.connection().query(sql, &[(&id, Type::INT8)]).await.map_err(|error| failed(&error));
        catalogue.close().await;
        match rows?.first() {
            Some(row) if self.used_bundle().is_none() => self.use_bundle(Bundle::read(row.get(0))?),
            _ => Ok(()),
        }
    }

    /// Changes a rollout under its row's lock, and writes that into the audit when something changed.
    async fn change(
        &self,
        id: i64,
        verb: &str,
        change: impl AsyncFnOnce(&Catalogue, &Rollout) -> Result<u64, Error>,
    ) -> Result<Rollout, Error> {
        let catalogue = self.tenant_catalogue().await?;
        catalogue.begin().await?;
        let work = async {
            let lock = "SELECT FROM control.rollouts WHERE id = $1 FOR UPDATE";
            catalogue.connection().query(lock, &[(&id, Type::INT8)]).await.map_err(|error| failed(&error))?;
            let rollout = find(&catalogue, id).await?;
            if change(&catalogue, &rollout).await? > 0 {
                let detail = serde_json::json!({ "was": rollout.state });
                catalogue.audit(&format!("rollout {verb}"), &id.to_string(), &detail, self.options()).await?;
            }
            find(&catalogue, id).await
        };
        let result = work.await;
        let ended = catalogue.end(result).await;
        catalogue.close().await;
        ended
    }
}

fn refused(verb: &str, id: i64, state: RolloutState) -> Error {
    let error = Error::new(ErrorKind::Failed, format!("cannot {verb} rollout {id}: it is {}", state.word()));
    match state {
        RolloutState::Done | RolloutState::Cancelled => error.hinted("begin another one: pgfleet migrate"),
        _ => error.hinted(format!("go on with it: pgfleet rollout resume {id}")),
    }
}

async fn execute(
    catalogue: &Catalogue,
    sql: &str,
    values: &[(&(dyn pgfleet_postgres::ToSql + Sync), Type)],
) -> Result<u64, Error> {
    catalogue.connection().execute(sql, values).await.map_err(|error| failed(&error))
}
