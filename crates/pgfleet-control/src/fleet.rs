//! One piece of work over many databases: several at a time, each under its own lock, one failure
//! stops none of the others.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgfleet_migrate::{
    Error as MigrateError, ErrorKind, Observer, Options, Outcome, Report, SetPath, State, Target, run,
};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::program::Handling;

/// One database with what belongs in it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The service.
    pub service: String,
    /// The server's name.
    pub server: String,
    /// The database.
    pub target: Target,
    /// The sets with their migrations and seeds.
    pub path: Arc<SetPath>,
    /// Whether it is done here or by the service's program.
    pub handling: Handling,
}

/// How the work on one database ended.
#[derive(Debug)]
pub struct TargetReport {
    /// The service.
    pub service: String,
    /// The server's name.
    pub server: String,
    /// The database.
    pub database: String,
    /// What was done, or why not.
    pub result: Result<Report, MigrateError>,
    /// How long it took.
    pub took: Duration,
}

/// The words for a target's state, a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// At the newest known version.
    Current,
    /// Something is pending.
    Behind,
    /// The last run failed.
    Failed,
    /// A migration without a transaction stopped in the middle.
    Interrupted,
    /// Applied versions that no file here has.
    Ahead,
    /// Could not be asked.
    Unreachable,
    /// Never asked.
    Unknown,
}

impl TargetState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Current, Self::Behind, Self::Failed, Self::Interrupted, Self::Ahead, Self::Unreachable, Self::Unknown];

    /// Returns the state of a word; one that a newer version wrote is unknown here.
    pub(crate) fn of_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.word() == word).unwrap_or(Self::Unknown)
    }

    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Ahead => "ahead",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }
}

impl TargetReport {
    /// Returns the target's state after this work.
    pub fn state(&self) -> TargetState {
        match &self.result {
            Ok(report) if report.entries.iter().any(|entry| entry.state == State::Interrupted) => {
                TargetState::Interrupted
            }
            Ok(report) if report.blocked.is_some() && !report.entries.iter().any(|e| e.state == State::Ahead) => {
                TargetState::Failed
            }
            Ok(report) if report.outcome == Outcome::Pending => TargetState::Behind,
            Ok(report) if report.entries.iter().any(|entry| entry.state == State::Ahead) => TargetState::Ahead,
            Ok(report) if report.notes.iter().any(|note| note.starts_with("the database is ahead")) => {
                TargetState::Ahead
            }
            Ok(_) => TargetState::Current,
            Err(error) if error.is_unreachable() => TargetState::Unreachable,
            Err(error) if error.kind() == ErrorKind::Interrupted => TargetState::Interrupted,
            Err(_) => TargetState::Failed,
        }
    }

    /// Returns version, state and error for the catalogue.
    pub(crate) fn catalogue_row(&self) -> (Option<String>, &'static str, Option<String>) {
        match &self.result {
            Ok(report) => (report.to.clone(), self.state().word(), None),
            Err(error) => {
                let first = error.causes().into_iter().next().unwrap_or_default();
                (None, self.state().word(), Some(format!("{error}: {first}")))
            }
        }
    }

    /// Returns whether something happened that an auditor wants to see.
    pub(crate) fn changed(&self) -> bool {
        match &self.result {
            Ok(report) => !report.applied.is_empty() || !report.seeded.is_empty(),
            Err(_) => true,
        }
    }

    pub(crate) fn audit_detail(&self) -> serde_json::Value {
        match &self.result {
            Ok(report) => serde_json::json!({
                "server": self.server, "database": self.database, "from": report.from, "to": report.to,
                "applied": report.applied, "seeded": report.seeded,
            }),
            Err(error) => serde_json::json!({
                "server": self.server, "database": self.database, "error": error.to_string(), "causes": error.causes(),
            }),
        }
    }
}

/// What is done with each job.
#[derive(Debug, Clone)]
pub enum Work {
    /// Migrate and seed; or look, when the options say so.
    Migrate,
    /// Seed where nothing is pending.
    Seed,
    /// Go back.
    Revert(pgfleet_migrate::revert::Goal),
}

/// Does the work on one job.
///
/// Boxed with its lifetime named: for a spawned task the compiler cannot prove by itself that the
/// borrows inside may cross threads.
pub(crate) fn work_on<'a>(
    job: &'a Job,
    work: &'a Work,
    options: &'a Options,
    observer: &'a dyn Observer,
) -> Pin<Box<dyn Future<Output = Result<Report, MigrateError>> + Send + 'a>> {
    Box::pin(async move {
        if options.stop.is_asked() {
            return Err(MigrateError::new(ErrorKind::Stopped, format!("stopped before {}", job.target.name)));
        }
        let Job { target, path, .. } = job;
        match (work, &job.handling) {
            (_, Handling::Refused(error)) => Err(MigrateError::from((**error).clone())),
            // For a look it is enough to know what the program has in it.
            (Work::Migrate, Handling::ByProgram(program)) if !options.look_only => {
                program.migrate(target, path, options, observer).await
            }
            (Work::Seed, Handling::ByProgram(program)) => program.seed(target, path, options, observer).await,
            (Work::Seed, Handling::Here) => run::seed(target, path, options, observer).await,
            (Work::Revert(goal), Handling::ByProgram(program)) => {
                program.revert(target, path, goal, options, observer).await
            }
            (Work::Migrate, _) => run::migrate(target, path, options, observer).await,
            (Work::Revert(goal), Handling::Here) => {
                pgfleet_migrate::revert::revert(target, path, goal, options, observer).await
            }
        }
    })
}

/// Does the work on all jobs, `concurrency` at a time, and returns the reports in the jobs' order.
///
/// When `options.stop` is asked, running jobs end in an orderly way and the rest are not begun.
pub async fn run_all(
    jobs: Vec<Job>,
    work: Work,
    options: &Options,
    concurrency: usize,
    observer: Arc<dyn Observer>,
) -> Vec<TargetReport> {
    let permits = Arc::new(Semaphore::new(concurrency.max(1)));
    let count = jobs.len();
    let mut tasks = JoinSet::new();
    for (index, job) in jobs.into_iter().enumerate() {
        let (permits, options, observer, work) = (permits.clone(), options.clone(), observer.clone(), work.clone());
        tasks.spawn(async move {
            // The semaphore is never closed; without a permit the cap would be lost, not the work.
            let _permit = permits.acquire_owned().await;
            let began = Instant::now();
            let result = work_on(&job, &work, &options, &*observer).await;
            let report = TargetReport {
                service: job.service,
                server: job.server,
                database: job.target.address.database().to_owned(),
                result,
                took: began.elapsed(),
            };
            (index, report)
        });
    }
    let mut reports: Vec<Option<TargetReport>> = (0..count).map(|_| None).collect();
    while let Some(finished) = tasks.join_next().await {
        match finished {
            Ok((index, report)) => reports[index] = Some(report),
            // A panic in a task is a defect of ours: it must not be taken for success.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    reports.into_iter().flatten().collect()
}
