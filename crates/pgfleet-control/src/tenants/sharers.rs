//! Tenants that have their data in one database: it is migrated once, and seeded for each of them.
//!
//! The first one is whom pgfleet made it for, else who was led there first: for it all seeds run. For
//! each of the others those run that depend on the tenant, with its own properties, and are recorded under
//! its name, as in the database of a service.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_migrate::{Observer, Options, Outcome, Report, run};

use super::properties;
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::fleet::{Job, TargetReport, Work, work_on};
use crate::plans::Plans;
use crate::solution::Solution;
use crate::targets::{FleetTarget, TargetKind};

/// What the seeds of each tenant are given, by tenant.
pub(crate) type Values = BTreeMap<String, BTreeMap<String, String>>;

impl FleetTarget {
    /// Returns the tenants whose data is in it, the first one first.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.tenant).chain(&self.shared_with).map(String::as_str).filter(|tenant| !tenant.is_empty())
    }
}

impl Solution {
    /// Reads what the seeds of the tenants of these databases are given.
    pub(crate) async fn values_of<'a>(
        &self,
        catalogue: &Catalogue,
        targets: impl IntoIterator<Item = &'a FleetTarget>,
    ) -> Result<Values, Error> {
        let tenants: Vec<&str> = targets.into_iter().flat_map(FleetTarget::tenants).collect();
        let read = properties::read_all(catalogue.connection(), &self.keys()?, &tenants).await?;
        Ok(read.into_iter().collect())
    }

    /// Seeds a service in a database for all of its tenants but the first, when the work for that one has
    /// brought it to head, and adds what ran to the report of that; the first failure ends it.
    pub(crate) async fn seed_sharers(
        &self,
        plans: &Plans,
        target: &FleetTarget,
        values: &Values,
        report: &mut TargetReport,
        (options, observer): (&Options, &Arc<dyn Observer>),
    ) -> Result<(), Error> {
        let Ok(done) = &report.result else { return Ok(()) };
        if target.kind != TargetKind::Tenant || options.look_only || options.dry_run || !is_at_head(done) {
            return Ok(());
        }
        let options = Options { to: None, set: None, ..options.clone() };
        for tenant in &target.shared_with {
            let job = self.sharer_job(plans, target, &report.service, tenant, values)?;
            match (work_on(&job, &Work::Seed, &options, &**observer).await, &mut report.result) {
                (Ok(seeded), Ok(whole)) => add(whole, seeded, tenant),
                (Err(error), whole) => {
                    *whole = Err(error);
                    break;
                }
                (Ok(_), Err(_)) => break,
            }
        }
        Ok(())
    }

    /// Looks, and changes nothing, which seeds of a service would run in a database for its tenants but the
    /// first.
    pub(crate) async fn look_at_sharers(
        &self,
        plans: &Plans,
        target: &FleetTarget,
        service: &str,
        values: &Values,
        (options, observer): (&Options, &Arc<dyn Observer>),
    ) -> Vec<Result<Report, Error>> {
        let mut looked = Vec::with_capacity(target.shared_with.len());
        if target.kind != TargetKind::Tenant {
            return looked;
        }
        let options =
            run::looking(&Options { dry_run: false, to: None, set: None, announcer: None, ..options.clone() });
        for tenant in &target.shared_with {
            looked.push(match self.sharer_job(plans, target, service, tenant, values) {
                Err(error) => Err(error),
                // What its program has in it is among the files, and nobody needs to start it for a look.
                Ok(job) => run::seed(&job.target, &job.path, &options, &**observer)
                    .await
                    .map_err(|error| Error::of_run(format!("cannot look at {}", job.target.name), &error)),
            });
        }
        looked
    }

    fn sharer_job(
        &self,
        plans: &Plans,
        target: &FleetTarget,
        service: &str,
        tenant: &str,
        values: &Values,
    ) -> Result<Job, Error> {
        let none = BTreeMap::new();
        let mut job = self.job(plans, target, service, values.get(tenant).unwrap_or(&none))?;
        job.target = job.target.shared_by(tenant);
        job.target.name = format!("{service}/{tenant}");
        Ok(job)
    }
}

/// Whether nothing is left to migrate.
fn is_at_head(report: &Report) -> bool {
    report.outcome != Outcome::Pending && report.blocked.is_none() && report.pending.is_empty()
}

/// Adds what was seeded for another tenant.
fn add(whole: &mut Report, seeded: Report, tenant: &str) {
    whole.seeded.extend(seeded.seeded.into_iter().map(|name| format!("{name} ({tenant})")));
    if seeded.outcome == Outcome::Applied {
        whole.outcome = Outcome::Applied;
    }
}
