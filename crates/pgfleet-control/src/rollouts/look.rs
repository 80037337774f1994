//! Looking at tenants' databases without changing anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pgfleet_migrate::{Observer, Options, Outcome, Report};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::plan::Spread;
use super::{Ask, Settled};
use crate::error::Error;
use crate::fleet::{Work, work_on};
use crate::solution::Solution;
use crate::targets::FleetTarget;

/// How many findings are kept in words.
const SHOWN: usize = 100;

/// What tenants' databases say.
#[derive(Debug, Default, Serialize)]
pub struct Looked {
    /// How many pairs of service and tenant there are in databases of tenants.
    pub targets: usize,
    /// How many of them were looked at, since nobody knew enough of them.
    pub looked: usize,
    /// The tenants that are being moved and are not known to be where they should be; they are not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<String>,
    /// In how many of them something is pending.
    pub pending: usize,
    /// How many of them cannot be brought to head as they are, or could not be asked.
    pub blocked: usize,
    /// What was found, the first hundred.
    pub findings: Vec<String>,
}

impl Solution {
    /// Looks at those databases of tenants that are not known to be where they should be, as migrating
    /// would find them; at all of them with `ask.recheck`.
    ///
    /// # Errors
    ///
    /// The control database or the files cannot be read. What is wrong in a database is a finding.
    pub async fn look_at_tenants(
        self: &Arc<Self>,
        ask: &Ask,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Looked, Error> {
        let Some(catalogue) = self.catalogue_if_any().await? else { return Ok(Looked::default()) };
        let plans = Arc::new(self.plans(&[], observer).await?);
        let prints = plans.prints();
        let what = self.what(ask, options, &prints);
        let every = ask.recheck || !what.reaches_head();
        let known = self.stale(&catalogue, &prints).await?;
        let targets = self.tenants_to_do(&catalogue, &prints, &what, (!every).then_some(&known)).await?;
        let values = Arc::new(self.values_of(&catalogue, &targets).await?);
        let reaches_head = what.reaches_head();
        catalogue.close().await;
        let concurrency = ask.concurrency.unwrap_or(self.manifest.rollouts.concurrency) as usize;
        let Settled { targets: there, moving } = Settled::of(known, &what);
        let mut looked = Looked { targets: there, moving, ..Looked::default() };
        let options = Options { dry_run: true, announcer: None, ..options.clone() };
        // One after the other over the servers, so that few tasks keep all of them busy.
        let mut by_place: HashMap<(String, String), FleetTarget> =
            targets.into_iter().map(|target| ((target.server.clone(), target.database.clone()), target)).collect();
        let order = Spread { first: &[], canary: 0, growth: 1 }.waves(by_place.values().cloned().collect());
        let permits: BTreeMap<String, Arc<Semaphore>> =
            order.iter().map(|target| (target.server.clone(), Arc::new(Semaphore::new(concurrency)))).collect();
        let most = concurrency * permits.len();
        let mut tasks = JoinSet::new();
        for planned in order {
            if tasks.len() >= most {
                looked.take(tasks.join_next().await);
            }
            let Some(target) = by_place.remove(&(planned.server.clone(), planned.database)) else { continue };
            let values = values.clone();
            let (solution, plans, options, observer) = (self.clone(), plans.clone(), options.clone(), observer.clone());
            let permit = permits[&planned.server].clone();
            tasks.spawn(async move {
                let _permit = permit.acquire_owned().await;
                let mut found = Vec::new();
                let none = BTreeMap::new();
                for service in &target.services {
                    let own = values.get(&target.tenant).unwrap_or(&none);
                    found.push(match solution.job(&plans, &target, service, own) {
                        Err(error) => Finding::Blocked(error.to_string()),
                        Ok(job) => match work_on(&job, &Work::Migrate, &options, &*observer).await {
                            Err(error) => Finding::Blocked(super::target::one_line(&error)),
                            Ok(report) => Finding::of(&report, report.outcome == Outcome::Pending),
                        },
                    });
                    if !reaches_head {
                        continue;
                    }
                    // What is pending in the schema is found once; its seeds are each tenant's own.
                    let how = (&options, &observer);
                    for sharer in solution.look_at_sharers(&plans, &target, service, &values, how).await {
                        found.push(match sharer {
                            Err(error) => Finding::Blocked(super::target::one_line_of(&error)),
                            Ok(report) => Finding::of(&report, !report.pending_seeds.is_empty()),
                        });
                    }
                }
                found
            });
        }
        while let Some(done) = tasks.join_next().await {
            looked.take(Some(done));
        }
        looked.findings.sort_unstable();
        Ok(looked)
    }
}

/// What one service's schema says.
enum Finding {
    Current,
    Pending(String),
    Blocked(String),
}

impl Finding {
    fn of(report: &Report, is_pending: bool) -> Self {
        if !is_pending {
            return Self::Current;
        }
        Self::Pending(format!(
            "{}: {} pending, {} to seed; at {}",
            report.target,
            report.pending.len(),
            report.pending_seeds.len(),
            report.to.as_deref().unwrap_or("nothing applied")
        ))
    }
}

impl Looked {
    fn take(&mut self, done: Option<Result<Vec<Finding>, tokio::task::JoinError>>) {
        let found = match done {
            None => return,
            Some(Ok(found)) => found,
            // A panic in a task is a defect of ours.
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        };
        self.looked += found.len();
        for finding in found {
            let text = match finding {
                Finding::Current => continue,
                Finding::Pending(text) => {
                    self.pending += 1;
                    text
                }
                Finding::Blocked(text) => {
                    self.blocked += 1;
                    text
                }
            };
            if self.findings.len() < SHOWN {
                self.findings.push(text);
            }
        }
    }
}
