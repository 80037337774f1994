//! One exchange with the control database: how targets ended, for targets to work on.
//!
//! Two messages in one transaction, under a lock on the rollout's row: so rounds of several workers come
//! one after the other, and what each may take is exact. Between rounds nobody asks the control database
//! anything, and a round carries whatever has gathered.

use std::collections::BTreeMap;
use std::time::Duration;

use pgfleet_migrate::options::Who;
use pgfleet_postgres::Type;

use super::present::Present;
use super::target::Finished;
use super::{Counts, RolloutState, failed};
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::solution::Solution;
use crate::tenants::sharers::Values;
use crate::worker::{self, Worker, alive_sql};

/// A worker's connection to the control database.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) catalogue: Catalogue,
    pub(super) worker: Worker,
    pub(super) rollout: i64,
    pub(super) who: Who,
}

/// What a worker tells, and asks for.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Targets that ended.
    pub(super) finished: Vec<Finished>,
    /// Targets that it took and did not begin.
    pub(super) back: Vec<i32>,
    /// Its part in each server.
    pub(super) servers: BTreeMap<String, Part>,
    /// Whether it takes more.
    pub(super) takes: bool,
    /// Whether it wants to know how many targets are in which state.
    pub(super) counts: bool,
}

/// A worker's part in one server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// How many databases it works on.
    pub(super) executing: u32,
    /// How many it has taken besides.
    pub(super) queued: u32,
    /// How many it would take to have the next ones at hand.
    pub(super) ahead: u32,
    /// The most it works on, whatever its share.
    pub(super) most: u32,
}

/// What a worker hears.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) state: RolloutState,
    pub(super) wave: i32,
    /// Whether nothing is left to take and nothing runs.
    pub(super) over: bool,
    /// How many databases of each server this worker may work on at a time.
    pub(super) slots: BTreeMap<String, u32>,
    /// What it took.
    pub(super) claims: Vec<Claim>,
    /// Servers of which it wanted more than there was.
    pub(super) dry: Vec<String>,
    /// How many workers there are.
    pub(super) workers: usize,
    /// Its targets, and the last wave there is.
    pub(super) counts: Option<(Counts, i32)>,
    /// With the counts, the servers on which something waits.
    pub(super) servers: Vec<String>,
}

/// A target that this worker took.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) position: i32,
    pub(super) kind: String,
    pub(super) server: String,
    pub(super) database: String,
    pub(super) services: Vec<String>,
    /// Whether the tenant has values of its own for seeds.
    pub(super) has_values: bool,
    /// Those values, and those of the tenants that share the database.
    pub(super) values: Values,
}

impl Exchange {
    /// Begins to work on a rollout.
    pub(super) async fn begin(solution: &Solution, rollout: i64) -> Result<Self, Error> {
        let control = &solution.manifest.control;
        let admin = &solution.server(&control.server).admin;
        let purpose = worker::purpose(&format!("pgfleet rollout {rollout}"));
        let catalogue = Catalogue::open_for(admin, &control.database, &purpose).await?;
        let worker = Worker::begin(&catalogue).await?;
        Ok(Self { catalogue, worker, rollout, who: solution.options().who.clone() })
    }

    /// Begins again after the connection was lost, and keeps what it had taken and nobody took from it.
    pub(super) async fn begin_again(&mut self, solution: &Solution, taken: &[i32]) -> Result<(), Error> {
        let next = Self::begin(solution, self.rollout).await?;
        let keep = "UPDATE control.rollout_targets SET worker = $3 \
                    WHERE rollout = $1 AND state = 'running' AND worker = $2 AND position = ANY ($4)";
        next.catalogue
            .connection()
            .execute(
                keep,
                &[
                    (&self.rollout, Type::INT8),
                    (&self.worker.number, Type::INT4),
                    (&next.worker.number, Type::INT4),
                    (&taken, Type::INT4_ARRAY),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        *self = next;
        Ok(())
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Leaves the rollout to others.
    pub(super) async fn end(self) {
        // Without it the row is that of a worker that is dead, which is right, too.
        let _gone = self
            .catalogue
            .connection()
            .execute(
                "DELETE FROM control.rollout_workers WHERE rollout = $1 AND worker = $2",
                &[(&self.rollout, Type::INT8), (&self.worker.number, Type::INT4)],
            )
            .await;
        self.catalogue.close().await;
    }

    /// Tells how targets ended and takes more.
    ///
    /// # Errors
    ///
    /// The control database cannot be written; nothing is told and nothing taken then, or both were and
    /// the answer was lost: telling it again changes nothing.
    pub(super) async fn round(&self, told: &Told) -> Result<Heard, Error> {
        let done = self.exchange(told).await;
        if done.is_err() && !self.catalogue.connection().is_closed() {
            // The error says more than what comes of this.
            let _back = self.catalogue.connection().execute_all("ROLLBACK").await;
        }
        done
    }

    async fn exchange(&self, told: &Told) -> Result<Heard, Error> {
        let present = self.tell(told).await?;
        let (state, wave, reason, over) = present.decide();
        let slots = self.slots(&present, told);
        let changed = state != present.state || wave != present.wave;
        let takes = told.takes && state == RolloutState::Running;
        let wanted = if takes { wanted(told, &slots) } else { Vec::new() };
        let claims = self.take(&wanted, &slots, wave, changed.then_some((state, reason))).await?;
        let brought = |server: &str| claims.iter().any(|claim| claim.server == server);
        let dry =
            wanted.iter().filter(|(server, _)| !brought(server)).map(|(server, _)| (*server).to_owned()).collect();
        let Present { workers, counts, servers, .. } = present;
        Ok(Heard { state, wave, over, dry, claims, slots, workers: workers.len(), counts, servers })
    }

    /// Sends what ended and reads how things are, in one message.
    async fn tell(&self, told: &Told) -> Result<Present, Error> {
        let connection = self.catalogue.connection();
        let rollout = (&self.rollout as &(dyn pgfleet_postgres::ToSql + Sync), Type::INT8);
        let reap = format!(
            "WITH alive (worker) AS MATERIALIZED ({}), gone AS (DELETE FROM control.rollout_workers \
               WHERE rollout = $1 AND worker NOT IN (SELECT worker FROM alive)) \
             UPDATE control.rollout_targets SET state = 'waiting', worker = NULL \
             WHERE rollout = $1 AND state = 'running' AND worker NOT IN (SELECT worker FROM alive)",
            alive_sql()
        );
        let read = "SELECT r.state, r.wave, r.concurrency, r.max_failures::bigint, \
               (SELECT count(*) FROM control.rollout_targets t WHERE t.rollout = r.id AND t.state = 'failed') - r.forgiven, \
               EXISTS (SELECT FROM control.rollout_targets t WHERE t.rollout = r.id AND t.state = 'waiting' \
                 AND t.wave <= r.wave) OR EXISTS (SELECT FROM control.rollout_targets t WHERE t.rollout = r.id \
                 AND t.state = 'running' AND t.wave <= r.wave), \
               (SELECT min(wave) FROM control.rollout_targets t WHERE t.rollout = r.id AND t.state = 'waiting' \
                 AND t.wave > r.wave) \
             FROM control.rollouts r WHERE r.id = $1";
        let counts = async {
            if !told.counts {
                return Ok(None);
            }
            let sql =
                "SELECT state, count(*), max(wave) FROM control.rollout_targets WHERE rollout = $1 GROUP BY state";
            let (mut counts, mut last) = (Counts::default(), 0);
            for row in connection.query(sql, std::slice::from_ref(&rollout)).await? {
                counts.add(row.get(0), row.get(1));
                last = row.get::<_, i32>(2).max(last);
            }
            // A move may have led a target to a server of which nobody knew.
            let sql = "SELECT DISTINCT server FROM control.rollout_targets WHERE rollout = $1 AND state = 'waiting'";
            let rows = connection.query(sql, std::slice::from_ref(&rollout)).await?;
            Ok(Some((counts, last, rows.iter().map(|row| row.get(0)).collect::<Vec<String>>())))
        };
        let lock = "SELECT FROM control.rollouts WHERE id = $1 FOR UPDATE";
        let workers =
            "SELECT worker, slots::text FROM control.rollout_workers WHERE rollout = $1 ORDER BY since, worker";
        let ((), _, _, _, (), _, workers, rows, counts) = tokio::try_join!(
            async { connection.execute_all("BEGIN").await.map_err(|error| failed(&error)) },
            async { connection.query(lock, std::slice::from_ref(&rollout)).await.map_err(|error| failed(&error)) },
            self.write_finished(&told.finished),
            self.write_back(&told.back),
            self.write_standings(&told.finished),
            async { connection.execute(&reap, std::slice::from_ref(&rollout)).await.map_err(|error| failed(&error)) },
            async { connection.query(workers, std::slice::from_ref(&rollout)).await.map_err(|error| failed(&error)) },
            async { connection.query(read, std::slice::from_ref(&rollout)).await.map_err(|error| failed(&error)) },
            async { counts.await.map_err(|error| failed(&error)) },
        )?;
        let slots = |text: &str| serde_json::from_str::<BTreeMap<String, u32>>(text).unwrap_or_default();
        let workers = workers.iter().map(|row| (row.get(0), slots(row.get(1)))).collect();
        let (counts, servers) = match counts {
            Some((counts, last, servers)) => (Some((counts, last)), servers),
            None => (None, Vec::new()),
        };
        let Some(row) = rows.first() else {
            // Somebody deleted it.
            return Ok(Present {
                state: RolloutState::Cancelled,
                wave: 0,
                cap: 0,
                max_failures: 0,
                failures: 0,
                open: false,
                next: None,
                workers,
                counts,
                servers,
            });
        };
        Ok(Present {
            state: RolloutState::of_word(row.get(0)),
            wave: row.get(1),
            cap: u32::try_from(row.get::<_, i32>(2)).unwrap_or(1).max(1),
            max_failures: row.get(3),
            failures: row.get(4),
            open: row.get(5),
            next: row.get(6),
            workers,
            counts,
            servers,
        })
    }

    /// Returns how many databases of each server this worker may work on: its share, as far as others
    /// have left it free, and never fewer than it is at.
    fn slots(&self, present: &Present, told: &Told) -> BTreeMap<String, u32> {
        let mine = self.worker.number;
        let mut numbers: Vec<i32> = present.workers.iter().map(|(number, _)| *number).collect();
        if !numbers.contains(&mine) {
            numbers.push(mine);
        }
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX).max(1);
        let rank = u32::try_from(numbers.iter().position(|number| *number == mine).unwrap_or_default()).unwrap_or(0);
        let share = present.cap / count + u32::from(rank < present.cap % count);
        let part = |(server, part): (&String, &Part)| {
            let others: u32 = present
                .workers
                .iter()
                .filter(|(number, _)| *number != mine)
                .map(|(_, slots)| slots.get(server).copied().unwrap_or_default())
                .sum();
            let free = present.cap.saturating_sub(others);
            (server.clone(), share.min(free).min(part.most).max(part.executing))
        };
        told.servers.iter().map(part).collect()
    }

    /// Writes what was decided and takes targets, and commits.
    async fn take(
        &self,
        wanted: &[(&str, i32)],
        slots: &BTreeMap<String, u32>,
        wave: i32,
        changed: Option<(RolloutState, Option<String>)>,
    ) -> Result<Vec<Claim>, Error> {
        let connection = self.catalogue.connection();
        let (servers, wanted): (Vec<&str>, Vec<i32>) = wanted.iter().copied().unzip();
        let text = serde_json::to_string(slots).unwrap_or_default();
        let change = async {
            let Some((state, reason)) = changed else { return Ok(()) };
            let sql = "UPDATE control.rollouts SET state = $2, wave = $3, reason = $4 WHERE id = $1";
            connection
                .execute(
                    sql,
                    &[
                        (&self.rollout, Type::INT8),
                        (&state.word(), Type::TEXT),
                        (&wave, Type::INT4),
                        (&reason, Type::TEXT),
                    ],
                )
                .await
                .map_err(|error| failed(&error))?;
            Ok(())
        };
        let part = async {
            let sql = "INSERT INTO control.rollout_workers (rollout, worker, os_user, host, slots) \
                       VALUES ($1, $2, $3, $4, $5::text::jsonb) \
                       ON CONFLICT (rollout, worker) DO UPDATE SET slots = excluded.slots \
                       WHERE rollout_workers.slots <> excluded.slots";
            connection
                .execute(
                    sql,
                    &[
                        (&self.rollout, Type::INT8),
                        (&self.worker.number, Type::INT4),
                        (&self.who.user, Type::TEXT),
                        (&self.who.host, Type::TEXT),
                        (&text, Type::TEXT),
                    ],
                )
                .await
                .map_err(|error| failed(&error))
        };
        let take = async {
            if servers.is_empty() {
                return Ok(Vec::new());
            }
            let sql = "WITH taken AS (SELECT c.position FROM unnest($3::text[], $4::int[]) AS w (server, wanted) \
                         CROSS JOIN LATERAL (SELECT t.position FROM control.rollout_targets t WHERE t.rollout = $1 \
                           AND t.state = 'waiting' AND t.wave <= $5 AND t.server = w.server \
                           ORDER BY t.wave, t.position LIMIT w.wanted FOR UPDATE SKIP LOCKED) c), \
                         seen AS (SELECT t.position, EXISTS (SELECT FROM control.tenants n \
                           WHERE n.name = t.tenant AND n.moving) AS moving \
                         FROM control.rollout_targets t JOIN taken USING (position) WHERE t.rollout = $1) \
                       UPDATE control.rollout_targets t SET started_at = clock_timestamp(), \
                         state = CASE WHEN seen.moving THEN 'skipped' ELSE 'running' END, \
                         worker = CASE WHEN NOT seen.moving THEN $2 END, \
                         attempts = t.attempts + CASE WHEN seen.moving THEN 0 ELSE 1 END, \
                         error = CASE WHEN seen.moving THEN 'tenant ' || t.tenant || ' is being moved' ELSE t.error END, \
                         ended_at = CASE WHEN seen.moving THEN clock_timestamp() END FROM seen \
                       WHERE t.rollout = $1 AND t.position = seen.position \
                       RETURNING t.position, t.kind, t.server, t.database, t.services, \
                         EXISTS (SELECT FROM control.tenant_properties p WHERE p.tenant = t.tenant), t.state";
            connection
                .query(
                    sql,
                    &[
                        (&self.rollout, Type::INT8),
                        (&self.worker.number, Type::INT4),
                        (&servers, Type::TEXT_ARRAY),
                        (&wanted, Type::INT4_ARRAY),
                        (&wave, Type::INT4),
                    ],
                )
                .await
                .map_err(|error| failed(&error))
        };
        let commit = async { connection.execute_all("COMMIT").await.map_err(|error| failed(&error)) };
        let ((), _, rows, ()) = tokio::try_join!(change, part, take, commit)?;
        let mut claims: Vec<Claim> = rows
            .iter()
            // The others are being moved: under the lock of this round nothing begins to be.
            .filter(|row| row.get::<_, &str>(6) == "running")
            .map(|row| Claim {
                position: row.get(0),
                kind: row.get(1),
                server: row.get(2),
                database: row.get(3),
                services: row.get(4),
                has_values: row.get(5),
                values: Values::new(),
            })
            .collect();
        claims.sort_by_key(|claim| claim.position);
        Ok(claims)
    }
}

/// Returns how many targets of each server a worker takes.
fn wanted<'a>(told: &'a Told, slots: &BTreeMap<String, u32>) -> Vec<(&'a str, i32)> {
    let number = |(server, part): (&'a String, &Part)| {
        let slots = slots.get(server).copied().unwrap_or_default();
        let most = if slots > 0 { slots + part.ahead } else { 0 };
        let number = most.saturating_sub(part.executing + part.queued);
        (number > 0).then(|| (server.as_str(), i32::try_from(number).unwrap_or(i32::MAX)))
    };
    told.servers.iter().filter_map(number).collect()
}

/// How long a worker waits at most between two rounds, so that it sees what others did.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);
