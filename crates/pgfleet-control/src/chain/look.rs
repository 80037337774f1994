//! Looking for what services applied to their own databases and told nobody here.
//!
//! A service that migrates itself when it starts knows nothing of the control database. Its history
//! does: rows that were announced to nobody, or to a hook of the service's own, are announced by
//! whoever looks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgfleet_migrate::{Options, run};

use super::handle::Handler;
use crate::error::Error;
use crate::fleet::Job;

/// For how long it is known which histories the services have.
const KNOWN: Duration = Duration::from_mins(1);

impl Handler<'_> {
    /// Announces what the services' own databases have that the control database has not heard of.
    ///
    /// Returns what could not be looked at, with the service.
    ///
    /// # Errors
    ///
    /// The control database or the files cannot be read.
    pub(super) async fn look_at_hosts(&self) -> Result<Vec<(String, pgfleet_migrate::Error)>, Error> {
        let known = self.catalogue().await?.newest_runs().await?;
        let options = Options { wait_attempts: 1, ..self.options.clone() };
        let mut failed = Vec::new();
        for job in self.hosts().await?.iter() {
            let known = known.get(&job.target.name).map(String::as_str);
            if let Err(error) = run::announce_left(&job.target, &job.path, &options, known).await {
                failed.push((job.service.clone(), error));
            }
        }
        Ok(failed)
    }

    /// Returns the services' own databases: of their sets only the histories count here, so the files
    /// need not be read each time.
    async fn hosts(&self) -> Result<Arc<Vec<Job>>, Error> {
        let mut hosts = self.hosts.lock().await;
        if let Some((_, jobs)) = hosts.as_ref().filter(|(since, _)| since.elapsed() < KNOWN) {
            return Ok(jobs.clone());
        }
        let jobs = Arc::new(self.solution.jobs(&[], &BTreeMap::new())?);
        *hosts = Some((Instant::now(), jobs.clone()));
        Ok(jobs)
    }
}
