//! A service whose schema is there.

use std::sync::Arc;

use pgfleet_migrate::{Options, Report, SetPath, Target, run};
use pgfleet_postgres::{Address, Connection, Purpose, connect};

use crate::builder::{Builder, Watcher};
use crate::error::{Error, ErrorKind};
use crate::readiness::{Readiness, Switch};

/// A service and its database.
#[derive(Debug)]
pub struct Service {
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
}

impl Service {
    /// Begins to say what a service needs of its database.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name)
    }

    /// Returns the service's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where the database is, as the role that the service works with.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns what a health endpoint asks.
    pub fn readiness(&self) -> Readiness {
        self.switch.readiness()
    }

    /// Opens a connection, as the role that the service works with.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`].
    pub async fn connect(&self) -> Result<Connection, Error> {
        let mut purpose = Purpose::new(&self.name);
        if let Some(schema) = &self.schema {
            purpose = purpose.setting("search_path", pgfleet_migrate::target::search_path(schema));
        }
        Ok(connect(&self.address, &purpose).await?)
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
        let Some(target) = &self.migrator else {
            return Err(no_migrator(&self.name));
        };
        let report = run::migrate(target, &self.path, &self.options, &*self.observer.0).await?;
        self.switch.set(true);
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
        let options = Options { announcer: None, ..run::looking(&self.options) };
        Ok(run::migrate(&self.looking_target(), &self.path, &options, &*self.observer.0).await?)
    }

    /// The database as seen by the role that the service has.
    pub(crate) fn looking_target(&self) -> Target {
        self.migrator.clone().unwrap_or_else(|| {
            let mut target = Target::new(&self.name, self.address.clone());
            target.schema.clone_from(&self.schema);
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
