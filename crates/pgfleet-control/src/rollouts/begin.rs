//! Making a rollout, or finding the one to go on with.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_migrate::{Observer, Options};
use pgfleet_postgres::Type;

use super::plan::Planned;
use super::read::{Rollout, unfinished};
use super::survey::{Draft, Survey};
use super::{RolloutState, What, failed};
use crate::bundle::Bundle;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::plans::Plans;
use crate::roles::Login;
use crate::solution::Solution;
use crate::standing::Stale;

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

/// What is known where nothing is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// How many pairs of service and tenant are where they should be.
    pub targets: usize,
    /// The tenants that are being moved and are not known to be there: nobody migrates them before that is over.
    pub moving: Vec<String>,
}

impl Settled {
    /// What is known of the tenants that are asked for.
    pub(super) fn of(stale: Stale, what: &What) -> Self {
        let Stale { targets, mut moving, .. } = stale;
        moving.retain(|tenant| what.tenants.is_empty() || what.tenants.contains(tenant));
        Self { targets, moving }
    }
}

/// What there is to do.
#[derive(Debug)]
pub enum Begun {
    /// No tenant has a database of its own that was asked for.
    NoTenants,
    /// Every tenant's database is known to be where it should be, but for those of tenants that are being moved.
    Current(Settled),
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

impl Solution {
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
        if self.expects_migrations() && matches!(begun, Ok(Begun::Current(_) | Begun::NoTenants)) {
            // Hosts come next, and then their guests, who are looked for in it.
            self.keep_control(Some((catalogue, true)));
        } else {
            catalogue.close().await;
        }
        begun
    }

    /// Opens the control database, brought to this version; none when there is none.
    async fn rollouts_catalogue(&self) -> Result<Option<Catalogue>, Error> {
        let Some((catalogue, knows_tenants)) = Box::pin(self.open_control()).await? else { return Ok(None) };
        if !knows_tenants {
            let control = &self.manifest.control;
            let admin = &self.server(&control.server).admin;
            Catalogue::make(admin, &control.database, &self.manifest.solution.name, self.options()).await?;
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
            Survey::Current(settled) => return Ok(Begun::Current(settled)),
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
                None => self.nothing_to_do(catalogue, &plans.prints(), &what).await.map(Begun::Current),
            },
        }
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
