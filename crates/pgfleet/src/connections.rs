//! The connections that a service works with.

use pgfleet_migrate::{Options, SetPath, Target, run};
use pgfleet_postgres::pool::TransactionOptions;
use pgfleet_postgres::{Address, Error as PgError};
use pgfleet_route::{Reader, Ready, Router, Standing, Tx, Writer};

use crate::error::Error;
use crate::service::Service;

/// A named connection of a service: the same as the service itself, for another name.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    router: &'a Router,
    name: Option<&'a str>,
}

impl Service {
    /// Returns what hands out the connections: for code that is given no service, and for what has no method here.
    pub fn router(&self) -> &Router {
        &self.0.router
    }

    /// Returns the connection of a module's name: see [`Builder::connection`](crate::Builder::connection).
    pub fn connection<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named { router: &self.0.router, name: Some(name) }
    }

    /// Takes a connection that writes, for whom the current [`Scope`](crate::Scope) says; dropping it puts it back.
    ///
    /// # Errors
    ///
    /// An unknown, disabled or unfinished tenant, and what connecting fails with: see [`Error::status`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    #[track_caller]
    pub fn writer(&self) -> impl Future<Output = Result<Writer, Error>> + Send + use<'_> {
        let writer = self.0.router.writer(None);
        async move { Ok(writer.await?) }
    }

    /// Takes a connection that reads: on a replica where there is one that is near enough, else on the primary.
    ///
    /// Its session refuses writes. Within a [`Session`](crate::Session) it never reads older than what was written
    /// there.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    #[track_caller]
    pub fn reader(&self) -> impl Future<Output = Result<Reader, Error>> + Send + use<'_> {
        let reader = self.0.router.reader(None);
        async move { Ok(reader.await?) }
    }

    /// Begins a transaction that writes; dropping it rolls back.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<Tx, Error>> + Send + use<'_> {
        self.begin_with(TransactionOptions::default())
    }

    /// Begins a transaction of this kind.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    #[track_caller]
    pub fn begin_with(&self, options: TransactionOptions) -> impl Future<Output = Result<Tx, Error>> + Send + use<'_> {
        let begin = self.0.router.begin(None, options);
        async move { Ok(begin.await?) }
    }

    /// Returns the state and counts of all pools in Prometheus' text format.
    pub fn pool_metrics(&self) -> String {
        let budgets = self.0.router.budgets();
        budgets.iter().map(|budget| budget.stats().prometheus(&budget.pools())).collect()
    }
}

impl Named<'_> {
    /// Takes a connection that writes: see [`Service::writer`].
    ///
    /// # Errors
    ///
    /// As there, and a name that the service does not have.
    pub async fn writer(&self) -> Result<Writer, Error> {
        Ok(self.router.writer(self.name).await?)
    }

    /// Takes a connection that reads: see [`Service::reader`].
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    pub async fn reader(&self) -> Result<Reader, Error> {
        Ok(self.router.reader(self.name).await?)
    }

    /// Begins a transaction that writes: see [`Service::begin`].
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    pub async fn begin(&self) -> Result<Tx, Error> {
        Ok(self.router.begin(self.name, TransactionOptions::default()).await?)
    }
}

/// Looks whether a tenant's database has the service's migrations.
pub(crate) struct HasMigrations {
    pub(crate) service: String,
    pub(crate) path: SetPath,
    pub(crate) schema: Option<String>,
    pub(crate) options: Options,
}

impl Ready for HasMigrations {
    fn look<'a>(
        &'a self,
        address: &'a Address,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Standing, PgError>> + Send + 'a>> {
        Box::pin(async move {
            let mut target = Target::new(&self.service, address.clone());
            target.schema.clone_from(&self.schema);
            let report = run::migrate(&target, &self.path, &self.options, &pgfleet_migrate::event::Silent).await;
            match report {
                Ok(report) if report.pending.is_empty() => Ok(Standing::Ready),
                Ok(report) => {
                    let have = report.to.unwrap_or_else(|| "no version".to_owned());
                    let need = report.pending.last().cloned().unwrap_or_default();
                    Ok(Standing::Behind { have, need })
                }
                Err(error) if error.is_unreachable() => {
                    Err(PgError::new(pgfleet_postgres::ErrorKind::Unreachable, error.to_string()))
                }
                Err(error) => {
                    Ok(Standing::Behind { have: error.to_string(), need: "a history that can be read".to_owned() })
                }
            }
        })
    }
}
