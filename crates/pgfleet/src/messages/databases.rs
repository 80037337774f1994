//! The databases that messages are handled in: the service's own, and its tenants'.

use std::sync::Arc;

use pgfleet_events::{Answer, Error, ErrorKind};
use pgfleet_events_postgres::inbox::Databases;
use pgfleet_postgres::pool::TransactionOptions;
use pgfleet_route::{Router, Tx};

use crate::Scope;

/// Opens transactions where a message's tenant is.
pub(crate) struct Tenants(pub(super) Router);

impl Databases for Tenants {
    type Tx = Tx;

    fn begin<'a>(&'a self, tenant: Option<&'a str>) -> Answer<'a, Tx> {
        Box::pin(async move {
            let scope = tenant.map_or_else(Scope::host, Scope::tenant);
            scope.run(self.0.begin(None, TransactionOptions::default())).await.map_err(|error| {
                let whose =
                    tenant.map_or_else(|| "the service's own database".to_owned(), |name| format!("tenant {name}"));
                // Whether a tenant is ready, or the server there, is another matter in a moment.
                let kind = if error.is_retryable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
                Error::new(kind, format!("cannot handle messages of {whose}")).because(error)
            })
        })
    }

    fn places(&self) -> Answer<'_, Vec<Option<Arc<str>>>> {
        Box::pin(async move {
            let mut places = vec![None];
            places.extend(self.0.elsewhere().into_iter().map(|(tenant, _)| Some(tenant)));
            Ok(places)
        })
    }
}
