//! Making a rollout, or finding the one to go on with.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_migrate::{Observer, Options, Outcome};
use pgfleet_postgres::Type;
use serde::Serialize;

use super::plan::{HOSTS, Planned, Spread};
use super::read::{Rollout, unfinished};
use super::{RolloutState, What, failed};
use crate::bundle::Bundle;
use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, TargetReport, Work};
use crate::manifest::Service;
use crate::plans::{Plans, Prints};
use crate::roles::Login;
use crate::solution::{Solution, not_provisioned};
use crate::targets::{FleetTarget, TargetKind};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Only these services.
    pub services: Vec<String>,
    /// Only these tenants, and neither hosts nor templates.
    pub tenants: Vec<String>,
    /// Look at every target, whatever is known of it.
    pub recheck: bool,
    /// Properties for the seeds of hosts.
    pub properties: BTreeMap<String, String>,
    /// How many databases of one server at a time; else as the manifest says.
    pub concurrency: Option<u32>,
    /// How many tenants are in the first wave; else as the manifest says.
    pub canary: Option<u32>,
    /// How many failures halt it; else as the manifest says.
    pub max_failures: Option<u32>,
}

/// What there is to do.
#[derive(Debug)]
pub enum Begun {
    /// No tenant has a database of its own that was asked for.
    NoTenants,
    /// Every tenant's database is known to be where it should be.
    Current {
        /// How many pairs of service and tenant that are.
        targets: usize,
    },
    /// Something is to be done, by this rollout.
    Rollout {
        /// Its number.
        id: i64,
        /// Whether it was there already.
        joined: bool,
        /// What targets are brought to.
        plans: Plans,
    },
}

/// What was found before anything is written.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Survey {
    NoTenants,
    Current {
        targets: usize,
    },
    /// A rollout is not over; what is asked for may be something else.
    Unfinished {
        rollout: Rollout,
        what: What,
        plans: Plans,
    },
    Draft(Box<Draft>),
}

/// A rollout that is not written down yet.
struct Draft {
    what: What,
    plans: Plans,
    planned: Vec<Planned>,
    /// Whether a service's own database is not there.
    missing: bool,
}

/// What a rollout would do.
#[derive(Debug, Default, Serialize)]
pub struct Outlook {
    /// The rollout that is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Rollout>,
    /// The waves of the one that would be made.
    pub waves: Vec<Wave>,
    /// How many pairs of service and tenant are known to be where they should be; none when something is
    /// to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<usize>,
}

/// A wave of a rollout.
#[derive(Debug, Serialize)]
pub struct Wave {
    /// Its number.
    pub wave: i32,
    /// What is in it.
    pub kind: TargetKind,
    /// How many databases.
    pub targets: usize,
}

impl Solution {
    /// Finds out what a rollout would do, and changes nothing; none when no tenant has a database of its
    /// own that was asked for.
    ///
    /// # Errors
    ///
    /// As [`begin_rollout`](Self::begin_rollout), but a rollout that is not over is none.
    pub async fn outlook(
        &self,
        ask: &Ask,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Option<Outlook>, Error> {
        let Some(catalogue) = self.catalogue_if_any().await? else { return Ok(None) };
        let found = Box::pin(self.survey(&catalogue, ask, options, observer)).await;
        catalogue.close().await;
        Ok(match found? {
            Survey::NoTenants => None,
            Survey::Current { targets } => Some(Outlook { current: Some(targets), ..Outlook::default() }),
            Survey::Unfinished { rollout, .. } => Some(Outlook { unfinished: Some(rollout), ..Outlook::default() }),
            Survey::Draft(draft) => {
                let mut waves: BTreeMap<(i32, TargetKind), usize> = BTreeMap::new();
                for target in &draft.planned {
                    *waves.entry((target.wave, target.kind)).or_default() += 1;
                }
                let wave = |((wave, kind), targets)| Wave { wave, kind, targets };
                Some(Outlook { waves: waves.into_iter().map(wave).collect(), ..Outlook::default() })
            }
        })
    }

    /// Finds out what is to be done in tenants' databases, and makes a rollout for it where there is
    /// something; or finds the one that somebody began.
    ///
    /// Looks at the services' own databases, and at what the control database remembers of tenants'.
    ///
    /// # Errors
    ///
    /// A rollout of something else is not finished, or one of this is paused or halted; files that cannot
    /// be used; an unknown service or tenant; a server that cannot be reached.
    pub async fn begin_rollout(
        &mut self,
        ask: &Ask,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Begun, Error> {
        let Some(catalogue) = self.rollouts_catalogue().await? else { return Ok(Begun::NoTenants) };
        let begun = Box::pin(self.begin(&catalogue, ask, options, observer)).await;
        catalogue.close().await;
        begun
    }

    /// Opens the control database, brought to this version; none when there is none.
    async fn rollouts_catalogue(&self) -> Result<Option<Catalogue>, Error> {
        let control = &self.manifest.control;
        let (admin, name) = (&self.server(&control.server).admin, &self.manifest.solution.name);
        let Some(catalogue) = Catalogue::open_if_there(admin, &control.database).await? else { return Ok(None) };
        Catalogue::refuse_foreign(catalogue.connection(), name).await?;
        if !catalogue.has_tenants().await? {
            Catalogue::make(admin, &control.database, name, self.options()).await?;
        }
        Ok(Some(catalogue))
    }

    async fn begin(
        &mut self,
        catalogue: &Catalogue,
        ask: &Ask,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Begun, Error> {
        let known = self.services(&ask.services)?.iter().all(|service| self.address(service, Login::Migrator).is_ok());
        let found = match Box::pin(self.survey(catalogue, ask, options, observer)).await? {
            // A look at what is not there says so; nothing was looked at without a password.
            Survey::Draft(draft) if draft.missing || !known => {
                self.provision(false).await?;
                Box::pin(self.survey(catalogue, ask, options, observer)).await?
            }
            found => found,
        };
        let draft = match found {
            Survey::NoTenants => return Ok(Begun::NoTenants),
            Survey::Current { targets } => return Ok(Begun::Current { targets }),
            Survey::Unfinished { rollout, what, plans } => {
                refuse_other(&rollout, &what)?;
                adjust(catalogue, rollout.id, ask).await?;
                return Ok(Begun::Rollout { id: rollout.id, joined: true, plans });
            }
            Survey::Draft(draft) => draft,
        };
        let Draft { what, plans, planned, .. } = *draft;
        match self.write_rollout(catalogue, &what, ask, &planned).await? {
            Some(id) => Ok(Begun::Rollout { id, joined: false, plans }),
            // Somebody else was faster.
            None => match unfinished(catalogue).await? {
                Some(there) => {
                    refuse_other(&there, &what)?;
                    Ok(Begun::Rollout { id: there.id, joined: true, plans })
                }
                None => self.nothing_to_do(catalogue, &plans.prints()).await,
            },
        }
    }

    /// Finds out what there is to do, and changes nothing.
    async fn survey(
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
        let tenants = self.tenants_to_do(catalogue, &prints, &what, every).await?;
        if tenants.is_empty() {
            return Ok(match self.nothing_to_do(catalogue, &prints).await? {
                Begun::Current { targets } if targets > 0 => Survey::Current { targets },
                _ => Survey::NoTenants,
            });
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

    async fn nothing_to_do(&self, catalogue: &Catalogue, prints: &Prints) -> Result<Begun, Error> {
        let stale = self.stale_tenants(catalogue, prints, self.manifest.tenants.verify_after).await?;
        Ok(Begun::Current { targets: stale.targets })
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

    /// Writes a rollout and its targets in one transaction; none when another one is not finished.
    pub(super) async fn write_rollout(
        &self,
        catalogue: &Catalogue,
        what: &What,
        ask: &Ask,
        planned: &[Planned],
    ) -> Result<Option<i64>, Error> {
        let rollouts = &self.manifest.rollouts;
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let (concurrency, canary, max_failures) = (
            number(ask.concurrency.unwrap_or(rollouts.concurrency)),
            number(ask.canary.unwrap_or(rollouts.canary)),
            number(ask.max_failures.unwrap_or(rollouts.max_failures)),
        );
        let text = serde_json::to_string(what)
            .map_err(|error| Error::new(ErrorKind::Failed, "cannot write a rollout").cause(error.to_string()))?;
        let who = &self.options().who;
        catalogue.begin().await?;
        let work = async {
            let made = catalogue
                .connection()
                .query(
                    "INSERT INTO control.rollouts (plan, what, state, wave, concurrency, canary, max_failures, bundle, \
                       os_user, host, started_at) \
                     VALUES ($1, $2::text::jsonb, 'running', $3, $4, $5, $6, $7, $8, $9, now()) \
                     ON CONFLICT ((true)) WHERE state IN ('planned', 'running', 'paused', 'halted') DO NOTHING \
                     RETURNING id",
                    &[
                        (&what.plan(), Type::TEXT),
                        (&text, Type::TEXT),
                        (&planned.iter().map(|target| target.wave).min().unwrap_or_default(), Type::INT4),
                        (&concurrency, Type::INT4),
                        (&canary, Type::INT4),
                        (&max_failures, Type::INT4),
                        (&self.used_bundle().map(Bundle::to_bytes), Type::BYTEA),
                        (&who.user, Type::TEXT),
                        (&who.host, Type::TEXT),
                    ],
                )
                .await
                .map_err(|error| failed(&error))?;
            let Some(id) = made.first().map(|row| row.get::<_, i64>(0)) else { return Ok(None) };
            add_targets(catalogue, id, planned).await?;
            let detail = serde_json::json!({ "what": what, "targets": planned.len() });
            catalogue.audit("rollout", &id.to_string(), &detail, self.options()).await?;
            Ok(Some(id))
        };
        let result = work.await;
        catalogue.end(result).await
    }
}

/// Adds targets behind those that a rollout has; one that it has already is left as it is.
///
/// Returns how many were new.
pub(super) async fn add_targets(catalogue: &Catalogue, rollout: i64, planned: &[Planned]) -> Result<u64, Error> {
    let column = |of: fn(&Planned) -> &str| planned.iter().map(of).collect::<Vec<&str>>();
    let services: Vec<String> = planned.iter().map(|target| target.services.join(",")).collect();
    let waves: Vec<i32> = planned.iter().map(|target| target.wave).collect();
    catalogue
        .connection()
        .execute(
            "INSERT INTO control.rollout_targets (rollout, position, wave, kind, server, database, tenant, services) \
             SELECT $1, n.at + (SELECT coalesce(max(position), 0) FROM control.rollout_targets WHERE rollout = $1), \
               n.wave, n.kind, n.server, n.database, n.tenant, string_to_array(n.services, ',') \
             FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY \
               AS n (wave, kind, server, database, tenant, services, at) \
             ON CONFLICT (rollout, server, database) DO NOTHING",
            &[
                (&rollout, Type::INT8),
                (&waves, Type::INT4_ARRAY),
                (&column(|target| target.kind.word()), Type::TEXT_ARRAY),
                (&column(|target| &target.server), Type::TEXT_ARRAY),
                (&column(|target| &target.database), Type::TEXT_ARRAY),
                (&column(|target| &target.tenant), Type::TEXT_ARRAY),
                (&services, Type::TEXT_ARRAY),
            ],
        )
        .await
        .map_err(|error| failed(&error))
}

/// Takes over the limits that were given to somebody who joins.
pub(super) async fn adjust(catalogue: &Catalogue, id: i64, ask: &Ask) -> Result<(), Error> {
    let number = |value: Option<u32>| value.map(|value| i32::try_from(value).unwrap_or(i32::MAX));
    if ask.concurrency.is_none() && ask.max_failures.is_none() {
        return Ok(());
    }
    catalogue
        .connection()
        .execute(
            "UPDATE control.rollouts SET concurrency = coalesce($2, concurrency), \
             max_failures = coalesce($3, max_failures) WHERE id = $1",
            &[(&id, Type::INT8), (&number(ask.concurrency), Type::INT4), (&number(ask.max_failures), Type::INT4)],
        )
        .await
        .map_err(|error| failed(&error))?;
    Ok(())
}

/// Refuses to begin something while something else is not finished, and to go on where somebody has
/// to look first.
fn refuse_other(there: &Rollout, what: &What) -> Result<(), Error> {
    let Rollout { id, state, counts, .. } = there;
    let ended = format!("{} of {} databases are over", counts.ended(), counts.total());
    if there.plan != what.plan() {
        let cause = match &there.what.revert {
            Some(revert) => format!("it takes back what rollout {} did to {}", revert.rollout, revert.service),
            None => "it brings databases to other files, or is for other services or tenants".to_owned(),
        };
        return Err(Error::new(
            ErrorKind::Failed,
            format!("rollout {id} of something else is {}: {ended}", state.word()),
        )
        .cause(cause)
        .hinted(format!(
            "see it: pgfleet rollout show {id}; go on with it: pgfleet rollout resume {id}; \
             end it: pgfleet rollout cancel {id}"
        )));
    }
    match state {
        RolloutState::Paused | RolloutState::Halted => {
            let mut error = Error::new(ErrorKind::Failed, format!("rollout {id} is {}: {ended}", state.word()));
            if let Some(reason) = &there.reason {
                error = error.cause(reason.clone());
            }
            let retry = if counts.failed > 0 {
                format!("; with those again that failed: pgfleet rollout retry {id}")
            } else {
                String::new()
            };
            Err(error.hinted(format!("see it: pgfleet rollout show {id}; go on: pgfleet rollout resume {id}{retry}")))
        }
        _ => Ok(()),
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
