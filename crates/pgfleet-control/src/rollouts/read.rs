//! What the rows of rollouts say.

use pgfleet_postgres::Type;
use serde::Serialize;

use super::{RolloutState, What, failed};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::solution::Solution;
use crate::worker::alive_sql;

/// How many failed targets are shown in full.
const SHOWN: i64 = 100;

/// A rollout as the control database has it.
#[derive(Debug, Clone, Serialize)]
pub struct Rollout {
    /// Its number.
    pub id: i64,
    /// Its state.
    pub state: RolloutState,
    /// Why it is in that state, when somebody or something stopped it.
    pub reason: Option<String>,
    /// What it does.
    pub what: What,
    /// The wave that runs; those below it are over.
    pub wave: i32,
    /// The last wave there is so far.
    pub last_wave: i32,
    /// How many databases of one server are worked on at a time.
    pub concurrency: i32,
    /// How many tenants were in the first wave.
    pub canary: i32,
    /// It halts when more than this failed.
    pub max_failures: i32,
    /// Its targets.
    pub counts: Counts,
    /// Who works on it now.
    pub workers: Vec<RolloutWorker>,
    /// Who began it.
    pub os_user: String,
    /// On which machine.
    pub host: String,
    /// When it was made, in UTC.
    pub created_at: String,
    /// When it ended, in UTC.
    pub ended_at: Option<String>,
    /// Seconds from its beginning to its end, or to now.
    pub seconds: f64,
    /// What it was made from.
    #[serde(skip)]
    pub plan: String,
}

/// A rollout's targets by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Nobody has begun.
    pub waiting: i64,
    /// Somebody is at it.
    pub running: i64,
    /// All went well.
    pub done: i64,
    /// Something of it failed.
    pub failed: i64,
    /// There was nothing to do any more.
    pub skipped: i64,
}

impl Counts {
    /// Returns how many there are in all.
    pub fn total(&self) -> i64 {
        self.waiting + self.running + self.ended()
    }

    /// Returns how many are over.
    pub fn ended(&self) -> i64 {
        self.done + self.failed + self.skipped
    }

    pub(super) fn add(&mut self, state: &str, number: i64) {
        match state {
            "waiting" => self.waiting += number,
            "running" => self.running += number,
            "done" => self.done += number,
            "failed" => self.failed += number,
            _ => self.skipped += number,
        }
    }
}

/// A process that works on a rollout.
#[derive(Debug, Clone, Serialize)]
pub struct RolloutWorker {
    /// Whose it is.
    pub os_user: String,
    /// Its machine.
    pub host: String,
    /// Since when, in UTC.
    pub since: String,
}

/// A target that failed.
#[derive(Debug, Clone, Serialize)]
pub struct FailedTarget {
    /// What it is: host, template or tenant.
    pub kind: String,
    /// The server.
    pub server: String,
    /// The database.
    pub database: String,
    /// The tenant; empty for a host.
    pub tenant: String,
    /// Its wave.
    pub wave: i32,
    /// How often it was begun.
    pub attempts: i32,
    /// Why it failed.
    pub error: String,
}

impl Solution {
    /// Lists rollouts, the newest first.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or cannot be read.
    pub async fn rollouts(&self) -> Result<Vec<Rollout>, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let found = read(&catalogue, "true", &[]).await;
        catalogue.close().await;
        found
    }

    /// Returns a rollout.
    ///
    /// # Errors
    ///
    /// There is none of that number; and as [`rollouts`](Self::rollouts).
    pub async fn rollout(&self, id: i64) -> Result<Rollout, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let found = find(&catalogue, id).await;
        catalogue.close().await;
        found
    }

    /// Lists targets of a rollout that failed, the first hundred.
    ///
    /// # Errors
    ///
    /// As [`rollouts`](Self::rollouts).
    pub async fn failed_targets(&self, id: i64) -> Result<Vec<FailedTarget>, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let rows = catalogue
            .connection()
            .query(
                "SELECT kind, server, database, tenant, wave, attempts, coalesce(error, '') \
                 FROM control.rollout_targets WHERE rollout = $1 AND state = 'failed' ORDER BY position LIMIT $2",
                &[(&id, Type::INT8), (&SHOWN, Type::INT8)],
            )
            .await
            .map_err(|error| failed(&error));
        catalogue.close().await;
        let mut targets = Vec::new();
        for row in rows? {
            targets.push(FailedTarget {
                kind: row.get(0),
                server: row.get(1),
                database: row.get(2),
                tenant: row.get(3),
                wave: row.get(4),
                attempts: row.get(5),
                error: row.get(6),
            });
        }
        Ok(targets)
    }
}

/// Returns a rollout.
pub(super) async fn find(catalogue: &Catalogue, id: i64) -> Result<Rollout, Error> {
    let found = read(catalogue, "r.id = $1", &[(&id, Type::INT8)]).await?;
    found.into_iter().next().ok_or_else(|| {
        Error::new(ErrorKind::Configuration, format!("there is no rollout {id}"))
            .hinted("see which there are: pgfleet rollout list")
    })
}

/// Returns the rollout that is not over, if there is one.
pub(super) async fn unfinished(catalogue: &Catalogue) -> Result<Option<Rollout>, Error> {
    let found = read(catalogue, "r.state IN ('planned', 'running', 'paused', 'halted')", &[]).await?;
    Ok(found.into_iter().next())
}

/// Reads the rollouts for which a condition holds.
async fn read(
    catalogue: &Catalogue,
    condition: &str,
    values: &[(&(dyn pgfleet_postgres::ToSql + Sync), Type)],
) -> Result<Vec<Rollout>, Error> {
    let utc = |column: &str| format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
    let sql = format!(
        "SELECT r.id, r.plan, r.what::text, r.state, r.reason, r.wave, r.concurrency, r.canary, r.max_failures, \
         r.os_user, r.host, {}, {}, \
         extract(epoch FROM coalesce(r.ended_at, clock_timestamp()) - r.created_at)::double precision, \
         t.last_wave, t.waiting, t.running, t.done, t.failed, t.skipped, w.users, w.hosts, w.since \
         FROM control.rollouts r CROSS JOIN LATERAL (SELECT coalesce(max(wave), 0) AS last_wave, \
           count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'running') AS running, \
           count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'failed') AS failed, \
           count(*) FILTER (WHERE state = 'skipped') AS skipped \
           FROM control.rollout_targets t WHERE t.rollout = r.id) t \
         CROSS JOIN LATERAL (SELECT coalesce(array_agg(w.os_user ORDER BY w.since), '{{}}') AS users, \
           coalesce(array_agg(w.host ORDER BY w.since), '{{}}') AS hosts, \
           coalesce(array_agg({} ORDER BY w.since), '{{}}') AS since \
           FROM control.rollout_workers w WHERE w.rollout = r.id AND w.worker IN ({})) w \
         WHERE {condition} ORDER BY r.id DESC",
        utc("r.created_at"),
        utc("r.ended_at"),
        utc("w.since"),
        alive_sql(),
    );
    let rows = catalogue.connection().query(&sql, values).await.map_err(|error| failed(&error))?;
    let mut rollouts = Vec::with_capacity(rows.len());
    for row in rows {
        let (users, hosts, since): (Vec<String>, Vec<String>, Vec<String>) = (row.get(20), row.get(21), row.get(22));
        let workers = users.into_iter().zip(hosts).zip(since);
        rollouts.push(Rollout {
            id: row.get(0),
            plan: row.get(1),
            what: serde_json::from_str(row.get(2))
                .map_err(|error| Error::new(ErrorKind::Failed, "a rollout cannot be read").cause(error.to_string()))?,
            state: RolloutState::of_word(row.get(3)),
            reason: row.get(4),
            wave: row.get(5),
            concurrency: row.get(6),
            canary: row.get(7),
            max_failures: row.get(8),
            os_user: row.get(9),
            host: row.get(10),
            created_at: row.get(11),
            ended_at: row.get(12),
            seconds: row.get(13),
            last_wave: row.get(14),
            counts: Counts {
                waiting: row.get(15),
                running: row.get(16),
                done: row.get(17),
                failed: row.get(18),
                skipped: row.get(19),
            },
            workers: workers.map(|((os_user, host), since)| RolloutWorker { os_user, host, since }).collect(),
        });
    }
    Ok(rollouts)
}
