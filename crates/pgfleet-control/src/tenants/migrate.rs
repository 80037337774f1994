//! Bringing one tenant's databases to the head of the files, by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use pgfleet_migrate::{Observer, Options};

use super::TenantState;
use super::bench::Bench;
use super::sharers::Values;
use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, Job, TargetReport, Work};
use crate::plans::Plans;
use crate::solution::Solution;
use crate::standing::Standing;
use crate::targets::FleetTarget;

impl Solution {
    /// Migrates and seeds all databases of a tenant, several at a time, each service in its turn; in the
    /// services' own databases its seeds run where it has none of its own. A half-made tenant is finished
    /// first.
    ///
    /// # Errors
    ///
    /// There is no such tenant, or it is on its way out; the files cannot be used. What fails in a
    /// database is in its report.
    pub async fn migrate_tenant(
        &self,
        name: &str,
        options: &Options,
        concurrency: usize,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        let mut bench = Bench::open(self, false).await?;
        let migrated = Box::pin(self.migrate_with(&mut bench, name, options, concurrency, observer)).await;
        bench.close().await;
        migrated
    }

    async fn migrate_with(
        &self,
        bench: &mut Bench,
        name: &str,
        options: &Options,
        concurrency: usize,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
        match tenant.state {
            TenantState::Active | TenantState::Disabled => {}
            TenantState::Requested | TenantState::Creating | TenantState::Failed => {
                self.go_on(bench, None, name, observer).await?;
            }
            TenantState::Deleting | TenantState::Quarantined => {
                let message = format!("tenant {name} is {}: its databases are closed", tenant.state.word());
                return Err(Error::new(ErrorKind::Failed, message)
                    .hinted(format!("have it back: pgfleet tenant restore {name}")));
            }
        }
        let names: Vec<String> = tenant_services(&self.manifest).map(|service| service.name.clone()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let plans = self.plans(&names, observer).await?;
        let mut targets = self.targets_of_tenant(&bench.catalogue, name).await?;
        for target in targets.iter_mut().filter(|target| !target.unseen.is_empty()) {
            let seen = self.see(&bench.catalogue, target).await?;
            target.physical = seen.or(target.physical.take());
        }
        let values = self.seed_values(&bench.catalogue, name).await?;
        let all = self.values_of(&bench.catalogue, &targets).await?;
        let options = self.announcing(options);
        let of_target = targets.iter().map(|target| self.bring_target(&plans, target, &all, &options, observer));
        let at_a_time = futures_util::stream::iter(of_target).buffered(concurrency.max(1));
        let done: Vec<Result<Vec<TargetReport>, Error>> = at_a_time.collect().await;
        let mut reports = Vec::new();
        for (target, done) in targets.iter().zip(done) {
            let done = done?;
            let print = |report: &TargetReport| plans.get(&report.service).map(|plan| plan.print.as_str());
            let standings: Vec<Standing> =
                done.iter().map(|report| Standing::of(target, report, print(report))).collect();
            bench.catalogue.record_standings(&standings).await?;
            for report in done.iter().filter(|report| report.changed()) {
                let subject = target.name(&report.service);
                bench.catalogue.audit("migrate", &subject, &report.audit_detail(), self.options()).await?;
            }
            reports.extend(done);
        }
        let own: Vec<&String> = targets.iter().flat_map(|target| &target.services).collect();
        let shared: Vec<String> = names.iter().filter(|service| !own.contains(service)).cloned().collect();
        reports.extend(self.seed_shared(name, &plans, &shared, &values, &options, observer).await?);
        Ok(reports)
    }

    /// Migrates and seeds the services of one database, one after the other: they share its lock.
    async fn bring_target(
        &self,
        plans: &Plans,
        target: &FleetTarget,
        values: &Values,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        let none = BTreeMap::new();
        let own = values.get(&target.tenant).unwrap_or(&none);
        let jobs = target.services.iter().map(|service| self.job(plans, target, service, own));
        let jobs: Vec<Job> = jobs.collect::<Result<_, _>>()?;
        let mut reports = fleet::run_all(jobs, Work::Migrate, options, 1, observer.clone()).await;
        for report in &mut reports {
            self.seed_sharers(plans, target, values, report, (options, observer)).await?;
        }
        Ok(reports)
    }

    /// Runs a tenant's seeds in the services' own databases.
    pub(super) async fn seed_shared(
        &self,
        tenant: &str,
        plans: &Plans,
        services: &[String],
        values: &BTreeMap<String, String>,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let mut jobs = Vec::with_capacity(services.len());
        for target in self.host_targets(services)? {
            for service in &target.services {
                let mut job = self.job(plans, &target, service, values)?;
                job.target.name = format!("{service}/{tenant}");
                job.target = job.target.shared_by(tenant);
                jobs.push(job);
            }
        }
        Ok(fleet::run_all(jobs, Work::Seed, options, 1, observer.clone()).await)
    }
}
