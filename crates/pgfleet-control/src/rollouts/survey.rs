//! Finding out what there is to do, before anything is written.

use std::sync::Arc;

use pgfleet_migrate::{Observer, Options, Outcome};
use pgfleet_postgres::Type;

use super::begin::{Ask, Settled};
use super::plan::{HOSTS, Planned, Spread};
use super::read::{Rollout, unfinished};
use super::{What, failed};
use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, TargetReport, Work};
use crate::manifest::Service;
use crate::plans::{Plans, Prints};
use crate::roles::Login;
use crate::solution::{Solution, not_provisioned};
use crate::standing::Stale;
use crate::targets::FleetTarget;

/// What was found before anything is written.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Survey {
    NoTenants,
    Current(Settled),
    /// A rollout is not over; what is asked for may be something else.
    Unfinished {
        rollout: Rollout,
        what: What,
        plans: Plans,
    },
    Draft(Box<Draft>),
}

/// A rollout that is not written down yet.
pub(super) struct Draft {
    pub(super) what: What,
    pub(super) plans: Plans,
    pub(super) planned: Vec<Planned>,
    /// Whether a service's own database is not there.
    pub(super) missing: bool,
}

impl Solution {
    /// Finds out what there is to do, and changes nothing.
    pub(super) async fn survey(
        &self,
        catalogue: &Catalogue,
        ask: &Ask,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Survey, Error> {
        self.services(&ask.services)?;
        self.refuse_without_database(&ask.tenants).await?;
        let there = unfinished(catalogue).await?;
        if there.is_none() {
            let of_tenants = tenant_services(&self.manifest)
                .any(|service| ask.services.is_empty() || ask.services.contains(&service.name));
            if !of_tenants || !has_strings(catalogue, &ask.tenants).await? {
                return Ok(Survey::NoTenants);
            }
        }
        let mut plans = None;
        let mut prints = self.prints(&[])?;
        if prints.all().is_none() {
            let found = self.plans(&[], observer).await?;
            prints = found.prints();
            plans = Some(found);
        }
        let mut what = self.what(ask, options, &prints);
        if let Some(rollout) = there {
            let plans = self.plans_for_work(plans, observer).await?;
            what.prints = self.what(ask, options, &plans.prints()).prints;
            return Ok(Survey::Unfinished { rollout, what, plans });
        }
        // Where everybody is to be seeded, nobody is where he should be.
        let every = ask.recheck || !what.reaches_head() || self.manifest.tenants.always_seed;
        let stale = if every { None } else { Some(self.stale(catalogue, &prints).await?) };
        let tenants = self.tenants_to_do(catalogue, &prints, &what, stale.as_ref()).await?;
        if tenants.is_empty() {
            let settled = match stale {
                Some(stale) => Settled::of(stale, &what),
                None => self.nothing_to_do(catalogue, &prints, &what).await?,
            };
            let none = settled.targets == 0 && settled.moving.is_empty();
            return Ok(if none { Survey::NoTenants } else { Survey::Current(settled) });
        }
        let plans = self.plans_for_work(plans, observer).await?;
        what.prints = self.what(ask, options, &plans.prints()).prints;
        let mut planned = Vec::new();
        let mut missing = false;
        if what.tenants.is_empty() {
            let known = |service: &&Service| self.address(service, Login::Migrator).is_ok();
            if self.services(&what.services)?.iter().all(known) {
                (planned, missing) = self.hosts_to_do(&plans, &what, ask, options, observer).await?;
            }
            if what.reaches_head() {
                planned.extend(self.templates_to_do(catalogue, &plans, &what, &tenants).await?);
            }
        }
        planned.extend(Spread::of(&self.manifest, ask).waves(tenants));
        Ok(Survey::Draft(Box::new(Draft { what, plans, planned, missing })))
    }

    pub(super) async fn nothing_to_do(
        &self,
        catalogue: &Catalogue,
        prints: &Prints,
        what: &What,
    ) -> Result<Settled, Error> {
        Ok(Settled::of(self.stale(catalogue, prints).await?, what))
    }

    /// Finds out which tenants' databases are not known to be at these files.
    pub(super) async fn stale(&self, catalogue: &Catalogue, prints: &Prints) -> Result<Stale, Error> {
        self.stale_tenants(catalogue, prints, self.manifest.tenants.verify_after).await
    }

    /// Reads the plans of all services, since a template has all in it; a program that cannot be used
    /// would fail in every database.
    async fn plans_for_work(&self, known: Option<Plans>, observer: &Arc<dyn Observer>) -> Result<Plans, Error> {
        let plans = match known {
            Some(plans) => plans,
            None => self.plans(&[], observer).await?,
        };
        match plans.refusal() {
            Some(error) => Err(Error::of_program("cannot begin a rollout", &error)),
            None => Ok(plans),
        }
    }

    /// Returns the work that is asked for, as it is written down.
    pub(super) fn what(&self, ask: &Ask, options: &Options, prints: &Prints) -> What {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names.dedup();
            names
        };
        let of = |service: &String| Some((service.clone(), prints.get(service)?.to_owned()));
        let services = sorted(&ask.services);
        let all: Vec<String> = self.manifest.services.iter().map(|service| service.name.clone()).collect();
        What {
            prints: if services.is_empty() { &all } else { &services }.iter().filter_map(of).collect(),
            services,
            tenants: sorted(&ask.tenants),
            recheck: ask.recheck,
            to: options.to.as_ref().map(ToString::to_string),
            set: options.set.clone(),
            properties: ask.properties.keys().cloned().collect(),
            revert: None,
            run: uuid::Uuid::now_v7().to_string(),
        }
    }

    /// Refuses tenants that do not exist, or whose data is in the services' own databases.
    async fn refuse_without_database(&self, names: &[String]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let tenants = self.tenants().await?;
        for name in names {
            if crate::tenants::find(&tenants, name)?.strings.is_empty() {
                let message = format!("tenant {name} has no database of its own");
                return Err(Error::new(ErrorKind::Configuration, message)
                    .hinted("its data is in the services' own databases: pgfleet migrate"));
            }
        }
        Ok(())
    }

    /// Looks at the services' own databases, and lists those in which something is pending; and says
    /// whether one is not there.
    async fn hosts_to_do(
        &self,
        plans: &Plans,
        what: &What,
        ask: &Ask,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<(Vec<Planned>, bool), Error> {
        let mut targets = self.host_targets(&what.services)?;
        let looks = Options { look_only: true, dry_run: false, announcer: None, ..options.clone() };
        let mut jobs = Vec::new();
        for target in &targets {
            for service in &target.services {
                jobs.push(self.job(plans, target, service, &ask.properties)?);
            }
        }
        let concurrency = ask.concurrency.unwrap_or(self.manifest.rollouts.concurrency) as usize;
        let reports = fleet::run_all(jobs, Work::Migrate, &looks, concurrency, observer.clone()).await;
        let missing = |report: &TargetReport| {
            // One that failed has no notes; why it did is the other half of the question.
            let notes = report.result.as_ref().map(|report| report.notes.as_slice()).unwrap_or_default();
            not_provisioned(report) || notes.iter().any(|note| note == "the database does not exist")
        };
        let missing = reports.iter().any(missing);
        let pending = |target: &FleetTarget, service: &String| {
            let of = |report: &&TargetReport| report.service == *service && report.database == target.database;
            reports.iter().filter(of).any(|report| match &report.result {
                Ok(looked) => looked.outcome == Outcome::Pending || looked.blocked.is_some(),
                Err(_) => true,
            })
        };
        for target in &mut targets {
            let mut services = std::mem::take(&mut target.services);
            services.retain(|service| what.recheck || pending(target, service));
            target.services = services;
        }
        let some = targets.into_iter().filter(|target| !target.services.is_empty());
        Ok((some.map(|target| Planned::of(HOSTS, target)).collect(), missing))
    }
}

async fn has_strings(catalogue: &Catalogue, tenants: &[String]) -> Result<bool, Error> {
    let rows = catalogue
        .connection()
        .query(
            "SELECT EXISTS (SELECT FROM control.tenant_strings WHERE $1::text[] = '{}' OR tenant = ANY ($1))",
            &[(&tenants, Type::TEXT_ARRAY)],
        )
        .await
        .map_err(|error| failed(&error))?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}
