//! Starting a service: its schema is there, or it does not start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgfleet_migrate::{Options, Report, State, Target, run};
use pgfleet_postgres::lock::{self, LockKey};
use pgfleet_postgres::{Purpose, connect, retry};
use pgfleet_sql::version::Version;

use crate::builder::Builder;
use crate::environment::{address, by_hosts, parse, switch, text, variable};
use crate::error::{Error, ErrorKind};
use crate::events::Hosted;
use crate::messages::Workers;
use crate::service::{Inner, Service, no_migrator};
use crate::worker;

/// First and longest pause between two looks for the schema.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Builder {
    /// Starts: waits for the database, creates it when allowed, migrates and seeds; returns when the
    /// schema is there.
    ///
    /// With `auto_migrate` (the default) and a role that migrates it takes the database's lock and
    /// applies what is pending. When another process holds the lock it waits until what it needs is
    /// there, and then serves. Without such a role it waits for the schema.
    ///
    /// A service that handles messages has subscribed to them when this returns; where the broker is away,
    /// that goes on to be tried beside the service.
    ///
    /// Call it before anything that has effects: where the program was called as
    /// `<program> pgfleet worker`, it answers the command line, which has it run the migrations and
    /// seeders that are Rust, and ends the process; nothing behind the call runs.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`]. What can pass by itself was tried again before; the process should end,
    /// so that its supervisor starts it anew.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection: the server rolls back the migration that runs,
    /// and those before it stay.
    pub async fn start(self) -> Result<Service, Error> {
        if worker::is_asked() {
            worker::run(self).await;
        }
        let needs = Self::version("needs", self.needs.as_ref())?;
        let tolerates = Self::version("tolerates", self.tolerates.as_ref())?;
        let auto_migrate = match self.auto_migrate {
            Some(said) => said,
            None => switch("PGFLEET_SOLUTION__AUTO_MIGRATE")?.unwrap_or(true),
        };
        let (refuse_pending, schema_wait) = (self.refuse_pending, self.schema_wait);
        let service = self.build()?;
        let report = if auto_migrate && let Some(target) = &service.0.migrator {
            let options = Options { enough: needs.clone(), ..service.0.options.clone() };
            run::migrate(target, &service.0.path, &options, &*service.0.observer.0).await?
        } else {
            let wait = Wait { service: &service, needs: needs.as_ref(), limit: schema_wait };
            if auto_migrate || (needs.is_some() && !refuse_pending) {
                wait.for_schema().await?
            } else {
                wait.for_server(refuse_pending).await?
            }
        };
        if let Some(newest) = &tolerates
            && let Some(current) = report.to.as_ref().and_then(|to| to.parse::<Version>().ok())
            && current > *newest
        {
            return Err(Error::new(ErrorKind::Ahead, format!("{} cannot work with its database", service.0.name))
                .cause(format!("the database is at {current}, and the service tolerates up to {newest}"))
                .hinted("deploy a version of the service that knows this schema"));
        }
        service.0.workers.begin().await;
        service.0.events.begin();
        service.0.switch.set(true);
        Ok(service)
    }

    /// Reads the connection strings and makes the sets; connects to nothing.
    pub(crate) fn build(mut self) -> Result<Service, Error> {
        let name = self.name().to_owned();
        let path = self.path()?;
        let given = |what: &str, text: Option<&String>, variable: &str| match text {
            Some(text) => parse(&format!("the {what} of {name}"), text).map(Some),
            None => address(variable),
        };
        let migrator = given("migrator_url", self.migrator_url.as_ref(), &variable(&name, "MIGRATOR_URL"))?;
        let own = given("url", self.url.as_ref(), &variable(&name, "URL"))?;
        let admin = given("admin_url", self.admin_url.as_ref(), "PGFLEET_ADMIN_URL")?;
        let Some(address) = own.or_else(|| migrator.clone()).map(by_hosts).transpose()? else {
            let variable = variable(&name, "URL");
            return Err(Error::configuration(format!("{name} has no connection string"))
                .hinted(format!("set {variable}=postgresql://user:password@host:5432/database")));
        };
        self.schema = self.schema.take().or_else(|| text(&variable(&name, "SCHEMA")));
        let router = self.router(&name, &address, &path)?;
        let mut messages = std::mem::take(&mut self.messages);
        messages.has_outbox = self.modules.iter().any(|module| module.name() == "outbox");
        messages.has_inbox = self.modules.iter().any(|module| module.name() == "inbox");
        let workers = Workers::new(&name, self.schema.as_deref(), &router, messages)?;
        let mut events = std::mem::take(&mut self.events);
        events.schema = self.modules.iter().find_map(|module| module.event_schema(&name));
        let events = Hosted::new(&name, &router, events)?;
        let schema = self.schema;
        let migrator = migrator.map(|address| {
            let mut target = Target::new(&name, address);
            target.admin = admin;
            target.schema.clone_from(&schema);
            target
        });
        Ok(Service(Arc::new(Inner {
            name,
            path,
            address,
            migrator,
            schema,
            options: self.options,
            observer: self.observer,
            switch: self.switch,
            router,
            workers,
            events,
        })))
    }
}

/// Waiting for a schema that somebody else makes.
struct Wait<'a> {
    service: &'a Service,
    needs: Option<&'a Version>,
    limit: Option<Duration>,
}

impl Wait<'_> {
    /// Waits until what is needed is applied.
    async fn for_schema(&self) -> Result<Report, Error> {
        let service = self.service;
        let limit = self.limit.unwrap_or(service.0.options.wait_delay * service.0.options.wait_attempts);
        let mut since = Instant::now();
        let mut attempt = 0;
        loop {
            let report = service.status().await?;
            if self.is_there(&report) {
                return Ok(report);
            }
            // As long as somebody is at it, it is coming.
            if self.somebody_migrates().await {
                since = Instant::now();
            } else if since.elapsed() >= limit {
                return Err(pending(&service.0.name, &report)
                    .hinted(format!("`pgfleet migrate --service {}` applies them", service.0.name)));
            }
            if attempt == 0 {
                tracing::info!(service = service.0.name, pending = report.pending.len(), "waiting for the schema");
            }
            attempt += 1;
            service.0.options.stop.sleep(retry::backoff(attempt, LOOK_AGAIN.0, LOOK_AGAIN.1)).await;
            if service.0.options.stop.is_asked() {
                return Err(pending(&service.0.name, &report).cause("starting was stopped"));
            }
        }
    }

    /// Waits for the server only.
    async fn for_server(&self, refuse_pending: bool) -> Result<Report, Error> {
        let report = self.service.status().await?;
        if refuse_pending && !self.is_there(&report) {
            let name = &self.service.0.name;
            let error = pending(name, &report);
            return Err(if self.service.0.migrator.is_some() {
                error.hinted(format!("`pgfleet migrate --service {name}` applies them, or Service::migrate"))
            } else {
                error.hinted(no_migrator(name).hint().unwrap_or_default())
            });
        }
        Ok(report)
    }

    fn is_there(&self, report: &Report) -> bool {
        match self.needs {
            Some(needs) => report.entries.iter().any(|entry| {
                entry.set.is_none()
                    && matches!(entry.state, State::Applied | State::Edited | State::Ahead)
                    && entry.version.parse::<Version>().is_ok_and(|version| version == *needs)
            }),
            None => report.pending.is_empty(),
        }
    }

    async fn somebody_migrates(&self) -> bool {
        let target = self.service.looking_target();
        let purpose = Purpose::new(format!("pgfleet wait {}", self.service.0.name));
        // Who cannot be asked is not known to be at work.
        let Ok(connection) = connect(&target.address, &purpose).await else { return false };
        let holder = lock::holder(&connection, LockKey::Migrate).await;
        connection.close().await;
        matches!(holder, Ok(Some(_)))
    }
}

fn pending(name: &str, report: &Report) -> Error {
    let mut error = Error::new(ErrorKind::Pending, format!("{name} cannot start: migrations are pending"));
    for label in report.pending.iter().take(10) {
        error = error.cause(label.clone());
    }
    if report.pending.len() > 10 {
        error = error.cause(format!("and {} more", report.pending.len() - 10));
    }
    for note in &report.notes {
        error = error.cause(note.clone());
    }
    error
}
