//! The work on one target: all its services, one after the other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use pgfleet_migrate::options::Durability;
use pgfleet_migrate::revert::Goal;
use pgfleet_migrate::{Error as MigrateError, ErrorKind as MigrateErrorKind, Observer, Options, Outcome as RunOutcome};
use serde_json::json;

use super::round::Claim;
use super::{What, run_of};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::fleet::{Job, TargetReport, Work, work_on};
use crate::plans::Plans;
use crate::solution::Solution;
use crate::standing::Standing;
use crate::targets::{FleetTarget, TargetKind};
use crate::templates::Shape;
use crate::tenants::sharers::Values;

/// How the work on a target ended, for its row.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) position: i32,
    pub(super) outcome: Outcome,
    /// The first line of what went wrong.
    pub(super) error: Option<String>,
    /// What was done, by service, as JSON.
    pub(super) result: String,
    /// Where its services stand now.
    pub(super) standings: Vec<Standing>,
    /// Server and database of which nothing is known any more.
    pub(super) forgets: Option<(String, String)>,
    /// What an auditor wants to see.
    pub(super) deeds: Vec<Deed>,
    pub(super) took: Duration,
}

/// A line of the audit.
#[derive(Debug)]
pub(super) struct Deed {
    pub(super) action: &'static str,
    pub(super) subject: String,
    pub(super) detail: String,
}

/// How the work on a target ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All went well.
    Done,
    /// Something failed.
    Failed,
    /// There is no such target any more.
    Skipped,
    /// We were asked to stop.
    Stopped,
    /// The server is away.
    Unreachable,
}

/// What all targets of a rollout have in common.
pub(super) struct Shared {
    pub(super) rollout: i64,
    pub(super) solution: Arc<Solution>,
    pub(super) plans: Plans,
    pub(super) what: What,
    pub(super) options: Options,
    pub(super) observer: Arc<dyn Observer>,
    /// Values for the seeds of hosts.
    pub(super) properties: BTreeMap<String, String>,
    /// The databases of hosts and tenants by where they are.
    pub(super) places: RwLock<HashMap<(String, String), Arc<FleetTarget>>>,
}

impl Shared {
    /// Reads anew how to get to the databases of tenants.
    pub(super) async fn read_places(&self, catalogue: &Catalogue) -> Result<(), Error> {
        let mut places = self.solution.tenants_by_place(catalogue).await?;
        for host in self.solution.host_targets(&[])? {
            places.insert((host.server.clone(), host.database.clone()), host);
        }
        let places = places.into_iter().map(|(place, target)| (place, Arc::new(target))).collect();
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = places;
        Ok(())
    }

    /// Finds how to get to a target.
    pub(super) fn place(&self, claim: &Claim) -> Option<Arc<FleetTarget>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(&(claim.server.clone(), claim.database.clone())).cloned()
    }

    /// Does the work on one target.
    pub(super) async fn work_on(&self, claim: &Claim) -> Finished {
        let began = Instant::now();
        let mut finished = Finished {
            position: claim.position,
            outcome: Outcome::Done,
            error: None,
            result: String::new(),
            standings: Vec::new(),
            forgets: None,
            deeds: Vec::new(),
            took: Duration::ZERO,
        };
        let mut result = serde_json::Map::new();
        if claim.kind == TargetKind::Template.word() {
            self.template(claim, &mut finished).await;
        } else if let Some(target) = self.place(claim) {
            match self.seen(target).await {
                Ok(target) => {
                    for service in &claim.services {
                        let report = self.service(&target, service, &claim.values).await;
                        finished.add(&report, self, &target);
                        result.insert(service.clone(), result_of(&report));
                    }
                }
                Err(error) => finished.refused(&error),
            }
        } else {
            finished.outcome = Outcome::Skipped;
            finished.error = Some("no string leads there any more".to_owned());
        }
        finished.result = serde_json::Value::Object(result).to_string();
        finished.took = began.elapsed();
        finished
    }

    /// Finds out which database a target is, where strings lead there that were stored unseen: else nobody
    /// would know the next time that something was done there.
    async fn seen(&self, target: Arc<FleetTarget>) -> Result<Arc<FleetTarget>, Error> {
        if target.unseen.is_empty() {
            return Ok(target);
        }
        let control = &self.solution.manifest.control;
        let look = async {
            let catalogue = Catalogue::open(&self.solution.server(&control.server).admin, &control.database).await?;
            let seen = self.solution.see(&catalogue, &target).await;
            catalogue.close().await;
            seen
        };
        let physical = Box::pin(look).await?;
        let mut target = (*target).clone();
        target.physical = physical.or(target.physical);
        Ok(Arc::new(target))
    }

    /// Brings a template to head.
    async fn template(&self, claim: &Claim, finished: &mut Finished) {
        let control = &self.solution.manifest.control;
        let made = async {
            // It waits for a lock in a session of its own.
            let catalogue = Catalogue::open(&self.solution.server(&control.server).admin, &control.database).await?;
            let shape = Shape::of(&self.solution.manifest, &claim.services);
            let made =
                self.solution.ensure_template(&catalogue, &claim.server, &shape, &self.plans, &self.observer).await;
            catalogue.close().await;
            made.map(|_| ())
        };
        let Err(error) = Box::pin(made).await else { return };
        finished.refused(&error);
        if self.options.stop.is_asked() && finished.outcome == Outcome::Failed {
            finished.outcome = Outcome::Stopped;
        }
    }

    /// Does the work on one service in a database.
    async fn service(&self, target: &FleetTarget, service: &str, own: &Values) -> TargetReport {
        let began = Instant::now();
        let none = BTreeMap::new();
        let values = match target.kind {
            TargetKind::Host => &self.properties,
            _ => own.get(&target.tenant).unwrap_or(&none),
        };
        let result = match self.solution.job(&self.plans, target, service, values) {
            Ok(job) => self.run(&job).await,
            Err(error) => Err(of_files(&error)),
        };
        let mut report = TargetReport {
            service: service.to_owned(),
            server: target.server.clone(),
            database: target.database.clone(),
            result,
            took: Duration::ZERO,
        };
        if self.what.reaches_head() {
            let options = self.options_for(service, true);
            let how = (&options, &self.observer);
            if let Err(error) = self.solution.seed_sharers(&self.plans, target, own, &mut report, how).await {
                report.result = Err(of_files(&error));
            }
        }
        report.took = began.elapsed();
        report
    }

    /// Returns how a service is migrated and seeded.
    fn options_for(&self, service: &str, of_tenant: bool) -> Options {
        let run = Some(run_of(&self.what.run, service));
        let tenants = of_tenant && self.solution.manifest.tenants.always_seed;
        Options { run, always_seed: self.options.always_seed || tenants, ..self.options.clone() }
    }

    async fn run(&self, job: &Job) -> Result<pgfleet_migrate::Report, MigrateError> {
        let Some(revert) = &self.what.revert else {
            let options = self.options_for(&job.service, job.target.tenant.is_some());
            // The catalog said that something is pending here.
            let mut options = Options { lock_first: true, ..options };
            // Where the control database is in the same cluster, its commit of how the target ended is behind this one.
            if job.server == self.solution.manifest.control.server && options.durability == Durability::Run {
                options.durability = Durability::Later;
            }
            return work_on(job, &Work::Migrate, &options, &*self.observer).await;
        };
        // Newest first: what is applied last is the service's own set.
        let goal = Work::Revert(Goal::Run(run_of(&revert.run, &job.service)));
        let run = Some(run_of(&self.what.run, &job.service));
        let mut whole: Option<pgfleet_migrate::Report> = None;
        for set in job.path.sets().iter().rev() {
            let options = Options { run: run.clone(), set: Some(set.name.clone()), ..self.options.clone() };
            let report = work_on(job, &goal, &options, &*self.observer).await?;
            match &mut whole {
                None => whole = Some(report),
                Some(whole) => {
                    whole.applied.extend(report.applied);
                    if report.outcome == RunOutcome::Applied {
                        whole.outcome = report.outcome;
                    }
                }
            }
        }
        whole.ok_or_else(|| MigrateError::new(MigrateErrorKind::Files, format!("{} has no set", job.service)))
    }
}

impl Finished {
    /// Notes that nothing could be done.
    fn refused(&mut self, error: &Error) {
        let texts: Vec<String> = std::iter::once(error.to_string()).chain(error.causes().iter().cloned()).collect();
        self.error = Some(texts.join(": "));
        self.outcome = match error.kind() {
            ErrorKind::Unreachable => Outcome::Unreachable,
            ErrorKind::Stopped => Outcome::Stopped,
            _ => Outcome::Failed,
        };
    }

    /// Adds what became of one service.
    fn add(&mut self, report: &TargetReport, shared: &Shared, target: &FleetTarget) {
        if let Err(error) = &report.result {
            let outcome = if error.kind() == MigrateErrorKind::Stopped {
                Outcome::Stopped
            } else if error.is_unreachable() {
                Outcome::Unreachable
            } else {
                Outcome::Failed
            };
            // Being asked to stop goes before all, and a failure before a server that is away.
            let weight = |outcome| match outcome {
                Outcome::Stopped => 3,
                Outcome::Failed => 2,
                Outcome::Unreachable => 1,
                Outcome::Done | Outcome::Skipped => 0,
            };
            if weight(outcome) > weight(self.outcome) {
                self.outcome = outcome;
            }
            self.error.get_or_insert_with(|| one_line(error));
            if outcome == Outcome::Stopped {
                return;
            }
        }
        if shared.what.revert.is_some() {
            self.forgets = Some((target.server.clone(), target.database.clone()));
        } else {
            let print = if shared.what.reaches_head() { shared.plans.get(&report.service) } else { None };
            let mut standing = Standing::of(target, report, print.map(|plan| plan.print.as_str()));
            standing.rollout = Some(shared.rollout);
            self.standings.push(standing);
        }
        if report.changed() {
            self.deeds.push(Deed {
                action: if shared.what.revert.is_some() { "revert" } else { "migrate" },
                subject: target.name(&report.service),
                detail: report.audit_detail().to_string(),
            });
        }
    }
}

/// Makes the error of a run of one that came before it.
fn of_files(error: &Error) -> MigrateError {
    let mut own = MigrateError::new(MigrateErrorKind::Files, error.to_string());
    for cause in error.causes() {
        own = own.cause(cause.clone());
    }
    match error.hint() {
        Some(hint) => own.hinted(hint),
        None => own,
    }
}

/// What was done for one service.
fn result_of(report: &TargetReport) -> serde_json::Value {
    let took = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
    match &report.result {
        Ok(done) => json!({
            "from": done.from, "to": done.to, "applied": done.applied, "seeded": done.seeded, "took_ms": took,
        }),
        Err(error) => json!({ "error": error.to_string(), "causes": error.causes(), "took_ms": took }),
    }
}

/// Says in one line what failed and why, as far as the error has a cause and a place.
pub(super) fn one_line(error: &MigrateError) -> String {
    let cause = error.causes().into_iter().next().unwrap_or_default();
    let place = error.place().map(|place| format!(" ({place})")).unwrap_or_default();
    let text = format!("{error}: {cause}{place}");
    text.lines().next().unwrap_or_default().to_owned()
}

/// Likewise of an error of ours.
pub(super) fn one_line_of(error: &Error) -> String {
    let cause = error.causes().first().map(String::as_str).unwrap_or_default();
    let text = if cause.is_empty() { error.to_string() } else { format!("{error}: {cause}") };
    text.lines().next().unwrap_or_default().to_owned()
}
