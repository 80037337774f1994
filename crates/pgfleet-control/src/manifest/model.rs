//! The manifest as the rest of pgfleet reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::builtin::Builtin;
pub use super::word::{
    Broker, ChainTransport, Concurrently, Durability, Isolation, OnAhead, OnChanged, OnMissing, OnOutOfOrder,
    Placement, RetryOn, StreamPlace, TenantDatabases, TenantUse,
};

/// A checked manifest: every name in it resolves, every path is absolute.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The folder of the manifest, to which relative paths belong.
    pub root: PathBuf,
    /// The manifest's file.
    pub path: PathBuf,
    /// The environment: `dev` unless another was named.
    pub env: String,
    /// The solution.
    pub solution: Solution,
    /// The servers by name; at least one.
    pub servers: BTreeMap<String, Server>,
    /// The control database.
    pub control: Control,
    /// The services in the order of the file; at least one.
    pub services: Vec<Service>,
    /// The modules that the solution has files for, and those in use that pgfleet brings itself, by name.
    pub modules: BTreeMap<String, Module>,
    /// How migrations run.
    pub migrations: Migrations,
    /// How they run over many databases.
    pub rollouts: Rollouts,
    /// Seed properties for all services.
    pub properties: BTreeMap<String, SecretString>,
    /// Module connection names and the services that serve them.
    pub connections: BTreeMap<String, String>,
    /// The policy for tenants.
    pub tenants: Tenants,
    /// Messages between services.
    pub events: Events,
    /// Backups.
    pub backup: Backup,
    /// Rules of the linter.
    pub lint: Lint,
}

impl Manifest {
    /// Returns the service of this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Returns the server on which a service's database lives.
    ///
    /// `load` has checked that it is declared.
    pub fn server_of(&self, service: &Service) -> &Server {
        &self.servers[&service.server]
    }

    /// Says whether tenants' databases may be on a server.
    pub fn holds_tenants(&self, server: &str) -> bool {
        self.tenants.servers.iter().any(|name| name == server)
    }

    /// Returns what is bound in a service's seeds: the solution's properties with the service's own laid over them.
    pub fn properties_of(&self, service: &Service) -> BTreeMap<String, SecretString> {
        let mut properties = self.properties.clone();
        properties.extend(service.properties.clone());
        properties
    }
}

/// `[solution]`.
#[derive(Clone, Debug)]
pub struct Solution {
    /// Its name.
    pub name: String,
    /// Whether services migrate their database when they start.
    pub auto_migrate: bool,
    /// Whether services may reach each other's databases.
    pub isolation: Isolation,
}

/// `[servers.<name>]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: ServerUrl,
    /// Where the server itself is when `url` is that of a pooler.
    pub direct: Option<SecretString>,
    /// URLs of its replicas.
    pub replicas: Vec<SecretString>,
    /// Connections for all pools together.
    pub budget: Budget,
    /// Data folder of a local server.
    pub data_dir: Option<PathBuf>,
    /// Folder with the programs of a local server.
    pub bin_dir: Option<PathBuf>,
    /// `max_connections` of a local server.
    pub max_connections: Option<u32>,
}

/// Where a server is.
#[derive(Clone, Debug)]
pub enum ServerUrl {
    /// The embedded PostgreSQL of this machine.
    Local,
    /// A connection string, as a URL or as key-value pairs.
    Remote(SecretString),
}

/// How many connections all pools of a server may hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// What the server allows, without the reserved ones, less a tenth.
    Auto,
    /// This many.
    Connections(u32),
}

/// `[control]`.
#[derive(Clone, Debug)]
pub struct Control {
    /// Name of its server.
    pub server: String,
    /// Name of the database.
    pub database: String,
    /// File with the key that encrypts stored credentials.
    pub key_file: Option<PathBuf>,
    /// File with the keys that the present one replaced.
    pub old_key_file: Option<PathBuf>,
}

/// `[services.<name>]`.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Name of its server.
    pub server: String,
    /// Name of its host database.
    pub database: String,
    /// Schema of its tables.
    pub schema: String,
    /// Folder of its migrations.
    pub migrations: PathBuf,
    /// Folder of its seed files.
    pub seeds: PathBuf,
    /// Layout of the migrations' folder; recognised when none.
    pub layout: Option<String>,
    /// History table as `schema.table`; pgfleet's own when none.
    pub history: Option<String>,
    /// Modules in the order in which they are migrated.
    pub modules: Vec<String>,
    /// Declared access to other services' modules.
    pub uses: Vec<Uses>,
    /// PostgreSQL extensions that provisioning creates.
    pub extensions: Vec<String>,
    /// Whether it has data in tenant databases.
    pub tenants: TenantUse,
    /// Its connection pool.
    pub pool: Pool,
    /// Where its streams and queues are, by patterns of their names.
    pub streams: BTreeMap<String, StreamPlace>,
    /// The program that runs its Rust steps.
    pub program: Option<PathBuf>,
    /// The command that starts it.
    pub run: Option<String>,
    /// How its health is asked for.
    pub health: Option<String>,
    /// How long it may take to become healthy.
    pub health_timeout: Duration,
    /// Seed properties of its own; [`Manifest::properties_of`] has all.
    pub properties: BTreeMap<String, SecretString>,
    /// Whether it is the bus: a database that pgfleet itself declares, for the messages between the others.
    pub bus: bool,
}

/// `[modules.<name>]`: a reusable schema with its own migration set.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Folder of its migrations.
    pub migrations: PathBuf,
    /// Folder of its seed files.
    pub seeds: PathBuf,
    /// Layout of the migrations' folder; recognised when none.
    pub layout: Option<String>,
    /// Schema of its tables; the service's own when none.
    pub schema: Option<String>,
    /// History table as `schema.table`; pgfleet's own when none.
    pub history: Option<String>,
    /// Its connection name; its own name when none.
    pub connection: Option<String>,
    /// Which of those in the program it is; none for one with files of its own.
    pub builtin: Option<Builtin>,
}

impl Service {
    /// Returns the name of the variable that holds its connection string.
    pub fn url_variable(&self) -> String {
        super::overrides::connection_variables(&self.name)[0].clone()
    }

    /// Returns the name of the variable that holds its migrator's connection string.
    pub fn migrator_url_variable(&self) -> String {
        super::overrides::connection_variables(&self.name)[1].clone()
    }

    /// Returns the name of another of its variables: `PGFLEET_TRIP_BUDGET`.
    pub fn variable(&self, what: &str) -> String {
        format!("PGFLEET_{}_{what}", super::env_name(&self.name))
    }
}

/// Declared access to one module of another service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uses {
    /// The other service.
    pub service: String,
    /// Its module.
    pub module: String,
}

/// A service's connection pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Most connections.
    pub max: u32,
    /// Connections kept open.
    pub min: u32,
    /// When an idle connection is closed.
    pub idle_timeout: Duration,
    /// How long opening one may take.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub command_timeout: Duration,
}

/// `[migrations]`.
#[derive(Clone, Debug)]
pub struct Migrations {
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// How often a migration that met a lock time-out is tried in all.
    pub lock_tries: u32,
    /// Which errors let a run be tried again.
    pub retry_on: RetryOn,
    /// How often a run is tried in all.
    pub max_tries: u32,
    /// Shortest wait before the next try.
    pub min_retry_wait: Duration,
    /// Longest wait before the next try; at least the shortest.
    pub max_retry_wait: Duration,
    /// How often a starting service looks for its server.
    pub wait_attempts: u32,
    /// Time between two such looks.
    pub wait_delay: Duration,
    /// When commits wait for the disk.
    pub durability: Durability,
    /// How indexes are built concurrently.
    pub concurrently: Concurrently,
    /// An applied migration was edited.
    pub on_changed: OnChanged,
    /// An applied migration has no file.
    pub on_missing: OnMissing,
    /// The database is ahead.
    pub on_ahead: OnAhead,
    /// A pending migration is below the newest applied one.
    pub on_out_of_order: OnOutOfOrder,
    /// Values of placeholders.
    pub placeholders: BTreeMap<String, SecretString>,
    /// How many databases are migrated at a time.
    pub concurrency: u32,
}

/// `[rollouts]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollouts {
    /// How many databases of one server are migrated at a time.
    pub concurrency: u32,
    /// How many tenants are in the first wave.
    pub canary: u32,
    /// How many times larger each wave is than the one before.
    pub growth: u32,
    /// A rollout halts when more databases than this failed.
    pub max_failures: u32,
}

/// `[tenants]`.
#[derive(Clone, Debug)]
pub struct Tenants {
    /// How many databases a tenant has.
    pub databases: TenantDatabases,
    /// Where a new one is placed.
    pub placement: Placement,
    /// The servers that hold tenants' databases.
    pub servers: Vec<String>,
    /// The server on which all are placed, when the placement says so.
    pub pinned: Option<String>,
    /// The servers' weights; a server that is missing here has 1.
    pub weights: BTreeMap<String, u32>,
    /// How long closed databases are kept.
    pub drop_after: Duration,
    /// Tenants that a rollout takes first.
    pub canary: Vec<String>,
    /// After how long what is known of a database is looked up again.
    pub verify_after: Duration,
    /// What is run after a tenant's string was changed.
    pub after_connection_string_updated: Option<String>,
    /// Whether tenants are seeded when no schema changed.
    pub always_seed: bool,
}

/// `[events]`.
#[derive(Clone, Debug)]
pub struct Events {
    /// What carries messages.
    pub broker: Broker,
    /// Where it is; none for the bus database and for one process.
    pub url: Option<SecretString>,
    /// The server of the bus database.
    pub server: String,
    /// Name of the bus database.
    pub database: String,
    /// What carries the messages by which tenants follow their services.
    pub chain: ChainTransport,
}

/// `[backup]`.
#[derive(Clone, Debug)]
pub struct Backup {
    /// `file:PATH` or `s3://bucket/prefix`.
    pub store: String,
    /// Age public keys.
    pub recipients: Vec<String>,
    /// A cron expression in UTC.
    pub schedule: String,
    /// Days for which backups are kept.
    pub keep_days: u32,
}

/// `[lint]`.
#[derive(Clone, Debug)]
pub struct Lint {
    /// Rules whose findings are errors.
    pub deny: Vec<String>,
    /// Rules that are off.
    pub allow: Vec<String>,
}
