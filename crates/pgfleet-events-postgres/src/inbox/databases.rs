//! Where messages are handled.

use std::sync::Arc;

use pgfleet_events::{Answer, Error};
use pgfleet_postgres::pool::{Pool, Transaction};

use crate::error::failed;
use crate::executor::Executor;

/// A transaction that a handler works in; dropping it rolls back.
pub trait Work: Executor + Sized + 'static {
    /// Commits.
    ///
    /// # Errors
    ///
    /// Whatever commits fail with; nothing of it may be known when the connection was lost.
    fn commit(self) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Work for Transaction {
    async fn commit(self) -> Result<(), Error> {
        Self::commit(self).await.map_err(|error| failed("cannot commit what a message caused", error))
    }
}

impl Work for pgfleet_route::Tx {
    async fn commit(self) -> Result<(), Error> {
        Self::commit(self).await.map_err(|error| failed("cannot commit what a message caused", error))
    }
}

/// Opens the transactions that messages are handled in.
///
/// A message's tenant decides: each database has an inbox of its own, beside what its handlers write.
pub trait Databases: Send + Sync + 'static {
    /// The transactions.
    type Tx: Work;

    /// Begins a transaction in a tenant's database; of a message without a tenant in the service's own.
    fn begin<'a>(&'a self, tenant: Option<&'a str>) -> Answer<'a, Self::Tx>;

    /// Lists the databases that messages may have been put aside in, by tenant.
    fn places(&self) -> Answer<'_, Vec<Option<Arc<str>>>>;
}

/// One database for all.
impl Databases for Pool {
    type Tx = Transaction;

    fn begin<'a>(&'a self, _tenant: Option<&'a str>) -> Answer<'a, Transaction> {
        Box::pin(
            async move { Self::begin(self).await.map_err(|error| failed("cannot begin to handle messages", error)) },
        )
    }

    fn places(&self) -> Answer<'_, Vec<Option<Arc<str>>>> {
        Box::pin(async { Ok(vec![None]) })
    }
}
