//! Going on with a tenant that was left half-made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_postgres::Type;

use super::bench::Bench;
use super::verbs::execute;
use super::workshop::Workshop;
use super::{Done, OwnDatabase, Tenant, TenantState, properties};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::solution::Solution;

/// A tenant that is to be finished.
#[derive(Debug)]
pub(crate) struct Half {
    /// Its name.
    pub(crate) name: String,
    /// Its databases.
    pub(crate) databases: Vec<OwnDatabase>,
    /// Its strings that lead elsewhere: they were given, and stay.
    pub(crate) given: BTreeSet<String>,
    /// What its seeds are given.
    pub(crate) values: BTreeMap<String, String>,
}

impl Solution {
    /// Goes on with a tenant that was asked for and is not active yet: makes its databases, migrates and
    /// seeds them, and makes it active. One that needs nothing is left as it is.
    ///
    /// # Errors
    ///
    /// There is no such tenant, or it is on its way out; and as [`create_tenants`](Self::create_tenants).
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on.
    pub async fn go_on_with_tenant(&self, name: &str, observer: &Arc<dyn Observer>) -> Result<Done, Error> {
        let mut bench = Bench::open(self, false).await?;
        let done = Box::pin(self.go_on(&mut bench, None, name, observer)).await;
        bench.close().await;
        done
    }

    /// Goes on with a tenant; the files are read when there is something to do and nobody has.
    pub(crate) async fn go_on(
        &self,
        bench: &mut Bench,
        workshop: Option<&Workshop<'_>>,
        name: &str,
        observer: &Arc<dyn Observer>,
    ) -> Result<Done, Error> {
        bench.hold(name).await?;
        let work = async {
            let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
            match tenant.state {
                TenantState::Active | TenantState::Disabled => {
                    return Ok(Done { tenant, changed: false, notes: Vec::new() });
                }
                TenantState::Requested | TenantState::Creating | TenantState::Failed => {}
                TenantState::Deleting | TenantState::Quarantined => {
                    let message = format!("tenant {name} is {}: there is nothing to go on with", tenant.state.word());
                    return Err(Error::new(ErrorKind::Failed, message)
                        .hinted(format!("have it back: pgfleet tenant restore {name}")));
                }
            }
            let half = self.take_up(&bench.catalogue, tenant).await?;
            let notes = match workshop {
                Some(workshop) => workshop.finish(bench, half, TenantState::Active).await?,
                None => Workshop::of(self, observer).await?.finish(bench, half, TenantState::Active).await?,
            };
            let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
            Ok(Done { tenant, changed: true, notes })
        };
        let done = Box::pin(work).await;
        bench.release(name).await;
        done
    }

    /// Notes that making a tenant is tried again.
    pub(super) async fn take_up(&self, catalogue: &Catalogue, tenant: Tenant) -> Result<Half, Error> {
        let connection = catalogue.connection();
        execute(
            connection,
            "UPDATE control.tenants SET state = 'creating', attempts = attempts + 1, updated_at = now() \
             WHERE name = $1",
            &[(&tenant.name, Type::TEXT)],
        )
        .await?;
        let values = properties::read(connection, &self.keys()?, &tenant.name).await?;
        Ok(Half { name: tenant.name, databases: tenant.databases, given: BTreeSet::new(), values })
    }
}
