//! Tenants without a database of their own: their seeds run in the services' own databases, under each
//! tenant's scope.
//!
//! Which of them were brought to which plan is remembered in `control.targets` under the name
//! `service/tenant` of a set, so that nothing is asked where nothing changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_migrate::{Observer, Options};
use pgfleet_postgres::Type;

use super::properties;
use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::Error;
use crate::fleet::{self, Job, TargetReport, Work};
use crate::plans::{Plans, Prints};
use crate::solution::Solution;

/// How the seeds of one tenant ended in the database of one service.
#[derive(Debug)]
pub struct GuestReport {
    /// The tenant.
    pub tenant: String,
    /// What became of it.
    pub report: TargetReport,
}

impl Solution {
    /// Seeds, in the services' own databases, the tenants that have none of their own for a service and
    /// are not known to be at its plan; with `options.always_seed` all of them.
    ///
    /// Only the tenants and services named, when some are. One failure stops none of the others. Where
    /// nothing is to be done no database but the control database is asked, and no program is started
    /// that was asked before.
    ///
    /// # Errors
    ///
    /// The control database cannot be read or written, or files cannot be used.
    pub async fn seed_guests(
        &self,
        catalogue: &Catalogue,
        (tenants, services): (&[String], &[String]),
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<GuestReport>, Error> {
        let prints = self.prints_of_all(observer).await?;
        let due = self.guests_due(catalogue, &prints, (tenants, services), options.always_seed).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let plans = self.plans(&[], observer).await?;
        let named: Vec<&str> = due.iter().map(|(tenant, _)| tenant.as_str()).collect();
        let values = properties::read_all(catalogue.connection(), &self.keys()?, &named).await?;
        let mut jobs = Vec::with_capacity(due.len());
        for (tenant, service) in &due {
            jobs.push(self.guest_job(&plans, tenant, service, values.get(tenant))?);
        }
        let options = Options { to: None, set: None, ..self.announcing(options) };
        let concurrency = self.manifest.rollouts.concurrency as usize;
        let reports = fleet::run_all(jobs, Work::Seed, &options, concurrency, observer.clone()).await;
        let reports: Vec<GuestReport> =
            due.into_iter().zip(reports).map(|((tenant, _), report)| GuestReport { tenant, report }).collect();
        self.remember_guests(catalogue, &plans, &reports).await?;
        Ok(reports)
    }

    /// Lists tenant and service of those whose seeds have to be looked at.
    async fn guests_due(
        &self,
        catalogue: &Catalogue,
        known: &Prints,
        (tenants, asked): (&[String], &[String]),
        always: bool,
    ) -> Result<Vec<(String, String)>, Error> {
        let (mut services, mut servers, mut databases, mut prints) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for job in self.jobs(asked, &BTreeMap::new())? {
            let Some(service) = tenant_services(&self.manifest).find(|service| service.name == job.service) else {
                continue;
            };
            // A program may have seeders.
            if service.program.is_none() && job.path.sets().iter().all(|set| set.seeds.files.is_empty()) {
                continue;
            }
            services.push(service.name.as_str());
            servers.push(service.server.as_str());
            databases.push(service.database.as_str());
            prints.push(known.get(&service.name).unwrap_or_default());
        }
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let seconds = i64::try_from(self.manifest.tenants.verify_after.as_secs()).unwrap_or(i64::MAX);
        let rows = catalogue
            .connection()
            .query(
                "SELECT n.name, w.service FROM control.tenants n \
                 CROSS JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS w (service, server, database, plan) \
                 LEFT JOIN control.targets t ON t.server = w.server AND t.database = w.database \
                   AND t.set_name = w.service || '/' || n.name \
                 WHERE n.state IN ('active', 'disabled') AND ($5::text[] = '{}' OR n.name = ANY ($5)) \
                   AND NOT EXISTS (SELECT FROM control.tenant_strings s \
                                   WHERE s.tenant = n.name AND s.connection IN ('', w.service)) \
                   AND ($6 OR t.plan IS DISTINCT FROM w.plan OR t.state <> 'current' \
                        OR t.verified_at < now() - $7::bigint * interval '1 second') \
                 ORDER BY n.name, w.service",
                &[
                    (&services, Type::TEXT_ARRAY),
                    (&servers, Type::TEXT_ARRAY),
                    (&databases, Type::TEXT_ARRAY),
                    (&prints, Type::TEXT_ARRAY),
                    (&tenants, Type::TEXT_ARRAY),
                    (&always, Type::BOOL),
                    (&seconds, Type::INT8),
                ],
            )
            .await
            .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Makes the piece of work of seeding one tenant in a service's own database.
    fn guest_job(
        &self,
        plans: &Plans,
        tenant: &str,
        service: &str,
        values: Option<&BTreeMap<String, String>>,
    ) -> Result<Job, Error> {
        let hosts = self.host_targets(&[service.to_owned()])?;
        // `host_targets` has one for each service that it was asked for.
        let mut job = self.job(plans, &hosts[0], service, values.unwrap_or(&BTreeMap::new()))?;
        job.target = job.target.shared_by(tenant);
        job.target.name = format!("{service}/{tenant}");
        Ok(job)
    }

    async fn remember_guests(
        &self,
        catalogue: &Catalogue,
        plans: &Plans,
        reports: &[GuestReport],
    ) -> Result<(), Error> {
        for GuestReport { tenant, report } in reports {
            let (_, state, error) = report.catalogue_row();
            let print = plans.get(&report.service).filter(|_| report.result.is_ok()).map(|plan| plan.print.as_str());
            let set = format!("{}/{tenant}", report.service);
            catalogue
                .connection()
                .execute(
                    "INSERT INTO control.targets (server, database, service, set_name, tenant, state, error, plan) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                     ON CONFLICT (server, database, set_name) DO UPDATE SET state = excluded.state, \
                       error = excluded.error, plan = excluded.plan, verified_at = now()",
                    &[
                        (&report.server, Type::TEXT),
                        (&report.database, Type::TEXT),
                        (&report.service, Type::TEXT),
                        (&set, Type::TEXT),
                        (tenant, Type::TEXT),
                        (&state, Type::TEXT),
                        (&error, Type::TEXT),
                        (&print, Type::TEXT),
                    ],
                )
                .await
                .map_err(|error| Error::postgres("cannot write down where a tenant's seeds stand", &error))?;
        }
        Ok(())
    }
}
