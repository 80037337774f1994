//! A service whose schema is there.

use std::sync::Arc;

use pgfleet_migrate::{Options, Report, SetPath, Target, run};
use pgfleet_postgres::{Address, Connection, Purpose, connect};

use pgfleet_route::Router;

use crate::builder::{Builder, Watcher};
use crate::error::{Error, ErrorKind};
use crate::events::Hosted;
use crate::messages::Workers;
use crate::readiness::{Readiness, Switch};

/// A service and its database; cheap to clone, as the state of a web framework must be.
#[derive(Debug, Clone)]
pub struct Service(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) path: SetPath,
    /// The database as the role that the service works with.
    pub(crate) address: Address,
    /// The database as the role that migrates.
    pub(crate) migrator: Option<Target>,
    pub(crate) schema: Option<String>,
    pub(crate) options: Options,
    pub(crate) observer: Watcher,
    pub(crate) switch: Arc<Switch>,
    pub(crate) router: Router,
    pub(crate) workers: Workers,
    pub(crate) events: Hosted,
}

impl Service {
    /// Begins to say what a service needs of its database.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name)
    }

    /// Returns the service's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns where the database is, as the role that the service works with.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Returns what a health endpoint asks.
    pub fn readiness(&self) -> Readiness {
        self.0.switch.readiness()
    }

    /// Opens a connection of its own to the main database, as the role that the service works with: for `LISTEN`, and
    /// what else needs a session for long. For all else there are [`writer`](Self::writer), [`reader`](Self::reader) and
    /// [`begin`](Self::begin), whose connections are pooled and go where the current tenant's data is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`].
    pub async fn connect(&self) -> Result<Connection, Error> {
        let mut purpose = Purpose::new(&self.0.name);
        if let Some(schema) = &self.0.schema {
            purpose = purpose.setting("search_path", pgfleet_migrate::target::search_path(schema));
        }
        Ok(connect(&self.0.address, &purpose).await?)
    }

    /// Applies what is pending and seeds, as starting does with `auto_migrate`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] without a role that may migrate, and what migrating fails with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection: the server rolls back the migration that runs,
    /// and those before it stay.
    pub async fn migrate(&self) -> Result<Report, Error> {
        let Some(target) = &self.0.migrator else {
            return Err(no_migrator(&self.0.name));
        };
        let report = run::migrate(target, &self.0.path, &self.0.options, &*self.0.observer.0).await?;
        self.0.switch.set(true);
        Ok(report)
    }

    /// Returns the newest applied version of the service's own migrations; none when there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`], or a history that cannot be read.
    pub async fn current_version(&self) -> Result<Option<String>, Error> {
        Ok(self.status().await?.to)
    }

    /// Looks at the database and changes nothing: versions, what is pending, what would stop a run.
    ///
    /// # Errors
    ///
    /// As [`current_version`](Self::current_version).
    pub async fn status(&self) -> Result<Report, Error> {
        let options = Options { announcer: None, ..run::looking(&self.0.options) };
        Ok(run::migrate(&self.looking_target(), &self.0.path, &options, &*self.0.observer.0).await?)
    }

    /// Ends what runs beside the service: what is being handled or published is ended first, and what was not comes again
    /// somewhere else; the keeper of streams and queues lets another one lead. For the end of the program; without it,
    /// others wait until the leases of this one end.
    pub async fn shutdown(&self) {
        tokio::join!(self.0.workers.end(), self.0.events.end());
    }

    /// Returns what was carried and handled, in Prometheus' text format.
    pub fn message_metrics(&self) -> String {
        self.0.workers.metrics(&self.0.name)
    }

    /// The database as seen by the role that the service has.
    pub(crate) fn looking_target(&self) -> Target {
        self.0.migrator.clone().unwrap_or_else(|| {
            let mut target = Target::new(&self.0.name, self.0.address.clone());
            target.schema.clone_from(&self.0.schema);
            target
        })
    }
}

pub(crate) fn no_migrator(name: &str) -> Error {
    let variable = crate::environment::variable(name, "MIGRATOR_URL");
    Error::new(ErrorKind::Configuration, format!("cannot migrate {name}"))
        .cause("it has no connection string of a role that migrates")
        .hinted(format!("set {variable}, or migrate with `pgfleet migrate --service {name}`"))
}
