//! Tenants that somebody began with and did not finish, and databases whose time has come.

use super::{Finding, Kind, Mender};
use crate::error::Error;
use crate::tenants::dropping::due;
use crate::tenants::{Keep, Tenant, TenantState};

impl Mender<'_> {
    /// Goes on with tenants that are neither active nor disabled nor in quarantine.
    pub(super) async fn half_made(&mut self) -> Result<(), Error> {
        for tenant in self.tenants().await? {
            let name = tenant.name.clone();
            let begun = |what: &str| match &tenant.error {
                Some(error) => format!("{what}; the last of {} attempts failed: {error}", tenant.attempts),
                None => what.to_owned(),
            };
            let finding = match tenant.state {
                TenantState::Requested | TenantState::Creating | TenantState::Failed => {
                    Finding::new(Kind::HalfMade, &name, begun("it was asked for and is not finished"))
                }
                TenantState::Deleting => Finding::new(Kind::HalfDeleted, &name, begun("it is not closed yet")),
                TenantState::Quarantined if tenant.databases.is_empty() => {
                    Finding::new(Kind::HalfDeleted, &name, "its databases are dropped")
                }
                TenantState::Quarantined if is_half_restored(&tenant) => {
                    Finding::new(Kind::HalfRestored, &name, "it was to come back, and is in quarantine still")
                        .hinted(format!("pgfleet tenant restore {name}; or once more: pgfleet tenant delete {name}"))
                }
                TenantState::Active | TenantState::Disabled if is_half_led_back(&tenant) => {
                    Finding::new(Kind::HalfRestored, &name, "it was to be led back to a database that is closed still")
                        .hinted(format!("pgfleet tenant restore {name}"))
                }
                TenantState::Active | TenantState::Disabled | TenantState::Quarantined => continue,
            };
            let finding = self.with_tenant(&tenant, finding).await?;
            self.findings.push(finding);
        }
        Ok(())
    }

    async fn with_tenant(&mut self, tenant: &Tenant, finding: Finding) -> Result<Finding, Error> {
        let name = &tenant.name;
        if !self.bench.try_hold(name).await? {
            return Ok(finding.hinted("another process works on it just now"));
        }
        if self.how.dry_run || finding.kind == Kind::HalfRestored {
            self.bench.release(name).await;
            return Ok(finding);
        }
        let finding = if finding.kind == Kind::HalfMade {
            // Held once more by who goes on: the lock counts.
            let made = Box::pin(self.solution.go_on(&mut self.bench, None, name, self.observer)).await;
            finding.ended(made.map(|_| "it is active now"))
        } else {
            let removed = Box::pin(self.solution.delete_held(&mut self.bench, name, Keep::AsConfigured)).await;
            finding.ended(removed.map(|removed| if removed.gone { "it is gone" } else { "it is in quarantine now" }))
        };
        self.bench.release(name).await;
        Ok(finding)
    }

    /// Drops what is due, or says what is.
    pub(super) async fn due(&mut self) -> Result<(), Error> {
        if self.how.dry_run {
            for (tenant, server, database) in due(self.catalogue()).await? {
                let found = format!("it was tenant {tenant}'s, and its time has come");
                self.findings.push(Finding::new(Kind::Due, database, found).at(&server));
            }
            return Ok(());
        }
        for dropped in self.solution.drop_due(&mut self.bench).await? {
            let found = format!("it was tenant {}'s, and its time had come", dropped.tenant);
            let mut finding = Finding::new(Kind::Due, &dropped.database, found).at(&dropped.server);
            match dropped.error {
                None => finding.done = Some("it is dropped".to_owned()),
                Some(error) => finding.error = Some(error),
            }
            self.findings.push(finding);
        }
        Ok(())
    }
}

/// Whether somebody began to have a tenant back: then nothing of it is due any more.
fn is_half_restored(tenant: &Tenant) -> bool {
    tenant.databases.iter().any(|own| own.drop_after.is_none())
}

/// Whether somebody began to lead a tenant that is served back to a closed database.
fn is_half_led_back(tenant: &Tenant) -> bool {
    tenant.databases.iter().any(|own| own.state == "closed" && own.drop_after.is_none())
}
