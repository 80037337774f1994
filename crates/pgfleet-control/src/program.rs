//! The programs of services, which run what is written in Rust.
//!
//! One process per service and command: started when the first piece of work needs to know what is
//! in it, kept for all its databases, and ended by [`Programs::close`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use pgfleet_migrate::worker::{Description, Program};
use pgfleet_migrate::{Error as MigrateError, ErrorRecord, Observer, SetPath};

use crate::error::Error;
use crate::fleet::Job;
use crate::manifest::Service;
use crate::solution::Solution;

/// The programs that one command started, by service.
///
/// Clones share them: whoever opens solutions keeps one, and closes it at the end.
#[derive(Debug, Clone, Default)]
pub struct Programs(Arc<Mutex<HashMap<String, Arc<Program>>>>);

impl Programs {
    /// Ends what was started, and waits until it has.
    pub async fn close(&self) {
        let programs: Vec<_> = self.lock().drain().map(|(_, program)| program).collect();
        join_all(programs.iter().map(|program| program.close())).await;
    }

    fn of(&self, service: &str, path: &Path, observer: &Arc<dyn Observer>) -> Arc<Program> {
        let mut programs = self.lock();
        let make = || Arc::new(Program::new(service, path, observer.clone()));
        programs.entry(service.to_owned()).or_insert_with(make).clone()
    }

    /// Held for a look or an insert, so that a panic leaves nothing half done.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Program>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a job is related to the program of its service.
#[derive(Debug, Clone, Default)]
pub enum Handling {
    /// All of it is SQL: it is done here.
    #[default]
    Here,
    /// Something of it is Rust: the whole target is handed to the program.
    ByProgram(Arc<Program>),
    /// The program cannot be used, so nothing is done; the error says why.
    Refused(Box<ErrorRecord>),
}

impl Handling {
    /// Returns why nothing can be done.
    pub fn refusal(&self) -> Option<MigrateError> {
        match self {
            Self::Refused(error) => Some(MigrateError::from((**error).clone())),
            Self::Here | Self::ByProgram(_) => None,
        }
    }
}

impl Solution {
    /// Collects the databases of services as [`jobs`](Self::jobs) does, and puts what only their
    /// programs have among their files.
    ///
    /// Starts the programs; `observer` sees what they print. A program that cannot be used, or was
    /// built from other files, refuses the jobs of its service and of no other.
    ///
    /// # Errors
    ///
    /// As [`jobs`](Self::jobs).
    pub async fn prepared(
        &self,
        names: &[String],
        extra: &BTreeMap<String, String>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<Job>, Error> {
        let mut jobs = self.jobs(names, extra)?;
        join_all(jobs.iter_mut().map(|job| self.prepare(job, observer))).await;
        Ok(jobs)
    }

    /// Returns whether a service's program has a set of that name. One that cannot be asked may have
    /// it: it says so when it is its turn.
    pub async fn program_has(&self, service: &Service, set: &str, observer: &Arc<dyn Observer>) -> bool {
        let Some(path) = &service.program else { return false };
        let described = self.programs().of(&service.name, path, observer).describe().await;
        described.map_or(true, |description| description.has(set))
    }

    /// Asks a service's program what it has in it.
    pub(crate) async fn describe(
        &self,
        service: &str,
        path: &Path,
        observer: &Arc<dyn Observer>,
    ) -> Result<Arc<Description>, MigrateError> {
        self.programs().of(service, path, observer).describe().await
    }

    async fn prepare(&self, job: &mut Job, observer: &Arc<dyn Observer>) {
        let Some(path) = self.manifest.service(&job.service).and_then(|service| service.program.as_ref()) else {
            return;
        };
        let program = self.programs().of(&job.service, path, observer);
        match joined(&program, &job.path).await {
            Ok(path) => {
                if path.needs_program() {
                    job.handling = Handling::ByProgram(program);
                }
                job.path = Arc::new(path);
            }
            Err(error) => job.handling = Handling::Refused(Box::new(ErrorRecord::from(&error))),
        }
    }
}

async fn joined(program: &Program, files: &SetPath) -> Result<SetPath, MigrateError> {
    program.describe().await?.join(files, program.path())
}
