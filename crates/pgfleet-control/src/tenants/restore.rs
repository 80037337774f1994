//! Having a deleted tenant back.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_postgres::Type;

use super::bench::Bench;
use super::life::Half;
use super::workshop::Workshop;
use super::{Done, TenantState, properties, replaced};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::solution::Solution;

impl Solution {
    /// Has a deleted tenant back: its databases are opened, brought to the head of the files, and services
    /// serve it again. One that was disabled before is disabled.
    ///
    /// A tenant that is served is led back to the databases that were made for it and closed when it was
    /// given other strings; those strings are replaced. Without such a database nothing is changed.
    ///
    /// # Errors
    ///
    /// It is being made or moved; a database is gone; as [`create_tenants`](Self::create_tenants).
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on; what it has begun to open is not dropped meanwhile.
    pub async fn restore_tenant(&self, name: &str, observer: &Arc<dyn Observer>) -> Result<Done, Error> {
        let mut bench = Bench::open(self, false).await?;
        let restored = async {
            bench.hold(name).await?;
            let restored = Box::pin(self.restore_held(&mut bench, name, observer)).await;
            bench.release(name).await;
            restored
        };
        let restored = restored.await;
        bench.close().await;
        restored
    }

    async fn restore_held(&self, bench: &mut Bench, name: &str, observer: &Arc<dyn Observer>) -> Result<Done, Error> {
        let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
        match tenant.state {
            TenantState::Quarantined | TenantState::Deleting => {}
            TenantState::Active | TenantState::Disabled => {
                return Box::pin(self.lead_back(bench, tenant, observer)).await;
            }
            state => {
                let message = format!("tenant {name} is {}: it was not deleted", state.word());
                return Err(Error::new(ErrorKind::Failed, message)
                    .hinted(format!("go on with it: pgfleet tenant migrate {name}")));
            }
        }
        let databases = replaced::led(&tenant);
        for own in &databases {
            replaced::keep(bench.catalogue.connection(), own).await?;
        }
        let workshop = Workshop::of(self, observer).await?;
        let to = match was(&bench.catalogue, name).await?.as_deref() {
            Some("disabled") => TenantState::Disabled,
            _ => TenantState::Active,
        };
        let values = properties::read(bench.catalogue.connection(), &self.keys()?, name).await?;
        let strings = tenant.strings.iter().filter(|string| string.server.is_empty());
        let half = Half {
            name: tenant.name.clone(),
            given: strings.map(|string| string.connection.clone()).collect::<BTreeSet<_>>(),
            databases,
            values,
        };
        let notes = workshop.finish(bench, half, to).await?;
        let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
        Ok(Done { tenant, changed: true, notes })
    }
}

/// Returns the state in which a tenant was deleted.
async fn was(catalogue: &Catalogue, tenant: &str) -> Result<Option<String>, Error> {
    let rows = catalogue
        .connection()
        .query(
            "SELECT detail ->> 'from' FROM control.audit WHERE action = 'tenant delete' AND subject = $1 \
             ORDER BY id DESC LIMIT 1",
            &[(&tenant, Type::TEXT)],
        )
        .await
        .map_err(|error| Error::postgres("cannot read the audit", &error))?;
    Ok(rows.first().and_then(|row| row.get(0)))
}
