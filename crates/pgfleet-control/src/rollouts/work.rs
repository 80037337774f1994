//! A worker: takes targets of a rollout and works on them until nothing is left.
//!
//! Only what was taken is in memory. Targets are worked on in tasks of their own; results gather until
//! the next round takes them to the control database and brings more. How many are taken ahead of time
//! follows from how fast they go, so that fast ones never wait for a round and slow ones stay for others.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use pgfleet_migrate::{Observer, Options};
use pgfleet_postgres::{Type, retry};
use tokio::task::JoinSet;

use super::read::{Rollout, find};
use super::round::{Claim, Exchange, HEARTBEAT, Heard, Told};
use super::server_work::{Away, ServerWork};
use super::target::{Finished, Outcome, Shared};
use super::{Counts, RolloutState, failed};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::plans::Plans;
use crate::solution::Solution;
use crate::targets::TargetKind;

/// How long results gather at most.
const GATHER: Duration = Duration::from_millis(50);
/// The pause after a round that brought nothing.
const DRY: Duration = Duration::from_millis(100);
/// First and longest pause before a server that was away is tried again.
const AWAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How often a round is tried that the control database refused.
const ROUNDS: u32 = 5;

/// How a rollout is worked on.
#[derive(Clone)]
pub struct Go {
    /// How migrations run.
    pub options: Options,
    /// Sees the work on each target.
    pub observer: Arc<dyn Observer>,
    /// Is told how far the rollout is, twice a second and at each wave.
    pub progress: Arc<dyn Fn(&Progress) + Send + Sync>,
    /// Values for the seeds of hosts.
    pub properties: BTreeMap<String, String>,
    /// How long a server may be away before that counts as failing; also for the control database.
    pub patience: Duration,
}

/// How far a rollout is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Its state.
    pub state: RolloutState,
    /// The wave that runs.
    pub wave: i32,
    /// The last one there is so far.
    pub last_wave: i32,
    /// Its targets.
    pub counts: Counts,
    /// How many processes work on it.
    pub workers: usize,
}

/// How the work of this process on a rollout ended.
#[derive(Debug)]
pub struct Ended {
    /// The rollout as it is now.
    pub rollout: Rollout,
    /// Whether this process was asked to stop before the rollout was over.
    pub stopped: bool,
}

impl Solution {
    /// Works on a rollout until it is over, or somebody stops it or us.
    ///
    /// Any number of processes may do so at once.
    ///
    /// # Errors
    ///
    /// There is no such rollout; the control database is away for longer than `go.patience`. That targets
    /// failed is none: the rollout says so.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends connections, whose transactions the servers roll back; another worker takes what
    /// was taken. `options.stop` ends it in an orderly way.
    pub async fn work_on_rollout(self: &Arc<Self>, id: i64, plans: Plans, go: Go) -> Result<Ended, Error> {
        let exchange = Exchange::begin(self, id).await?;
        let rollout = find(exchange.catalogue(), id).await?;
        let options = self.announcing(&Options {
            to: rollout.what.to.as_deref().and_then(|version| version.parse().ok()),
            set: rollout.what.set.clone(),
            ..go.options.clone()
        });
        let shared = Arc::new(Shared {
            rollout: id,
            solution: self.clone(),
            plans,
            what: rollout.what,
            options,
            observer: go.observer.clone(),
            properties: go.properties.clone(),
            places: std::sync::RwLock::default(),
        });
        shared.read_places(exchange.catalogue()).await?;
        let mut worker = Working {
            shared,
            go,
            tasks: JoinSet::new(),
            servers: BTreeMap::new(),
            running: HashSet::new(),
            told: Told::default(),
            state: RolloutState::Running,
            wave: rollout.wave,
            last_round: None,
            last_counts: None,
            hurry: true,
            oldest: None,
            holds: false,
            waits_for: None,
        };
        worker.read_servers(exchange.catalogue()).await?;
        Box::pin(worker.run(exchange)).await
    }
}

/// A worker at work.
pub(super) struct Working {
    pub(super) shared: Arc<Shared>,
    pub(super) go: Go,
    tasks: JoinSet<(Claim, Finished)>,
    servers: BTreeMap<String, ServerWork>,
    /// The positions of the targets that are worked on.
    running: HashSet<i32>,
    /// What the next round tells.
    told: Told,
    state: RolloutState,
    pub(super) wave: i32,
    last_round: Option<Instant>,
    pub(super) last_counts: Option<Instant>,
    /// Whether the next round is due at once.
    pub(super) hurry: bool,
    /// Since when a result waits to be told.
    oldest: Option<Instant>,
    /// Whether nothing more is begun before others know that something failed.
    holds: bool,
    /// The tenant that is being moved, behind which the rollout ends.
    pub(super) waits_for: Option<String>,
}

/// A round under way: what it has, and what comes of it.
type Round = BoxFuture<'static, (Exchange, Told, Result<Heard, Error>)>;

impl Working {
    async fn run(mut self, exchange: Exchange) -> Result<Ended, Error> {
        let mut idle = Some(exchange);
        let mut round: Option<Round> = None;
        let mut refused = 0;
        loop {
            self.begin_tasks();
            if round.is_none() && self.is_over() && self.tasks.is_empty() && self.told.is_empty() {
                break;
            }
            let stops = self.stops();
            if round.is_none()
                && self.wait() == Duration::ZERO
                && let Some(exchange) = idle.take()
            {
                let told = self.tell();
                round = Some(
                    async move {
                        let heard = exchange.round(&told).await;
                        (exchange, told, heard)
                    }
                    .boxed(),
                );
            }
            let wait = self.wait();
            let in_round = round.is_some();
            tokio::select! {
                Some(done) = self.tasks.join_next() => self.finish(done),
                (exchange, told, heard) = async { match round.as_mut() { Some(round) => round.await, None => std::future::pending().await } } => {
                    round = None;
                    let mut exchange = exchange;
                    let gone_on = match heard {
                        Ok(heard) => {
                            let over = heard.over && !stops;
                            match self.hear(&exchange, heard).await {
                                Ok(()) if over => Box::pin(self.look_again(&mut exchange)).await,
                                heard => heard,
                            }
                        }
                        Err(error) => {
                            self.told.take_back(told);
                            Err(error)
                        }
                    };
                    match gone_on {
                        Ok(()) => refused = 0,
                        Err(error) => {
                            refused += 1;
                            Box::pin(self.again(&mut exchange, error, refused)).await?;
                        }
                    }
                    idle = Some(exchange);
                }
                () = tokio::time::sleep(wait), if !in_round => {}
                () = self.go.options.stop.asked(), if !stops => self.hurry = true,
            }
        }
        let Some(exchange) = idle else {
            return Err(Error::new(ErrorKind::Failed, "a rollout lost its connection to the control database"));
        };
        let rollout = find(exchange.catalogue(), self.shared.rollout).await?;
        exchange.end().await;
        let stopped = self.go.options.stop.is_asked() && rollout.state == RolloutState::Running;
        Ok(Ended { rollout, stopped })
    }

    /// Whether this process was asked to stop.
    fn stops(&self) -> bool {
        self.go.options.stop.is_asked()
    }

    /// Whether nothing more is taken.
    fn is_over(&self) -> bool {
        self.state != RolloutState::Running || self.stops()
    }

    /// Begins what was taken, as far as there is room.
    fn begin_tasks(&mut self) {
        if self.is_over() {
            for server in self.servers.values_mut() {
                self.told.back.extend(server.queue.drain(..).map(|claim| claim.position));
            }
            return;
        }
        if self.holds {
            return;
        }
        for server in self.servers.values_mut() {
            while server.may_begin() {
                let Some(claim) = server.queue.pop_front() else { break };
                server.executing += 1;
                self.running.insert(claim.position);
                let shared = self.shared.clone();
                self.tasks.spawn(async move {
                    let finished = shared.work_on(&claim).await;
                    (claim, finished)
                });
            }
        }
    }

    /// Takes in how a target ended.
    fn finish(&mut self, done: Result<(Claim, Finished), tokio::task::JoinError>) {
        let (claim, mut finished) = match done {
            Ok(done) => done,
            // A panic in a task is a defect of ours: it must not be taken for success.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let server = self.servers.entry(claim.server.clone()).or_default();
        server.executing -= 1;
        self.running.remove(&claim.position);
        if finished.outcome == Outcome::Unreachable {
            let now = Instant::now();
            let away = server.away.get_or_insert(Away { since: now, until: now, tries: 0 });
            if now >= away.until {
                away.tries += 1;
                away.until = now + retry::backoff(away.tries, AWAY.0, AWAY.1);
            }
            if away.since.elapsed() >= self.go.patience {
                finished.outcome = Outcome::Failed;
            }
            // Others may be able to reach it.
            self.told.back.extend(server.queue.drain(..).map(|claim| claim.position));
            self.hurry = true;
        } else if finished.outcome != Outcome::Stopped {
            server.away = None;
            let mean = server.pace.map_or(finished.took, |pace| (pace * 7 + finished.took) / 8);
            server.pace = Some(mean);
        }
        if finished.outcome == Outcome::Failed {
            self.hurry = true;
            self.holds = true;
        }
        self.told.finished.push(finished);
        self.oldest.get_or_insert_with(Instant::now);
    }

    /// How long until the next round is due.
    fn wait(&self) -> Duration {
        let Some(last) = self.last_round else { return Duration::ZERO };
        let since = last.elapsed();
        let idle = self.tasks.is_empty() && self.servers.values().all(|server| server.queue.is_empty());
        if self.hurry || (idle && (self.is_over() || self.oldest.is_some())) {
            return Duration::ZERO;
        }
        let mut wait = HEARTBEAT.saturating_sub(since);
        if let Some(oldest) = self.oldest {
            wait = wait.min(GATHER.saturating_sub(oldest.elapsed()));
        }
        if !self.is_over() {
            for server in self.servers.values() {
                if let Some(away) = &server.away {
                    let back = away.until.saturating_duration_since(Instant::now());
                    if server.executing == 0 && server.queue.is_empty() {
                        wait = wait.min(back.max(DRY.saturating_sub(since)));
                    }
                } else if server.queue.is_empty() && server.executing < server.slots.max(1) {
                    // Room, and nothing to fill it with.
                    let dry = server.dry.map_or(Duration::ZERO, |dry| DRY.saturating_sub(dry.elapsed()));
                    wait = wait.min(dry);
                }
            }
        }
        wait
    }

    /// Collects what the next round tells.
    fn tell(&mut self) -> Told {
        let mut told = std::mem::take(&mut self.told);
        told.servers = self.servers.iter().map(|(name, server)| (name.clone(), server.part())).collect();
        told.takes = !self.is_over();
        let due = self.last_counts.is_none_or(|last| last.elapsed() >= HEARTBEAT);
        told.counts = due;
        self.hurry = false;
        self.oldest = None;
        self.last_round = Some(Instant::now());
        told
    }

    /// Takes in what a round brought.
    async fn hear(&mut self, exchange: &Exchange, mut heard: Heard) -> Result<(), Error> {
        let now = Instant::now();
        self.holds = self.told.finished.iter().any(|target| target.outcome == Outcome::Failed);
        if heard.wave != self.wave {
            self.wave = heard.wave;
            for server in self.servers.values_mut() {
                server.dry = None;
            }
            self.last_counts = None;
            self.hurry = true;
        }
        if heard.state != self.state {
            self.state = heard.state;
            self.last_counts = None;
        }
        if let Some((counts, last_wave)) = heard.counts {
            self.last_counts = Some(now);
            let progress = Progress { state: heard.state, wave: heard.wave, last_wave, counts, workers: heard.workers };
            (self.go.progress)(&progress);
        }
        if let Err(error) = self.complete(exchange, &mut heard.claims).await {
            self.told.back.extend(heard.claims.iter().map(|claim| claim.position));
            return Err(error);
        }
        for name in heard.servers.drain(..) {
            self.servers.entry(name).or_default();
        }
        for (name, server) in &mut self.servers {
            server.slots = heard.slots.get(name).copied().unwrap_or_default();
            if heard.dry.contains(name) {
                server.dry = Some(now);
            }
        }
        for claim in heard.claims {
            let server = self.servers.entry(claim.server.clone()).or_default();
            server.dry = None;
            server.queue.push_back(claim);
        }
        Ok(())
    }

    /// Reads what is needed for the work on what was taken.
    async fn complete(&self, exchange: &Exchange, claims: &mut [Claim]) -> Result<(), Error> {
        let unknown = |claim: &Claim| claim.kind == TargetKind::Tenant.word() && self.shared.place(claim).is_none();
        if claims.iter().any(unknown) {
            // A tenant that came since we looked.
            self.shared.read_places(exchange.catalogue()).await?;
        }
        let mut seeded = Vec::new();
        for claim in claims {
            let Some(target) = self.shared.place(claim).filter(|target| target.kind == TargetKind::Tenant) else {
                continue;
            };
            if claim.has_values || !target.shared_with.is_empty() {
                seeded.push((claim, target));
            }
        }
        if seeded.is_empty() {
            return Ok(());
        }
        let targets = seeded.iter().map(|(_, target)| &**target);
        let values = self.shared.solution.values_of(exchange.catalogue(), targets).await?;
        for (claim, target) in seeded {
            let of = |tenant: &str| Some((tenant.to_owned(), values.get(tenant)?.clone()));
            claim.values = target.tenants().filter_map(of).collect();
        }
        Ok(())
    }

    /// Waits a little after a round that failed, and connects again where the connection is gone.
    async fn again(&mut self, exchange: &mut Exchange, error: Error, refused: u32) -> Result<(), Error> {
        let began = Instant::now();
        let mut attempt = 0;
        let mut error = error;
        loop {
            if error.kind() != ErrorKind::Unreachable && refused >= ROUNDS {
                return Err(error);
            }
            if began.elapsed() >= self.go.patience {
                return Err(error.hinted("the rollout goes on with: pgfleet migrate"));
            }
            attempt += 1;
            let pause = retry::backoff(attempt, AWAY.0, AWAY.1);
            if self.go.options.stop.sleep(pause).await && error.kind() == ErrorKind::Unreachable {
                return Err(error);
            }
            if !exchange.catalogue().connection().is_closed() {
                break;
            }
            let taken = self.taken();
            match exchange.begin_again(&self.shared.solution, &taken).await {
                Ok(()) => break,
                Err(another) => error = another,
            }
        }
        self.hurry = true;
        Ok(())
    }

    /// The positions of everything that this worker has taken and not told of.
    fn taken(&self) -> Vec<i32> {
        let queued = self.servers.values().flat_map(|server| &server.queue).map(|claim| claim.position);
        let ended = self.told.finished.iter().map(|finished| finished.position);
        queued.chain(self.running.iter().copied()).chain(ended).chain(self.told.back.iter().copied()).collect()
    }

    /// Reads which servers have targets.
    pub(super) async fn read_servers(&mut self, catalogue: &Catalogue) -> Result<(), Error> {
        let rows = catalogue
            .connection()
            .query(
                "SELECT DISTINCT server FROM control.rollout_targets WHERE rollout = $1",
                &[(&self.shared.rollout, Type::INT8)],
            )
            .await
            .map_err(|error| failed(&error))?;
        for row in rows {
            self.servers.entry(row.get(0)).or_default();
        }
        Ok(())
    }
}

impl Told {
    fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.back.is_empty()
    }

    /// Puts back what could not be told, before what came since.
    fn take_back(&mut self, told: Self) {
        self.finished.splice(0..0, told.finished);
        self.back.splice(0..0, told.back);
    }
}
