//! Taking back what a rollout did, as a rollout of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_migrate::revert::Goal;
use pgfleet_migrate::{Observer, Options};
use pgfleet_postgres::Type;

use super::begin::{Ask, Begun};
use super::plan::{CANARY, Planned, Spread};
use super::read::{find, unfinished};
use super::{Reverted, What, failed};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::fleet::{TargetReport, Work, run_all};
use crate::plans::Plans;
use crate::solution::Solution;
use crate::targets::{FleetTarget, TargetKind};

/// What is to be taken back.
#[derive(Debug, Clone)]
pub struct AskRevert {
    /// What this rollout applied.
    pub rollout: i64,
    /// Of this service.
    pub service: String,
}

impl Solution {
    /// Makes a rollout that takes back what another one applied of a service, wherever it did: in
    /// tenants' databases first, in the service's own last.
    ///
    /// # Errors
    ///
    /// There is no such rollout, it took something back itself, or applied nothing of the service; a
    /// rollout of something else is not finished.
    pub async fn begin_revert(
        &self,
        revert: &AskRevert,
        ask: &Ask,
        observer: &Arc<dyn Observer>,
    ) -> Result<Begun, Error> {
        crate::jobs::find_service(&self.manifest, &revert.service)?;
        let plans = self.plans(std::slice::from_ref(&revert.service), observer).await?;
        if let Some(error) = plans.refusal() {
            return Err(Error::of_program(format!("cannot take back rollout {}", revert.rollout), &error));
        }
        let catalogue = self.tenant_catalogue().await?;
        let begun = self.revert_rollout(&catalogue, revert, ask, plans).await;
        catalogue.close().await;
        begun
    }

    /// Goes back in one tenant's database, by hand; what was known of it is forgotten.
    ///
    /// # Errors
    ///
    /// There is no such tenant, or it has no database of its own for the service; and as
    /// [`revert`](Self::revert).
    pub async fn revert_tenant(
        &self,
        tenant: &str,
        service: &str,
        goal: Goal,
        options: &Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        crate::jobs::find_service(&self.manifest, service)?;
        self.tenant(tenant).await?;
        let plans = self.plans(&[service.to_owned()], &observer).await?;
        let catalogue = self.tenant_catalogue().await?;
        let targets = self.targets_of_tenant(&catalogue, tenant).await?;
        let Some(target) = targets.into_iter().find(|target| target.services.iter().any(|own| own == service)) else {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("tenant {tenant} has no database of its own for service {service}"),
            )
            .hinted(format!("its data is in the service's own: pgfleet revert --service {service}")));
        };
        if !options.dry_run {
            catalogue.forget_standings(&target.server, &target.database).await?;
        }
        let job = self.job(&plans, &target, service, &BTreeMap::new())?;
        let reports = run_all(vec![job], Work::Revert(goal), options, 1, observer).await;
        if !options.dry_run {
            // Somebody may have looked while it went.
            catalogue.forget_standings(&target.server, &target.database).await?;
            for report in reports.iter().filter(|report| report.changed()) {
                catalogue.audit("revert", &target.name(service), &report.audit_detail(), options).await?;
            }
        }
        catalogue.close().await;
        Ok(reports)
    }

    async fn revert_rollout(
        &self,
        catalogue: &Catalogue,
        revert: &AskRevert,
        ask: &Ask,
        plans: Plans,
    ) -> Result<Begun, Error> {
        let AskRevert { rollout: id, service } = revert;
        let rollout = find(catalogue, *id).await?;
        if rollout.what.revert.is_some() {
            return Err(Error::new(ErrorKind::Configuration, format!("rollout {id} took something back itself"))
                .hinted("apply it again: pgfleet migrate"));
        }
        let what = What {
            revert: Some(Reverted { rollout: *id, service: service.clone(), run: rollout.what.run.clone() }),
            run: uuid::Uuid::now_v7().to_string(),
            ..What::default()
        };
        if let Some(there) = unfinished(catalogue).await? {
            if there.plan == what.plan() {
                return Ok(Begun::Rollout { id: there.id, joined: true, plans });
            }
            let message = format!("cannot take back rollout {id}: rollout {} is {}", there.id, there.state.word());
            return Err(Error::new(ErrorKind::Failed, message)
                .hinted(format!("let it end, or end it: pgfleet rollout cancel {}", there.id)));
        }
        let targets = applied(catalogue, *id, service).await?;
        let (hosts, tenants): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|target| target.kind == TargetKind::Host);
        let spread = Spread::of(&self.manifest, ask);
        let mut planned = spread.waves(tenants);
        let last = planned.iter().map(|target| target.wave).max().unwrap_or(CANARY);
        planned.extend(hosts.into_iter().map(|host| Planned::of(last + 1, host)));
        if planned.is_empty() {
            return Err(Error::new(ErrorKind::Failed, format!("rollout {id} applied nothing of {service}"))
                .hinted(format!("see it: pgfleet rollout show {id}")));
        }
        match self.write_rollout(catalogue, &what, ask, &planned).await? {
            Some(id) => Ok(Begun::Rollout { id, joined: false, plans }),
            None => {
                Err(Error::new(ErrorKind::Failed, format!("cannot take back rollout {id}: another one just began"))
                    .hinted("see which: pgfleet rollout list"))
            }
        }
    }
}

/// Lists the databases in which a rollout applied something of a service, or may have.
async fn applied(catalogue: &Catalogue, id: i64, service: &str) -> Result<Vec<FleetTarget>, Error> {
    let rows = catalogue
        .connection()
        .query(
            "SELECT kind, server, database, tenant FROM control.rollout_targets \
             WHERE rollout = $1 AND $2 = ANY (services) AND kind <> 'template' AND attempts > 0 \
               AND (state <> 'done' OR coalesce(result -> $2 -> 'applied', '[]') <> '[]') ORDER BY position",
            &[(&id, Type::INT8), (&service, Type::TEXT)],
        )
        .await
        .map_err(|error| failed(&error))?;
    let services = [service.to_owned()];
    let mut targets = Vec::with_capacity(rows.len());
    for row in rows {
        let kind = if row.get::<_, &str>(0) == TargetKind::Host.word() { TargetKind::Host } else { TargetKind::Tenant };
        targets.push(FleetTarget::on(kind, row.get(1), row.get(2), row.get(3), &services));
    }
    Ok(targets)
}
