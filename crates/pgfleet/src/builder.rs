//! What a service says about its database before it starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_migrate::announce::{Announce, Announced, Announcer, Applied};
use pgfleet_migrate::code::{IntoStep, Seeder};
use pgfleet_migrate::options::Who;
use pgfleet_migrate::{Observer, Options, SetPath, StepError};
use pgfleet_postgres::pool::PoolOptions;
use pgfleet_route::ReplicaOptions;
use pgfleet_sql::version::Version;
use secrecy::SecretString;

use crate::embed;
use crate::error::Error;
use crate::events;
use crate::messages::{self, ConsumerOptions, Handle, MessageBody, RelayOptions, Transport};
use crate::module::Module;
use crate::observer::Log;
use crate::readiness::{Readiness, Switch};

/// What a service says about its database before it starts.
///
/// Made by [`Service::builder`](crate::Service::builder). What is not said is taken from the
/// environment:
///
/// * `PGFLEET_<SERVICE>_URL`: the database, as the role that the service works with;
/// * `PGFLEET_<SERVICE>_MIGRATOR_URL`: the same as the role that migrates; without it the service
///   waits until somebody else has migrated;
/// * `PGFLEET_ADMIN_URL`: a role that may create the database when it is missing;
/// * `PGFLEET_SOLUTION__AUTO_MIGRATE`: `false` leaves migrating to the command line;
/// * `PGFLEET_<SERVICE>_READ_URL`: replicas, separated by blanks;
/// * `PGFLEET_<SERVICE>_CONNECTIONS` and `PGFLEET_<SERVICE>_CONNECTION_<NAME>_URL`: the connection names of modules;
/// * `PGFLEET_<SERVICE>_CONTROL_URL` and `PGFLEET_<SERVICE>_KEY`: where the tenants are read that have databases of
///   their own, and what opens their connection strings;
/// * `PGFLEET_<SERVICE>_POOL`: how the main pool behaves, as pairs of a connection string (`pool_max=20 pool_min=5`);
/// * `PGFLEET_<SERVICE>_SCHEMA` and `PGFLEET_<SERVICE>_MODULE_<NAME>_SCHEMA`: the schema of its tables, and of a module's;
/// * `PGFLEET_<SERVICE>_BUDGET`: the most connections of this process per server;
/// * `PGFLEET_<SERVICE>_EVENTS_BROKER` and `PGFLEET_<SERVICE>_EVENTS_URL`: what carries its messages;
/// * `PGFLEET_<SERVICE>_STREAMS`: which streams and queues are in memory;
/// * `DB_HOST`, `DB_READ_HOST`, `DB_MAX_CONNECTIONS`: the host of writes, the host of reads, the most connections of the
///   main pool.
#[derive(Debug)]
pub struct Builder {
    pub(crate) own: Module,
    pub(crate) modules: Vec<Module>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) schema: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) migrator_url: Option<String>,
    pub(crate) admin_url: Option<String>,
    pub(crate) auto_migrate: Option<bool>,
    pub(crate) refuse_pending: bool,
    pub(crate) needs: Option<String>,
    pub(crate) tolerates: Option<String>,
    pub(crate) schema_wait: Option<Duration>,
    pub(crate) options: Options,
    pub(crate) observer: Watcher,
    pub(crate) switch: Arc<Switch>,
    pub(crate) read_urls: Vec<String>,
    pub(crate) connections: Vec<(String, Option<(String, String)>)>,
    pub(crate) tenants: Option<(String, SecretString)>,
    pub(crate) budget: Option<usize>,
    pub(crate) pool: Vec<Change<PoolOptions>>,
    pub(crate) tenant_pool: Vec<Change<PoolOptions>>,
    pub(crate) replicas: ReplicaOptions,
    pub(crate) messages: messages::Plan,
    pub(crate) events: events::Plan,
}

/// A change of something that is made later, of the environment.
pub(crate) struct Change<T>(pub(crate) Box<dyn FnOnce(&mut T) + Send + Sync>);

impl<T> std::fmt::Debug for Change<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Change")
    }
}

/// An observer that can be shared and shown.
#[derive(Clone)]
pub(crate) struct Watcher(pub(crate) Arc<dyn Observer>);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

impl Builder {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        // The database is waited for as long as an orchestrator needs to bring it up.
        let options = Options { wait_attempts: 30, who: Who::of_process(), ..Options::default() };
        Self {
            own: Module::new(name),
            modules: Vec::new(),
            properties: BTreeMap::new(),
            schema: None,
            url: None,
            migrator_url: None,
            admin_url: None,
            auto_migrate: None,
            refuse_pending: false,
            needs: None,
            tolerates: None,
            schema_wait: None,
            options,
            observer: Watcher(Arc::new(Log)),
            switch: Arc::new(Switch::new()),
            read_urls: Vec::new(),
            connections: Vec::new(),
            tenants: None,
            budget: None,
            pool: Vec::new(),
            tenant_pool: Vec::new(),
            replicas: ReplicaOptions::default(),
            messages: messages::Plan::default(),
            events: events::Plan::default(),
        }
    }

    /// Sets the folder of migrations; see [`migrations!`](crate::migrations).
    #[must_use]
    pub fn migrations(mut self, folder: embed::Folder) -> Self {
        self.own = self.own.migrations(folder);
        self
    }

    /// Adds a migration written in Rust: a [`SchemaMigration`](crate::SchemaMigration), a
    /// [`Migration`](crate::Migration) or a [`Backfill`](crate::Backfill). Its version says where
    /// among the files it stands.
    #[must_use]
    pub fn migration<K>(mut self, migration: impl IntoStep<K>) -> Self {
        self.own = self.own.migration(migration);
        self
    }

    /// Sets the folder of seeds; see [`seeds!`](crate::seeds).
    #[must_use]
    pub fn seeds(mut self, seeds: embed::Seeds) -> Self {
        self.own = self.own.seeds(seeds);
        self
    }

    /// Adds a seeder written in Rust. Its name says where among the seed files it stands.
    #[must_use]
    pub fn seeder(mut self, seeder: impl Seeder) -> Self {
        self.own = self.own.seeder(seeder);
        self
    }

    /// Adds a module, whose migrations come before the service's own, after those of the modules
    /// that were added before.
    #[must_use]
    pub fn module(mut self, module: Module) -> Self {
        self.modules.push(module);
        self
    }

    /// Sets where the history of the service's own migrations is; without it,
    /// `pgfleet.<service>_migrations`.
    #[must_use]
    pub fn history(mut self, schema: impl Into<String>, table: impl Into<String>) -> Self {
        self.own = self.own.history(schema, table);
        self
    }

    /// Sets the schema that unqualified names go to; without it, what the server says.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets a property that seeds may use: `admin_email`. Passwords as Argon2id hashes.
    ///
    /// `tenant` is set by each run itself: to the tenant's name, or to the empty text for the host.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// Sets the value of a placeholder of the service's own migrations.
    #[must_use]
    pub fn placeholder(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.own = self.own.placeholder(name, value);
        self
    }

    /// Sets the database, as the role that the service works with.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the database, as the role that migrates.
    #[must_use]
    pub fn migrator_url(mut self, url: impl Into<String>) -> Self {
        self.migrator_url = Some(url.into());
        self
    }

    /// Sets a role that may create the database when it is missing.
    #[must_use]
    pub fn admin_url(mut self, url: impl Into<String>) -> Self {
        self.admin_url = Some(url.into());
        self
    }

    /// Adds a replica, as the role that the service works with.
    #[must_use]
    pub fn read_url(mut self, url: impl Into<String>) -> Self {
        self.read_urls.push(url.into());
        self
    }

    /// Adds the connection name of a module that is mapped to the service's own database.
    ///
    /// Where the environment names another service's database for it (`PGFLEET_<SERVICE>_CONNECTION_<NAME>_URL`), it
    /// leads there.
    #[must_use]
    pub fn connection(mut self, name: impl Into<String>) -> Self {
        self.connections.push((name.into(), None));
        self
    }

    /// Adds the connection name of a module that is in another service's database, which this service may use.
    #[must_use]
    pub fn connection_to(
        mut self,
        name: impl Into<String>,
        service: impl Into<String>,
        url: impl Into<String>,
    ) -> Self {
        self.connections.push((name.into(), Some((service.into(), url.into()))));
        self
    }

    /// Sets where the tenants are read that have databases of their own, and the key (or keys, separated by commas) that
    /// opens their connection strings.
    #[must_use]
    pub fn tenants(mut self, control_url: impl Into<String>, key: impl Into<SecretString>) -> Self {
        self.tenants = Some((control_url.into(), key.into()));
        self
    }

    /// Sets how many connections this process may hold per server; without it, what the server allows.
    #[must_use]
    pub fn budget(mut self, connections: usize) -> Self {
        self.budget = Some(connections);
        self
    }

    /// Changes how the pool of the service's own database behaves: by default at most 20 connections, at least 5, 30 s
    /// idle, 20 s to connect, 30 s for a statement.
    #[must_use]
    pub fn pool(mut self, change: impl FnOnce(&mut PoolOptions) + Send + Sync + 'static) -> Self {
        self.pool.push(Change(Box::new(change)));
        self
    }

    /// Changes how the pools of tenants' databases behave: by default at most 4 connections each, none kept.
    #[must_use]
    pub fn tenant_pool(mut self, change: impl FnOnce(&mut PoolOptions) + Send + Sync + 'static) -> Self {
        self.tenant_pool.push(Change(Box::new(change)));
        self
    }

    /// Changes when replicas are read: by how much they may be behind, how long a reader waits for its own writes.
    #[must_use]
    pub fn replicas(mut self, change: impl FnOnce(&mut ReplicaOptions)) -> Self {
        change(&mut self.replicas);
        self
    }

    /// Has messages of a type handled, each once: see [`messages`].
    ///
    /// The service needs the module [`Module::inbox`]. It receives what is published from when it was first started on.
    #[must_use]
    pub fn handle<M: MessageBody>(mut self, handler: impl Handle<M>) -> Self {
        self.messages.handlers.push(messages::Registered::new(handler));
        self
    }

    /// Sets what carries the messages; without it, what `PGFLEET_<SERVICE>_EVENTS_BROKER` and `_URL` say.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.messages.transport = Some(transport);
        self
    }

    /// Changes how what was published is carried to the broker: batches, tries, what follows a dead letter.
    #[must_use]
    pub fn relay(mut self, change: impl FnOnce(&mut RelayOptions)) -> Self {
        change(&mut self.messages.relay);
        self
    }

    /// Changes how messages are handled: how many in a transaction, tries, what follows a dead letter.
    #[must_use]
    pub fn consumer(mut self, change: impl FnOnce(&mut ConsumerOptions)) -> Self {
        change(&mut self.messages.consumer);
        self
    }

    /// Sets whether starting migrates; the default is that it does. Without, call
    /// [`Service::migrate`](crate::Service::migrate) or leave it to the command line.
    #[must_use]
    pub fn auto_migrate(mut self, auto_migrate: bool) -> Self {
        self.auto_migrate = Some(auto_migrate);
        self
    }

    /// Sets that starting fails while migrations are pending that it does not apply itself.
    #[must_use]
    pub fn refuse_pending(mut self, refuse: bool) -> Self {
        self.refuse_pending = refuse;
        self
    }

    /// Sets the version of the service's own migrations that it needs at least. A service that does
    /// not migrate itself, or finds another one migrating, starts when this one is there; without
    /// it, when nothing is pending any more.
    #[must_use]
    pub fn needs(mut self, version: impl Into<String>) -> Self {
        self.needs = Some(version.into());
        self
    }

    /// Sets the newest version that it works with; without it, any: in a rolling deploy an old
    /// program runs beside a newer schema.
    #[must_use]
    pub fn tolerates(mut self, version: impl Into<String>) -> Self {
        self.tolerates = Some(version.into());
        self
    }

    /// Sets how long a service that does not migrate waits for the schema while nobody is
    /// migrating; without it, as long as for the server.
    #[must_use]
    pub fn schema_wait(mut self, wait: Duration) -> Self {
        self.schema_wait = Some(wait);
        self
    }

    /// Changes how a run behaves: waits, tries, lock time-outs, `always_seed`.
    #[must_use]
    pub fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Sets who is told what happens while it starts; without it, `tracing`.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Watcher(Arc::new(observer));
        self
    }

    /// Sets what is called with what was applied, after it is on disk.
    ///
    /// At least once for each run that applied something: an error, or a crash before the call
    /// returned, has the next start call it again with the same `run`.
    #[must_use]
    pub fn on_applied<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: Fn(Applied) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<StepError> + 'static,
    {
        self.options.announcer = Some(Announce::new(Hook(hook)));
        self
    }

    /// Returns what a health endpoint asks while the service still starts.
    pub fn readiness(&self) -> Readiness {
        self.switch.readiness()
    }

    /// Returns the service's name.
    pub fn name(&self) -> &str {
        self.own.name()
    }

    /// Makes the sets: the modules', then the service's own.
    ///
    /// # Errors
    ///
    /// Migrations that cannot be used; each names its file.
    pub fn path(&self) -> Result<SetPath, Error> {
        self.path_with(&self.properties, &BTreeMap::new())
    }

    /// Makes the sets with these properties, and with these placeholders over those in the code.
    pub(crate) fn path_with(
        &self,
        properties: &BTreeMap<String, String>,
        placeholders: &BTreeMap<String, String>,
    ) -> Result<SetPath, Error> {
        let modules = self.modules.iter().map(|module| module.set(self.name(), properties, placeholders));
        let modules = modules.collect::<Result<Vec<_>, _>>()?;
        Ok(SetPath::new(modules, self.own.set(self.name(), properties, placeholders)?)?)
    }

    /// Reads a version that the service's code names.
    pub(crate) fn version(what: &str, text: Option<&String>) -> Result<Option<Version>, Error> {
        text.map(|text| {
            text.parse().map_err(|error: pgfleet_sql::version::VersionError| {
                Error::configuration(format!("cannot use what the service {what}"))
                    .cause(error.to_string())
                    .hinted(error.hint())
            })
        })
        .transpose()
    }
}

/// A function as an announcer.
struct Hook<F>(F);

impl<F, Fut, E> Announcer for Hook<F>
where
    F: Fn(Applied) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<StepError> + 'static,
{
    fn announce<'a>(&'a self, applied: &'a Applied) -> Announced<'a> {
        let answer = (self.0)(applied.clone());
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}
