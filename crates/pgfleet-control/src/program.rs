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

use crate::bundle::refuse_all;
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

    pub(crate) fn of(&self, service: &str, path: &Path, observer: &Arc<dyn Observer>) -> Arc<Program> {
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
    /// built from other files, refuses the jobs of its service and of no other. From a bundle all are
    /// refused then, and only the programs are started that must run.
    ///
    /// # Errors
    ///
    /// As [`jobs`](Self::jobs); from a bundle, that a program which must run cannot be used or is not
    /// the one that the bundle was made with.
    pub async fn prepared(
        &self,
        names: &[String],
        extra: &BTreeMap<String, String>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<Job>, Error> {
        self.prepare_all(self.jobs(names, extra)?, observer).await
    }

    /// Likewise, of files that somebody has read.
    pub(crate) async fn prepare_all(
        &self,
        mut jobs: Vec<Job>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<Job>, Error> {
        join_all(jobs.iter_mut().map(|job| self.prepare(job, observer))).await;
        if self.used_bundle().is_some() {
            refuse_all(jobs.iter().filter_map(|job| job.handling.refusal()))?;
        }
        Ok(jobs)
    }

    /// Returns whether a service's program has a set of that name. One that cannot be asked may have
    /// it: it says so when it is its turn.
    pub async fn program_has(&self, service: &Service, set: &str, observer: &Arc<dyn Observer>) -> bool {
        if let Some(bundle) = self.used_bundle() {
            return bundle.program(&service.name).is_some_and(|recorded| recorded.has(set));
        }
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
        let Some(service) = self.manifest.service(&job.service) else { return };
        match self.completed(service, &job.path, observer).await {
            Ok((path, program)) => {
                job.path = path;
                if let Some(program) = program {
                    job.handling = Handling::ByProgram(program);
                }
            }
            Err(error) => job.handling = Handling::Refused(Box::new(ErrorRecord::from(&error))),
        }
    }

    /// Puts what only a service's program has among its files; with the program when it must run.
    pub(crate) async fn completed(
        &self,
        service: &Service,
        files: &Arc<SetPath>,
        observer: &Arc<dyn Observer>,
    ) -> Result<(Arc<SetPath>, Option<Arc<Program>>), MigrateError> {
        let program = service.program.as_ref().map(|path| self.programs().of(&service.name, path, observer));
        if let Some(bundle) = self.used_bundle() {
            return bundle.completed(&service.name, files, program).await;
        }
        let Some(program) = program else { return Ok((files.clone(), None)) };
        let path = program.describe().await?.join(files, program.path())?;
        let needed = path.needs_program().then_some(program);
        Ok((Arc::new(path), needed))
    }
}
