//! Migrating and seeding databases, and writing down where they stand then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgfleet_migrate::Outcome;

use super::handle::Handler;
use super::message::Received;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, Job, TargetReport, Work};
use crate::plans::Plans;
use crate::standing::Standing;
use crate::targets::FleetTarget;

impl Handler<'_> {
    /// Migrates and seeds services in databases, one after the other, and records where they stand.
    pub(super) async fn bring(
        &self,
        targets: &[FleetTarget],
        services: &[String],
        received: &Received,
    ) -> Result<String, Error> {
        let mut notes = Vec::new();
        let mut failed = None;
        for target in targets {
            let here: Vec<String> =
                target.services.iter().filter(|service| services.contains(service)).cloned().collect();
            if here.is_empty() {
                continue;
            }
            let plans = self.plans(&here, received).await?;
            let catalogue = self.catalogue().await?;
            let all = self.solution.values_of(&catalogue, [target]).await?;
            let none = BTreeMap::new();
            let values = all.get(&target.tenant).unwrap_or(&none);
            let jobs = here.iter().map(|service| self.solution.job(&plans, target, service, values));
            let jobs: Vec<Job> = jobs.collect::<Result<_, _>>()?;
            let mut reports = fleet::run_all(jobs, Work::Migrate, &self.options, 1, self.observer.clone()).await;
            for report in &mut reports {
                let how = (&self.options, &self.observer);
                self.solution.seed_sharers(&plans, target, &all, report, how).await?;
            }
            self.record(&catalogue, target, &plans, &reports).await?;
            for report in reports {
                let name = target.name(&report.service);
                match &report.result {
                    Ok(done) => notes.push(format!("{name}: {}", said(done))),
                    Err(error) if failed.is_none() => {
                        failed = Some(Error::of_run(format!("cannot migrate and seed {name}"), error));
                    }
                    Err(_) => {}
                }
            }
        }
        match failed {
            Some(error) if self.options.stop.is_asked() => Err(Error::new(ErrorKind::Stopped, error.to_string())),
            Some(error) => Err(error),
            None if notes.is_empty() => Ok("it leads no service's data".to_owned()),
            None => Ok(notes.join("; ")),
        }
    }

    async fn record(
        &self,
        catalogue: &Catalogue,
        target: &FleetTarget,
        plans: &Plans,
        reports: &[TargetReport],
    ) -> Result<(), Error> {
        // What was stopped says nothing of where it stands.
        let told = reports.iter().filter(|report| report.result.is_ok() || !self.options.stop.is_asked());
        let standings: Vec<Standing> = told
            .clone()
            .map(|report| Standing::of(target, report, plans.get(&report.service).map(|plan| plan.print.as_str())))
            .collect();
        catalogue.record_standings(&standings).await?;
        for report in told.filter(|report| report.changed()) {
            let subject = target.name(&report.service);
            catalogue.audit("migrate", &subject, &report.audit_detail(), &self.options).await?;
        }
        Ok(())
    }

    /// Returns what services' databases are to be brought to, as it is since the message is due.
    pub(super) async fn plans(&self, services: &[String], received: &Received) -> Result<Arc<Plans>, Error> {
        // Those who come together wait for the first and share what it read.
        let mut known = self.plans.lock().await;
        let now = Instant::now();
        if let Some((since, plans)) = known.get(services)
            && *since >= received.due
        {
            return Ok(plans.clone());
        }
        let plans = Arc::new(self.solution.plans(services, &self.observer).await?);
        known.insert(services.to_vec(), (now, plans.clone()));
        Ok(plans)
    }
}

/// Says how a run ended.
fn said(report: &pgfleet_migrate::Report) -> String {
    match report.outcome {
        Outcome::Applied => {
            let seeded = match report.seeded.len() {
                0 => String::new(),
                count => format!(", seeded {count}"),
            };
            format!("applied {}{seeded}", report.applied.len())
        }
        _ => "nothing to do".to_owned(),
    }
}
