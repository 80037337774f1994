//! The one table of all keys: what they take, their defaults, what they mean.
//!
//! Parsing, unknown-key errors, environment variables, `config show` and the reference are all derived from it, so a
//! key cannot be read without being documented.

use super::value::Kind;
use super::word::{
    Broker, ChainTransport, Concurrently, Durability, Isolation, OnAhead, OnChanged, OnMissing, OnOutOfOrder,
    Placement, RetryOn, StreamPlace, TenantDatabases, TenantUse,
};

/// What a key is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Preset {
    /// It stays unset.
    Unset,
    /// This text, read as an environment variable would be.
    Is(&'static str),
    /// Made from other settings, described for the reference; `Layers::complete` makes it.
    Made(&'static str),
}

/// How much of a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    Open,
    /// A connection string or a list of them: all but the password.
    Url,
    /// Nothing, if the key's own name is one of a secret.
    ByName,
}

/// One key, or with `*` a family of keys.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Preset,
    pub(super) doc: &'static str,
    pub(super) secrecy: Secrecy,
    /// Read and checked, but without effect in this version.
    pub(super) unused: bool,
}

const fn key(path: &'static str, kind: Kind, default: Preset, doc: &'static str) -> Key {
    Key { path, kind, default, doc, secrecy: Secrecy::Open, unused: false }
}

impl Key {
    const fn url(self) -> Self {
        Self { secrecy: Secrecy::Url, ..self }
    }

    const fn secret_by_name(self) -> Self {
        Self { secrecy: Secrecy::ByName, ..self }
    }

    const fn unused(self) -> Self {
        Self { unused: true, ..self }
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.path.split('.')
    }
}

/// The layouts of migration folders that are known.
pub(super) const LAYOUTS: &[&str] =
    &["pgfleet", "sqlx", "flyway", "refinery", "golang-migrate", "dbmate", "goose", "diesel"];

use Kind::{Bool, Duration, Integer, IntegerOrAuto, List, Path, Period, Text, Words};
use Preset::{Is, Made, Unset};

const COUNT: Kind = Integer { min: 1, max: 1_000 };
const CONNECTIONS: Kind = Integer { min: 1, max: 10_000 };

/// All keys, in the order of the reference.
#[rustfmt::skip]
pub(super) static KEYS: &[Key] = &[
    key("solution.name", Text, Made("the name of the manifest's folder"), "Name of the solution"),
    key("solution.auto_migrate", Bool, Is("true"), "Services migrate their database when they start; `false`: only the command line or a library call does"),
    key("solution.isolation", Words(Isolation::WORDS), Is("strict"), "`strict`: no service reaches another's database; `declared`: what `uses` names is allowed"),

    key("servers.*.url", Text, Is("local"), "`local` for the embedded PostgreSQL, or the URL of a role that may create databases and roles").url(),
    key("servers.*.direct", Text, Unset, "URL of the server itself where `url` is that of a pooler: for provisioning and migrations; what it does not say (database, role, password, TLS) is as in `url`").url(),
    key("servers.*.replicas", List, Is(""), "URLs of streaming replicas; what one does not say (port, TLS) is as in `url`").url(),
    key("servers.*.budget", IntegerOrAuto { min: 1, max: 100_000 }, Is("auto"), "Connections for all pools together; `auto`: what the server allows, without the reserved ones, less a tenth"),
    key("servers.*.data_dir", Path, Unset, "Data folder of a local server"),
    key("servers.*.bin_dir", Path, Unset, "Folder of the PostgreSQL programs of a local server"),
    key("servers.*.max_connections", CONNECTIONS, Unset, "`max_connections` of a local server"),

    key("control.server", Text, Made("the only server"), "Server of the control database"),
    key("control.database", Text, Is("pgfleet"), "Name of the control database"),
    key("control.key_file", Path, Unset, "File with the key that encrypts stored credentials and tenants' connection strings"),
    key("control.old_key_file", Path, Unset, "File with the keys that the present one replaced, one a line; see the rotation of the key"),

    key("services.*.server", Text, Made("the only server"), "Server of the service's database"),
    key("services.*.database", Text, Made("the service's name, shortened to 63 bytes"), "Name of the service's database"),
    key("services.*.schema", Text, Is("public"), "Schema of the service's tables"),
    key("services.*.migrations", Path, Made("`services/<name>/migrations`"), "Folder of the migrations"),
    key("services.*.seeds", Path, Made("`services/<name>/seeds`"), "Folder of the seed files"),
    key("services.*.layout", Words(LAYOUTS), Unset, "Layout of the migrations' folder; recognised when not named"),
    key("services.*.history", Text, Unset, "History table, as `schema.table`"),
    key("services.*.modules", List, Is(""), "Modules in the service's database, in the order in which they are migrated, before the service itself; `outbox`, `inbox` and `event_streaming` need no files"),
    key("services.*.uses", List, Is(""), "Declared access to other services' modules, as `service:module`"),
    key("services.*.extensions", List, Is(""), "PostgreSQL extensions that provisioning creates"),
    key("services.*.tenants", Words(TenantUse::WORDS), Is("none"), "`own`: the service has data in tenant databases"),
    key("services.*.pool.max", CONNECTIONS, Is("20"), "Most connections of the pool; also the service's weight when the budget of its server is shared out"),
    key("services.*.pool.min", Integer { min: 0, max: 10_000 }, Is("5"), "Connections kept open"),
    key("services.*.pool.idle_timeout", Duration, Is("30s"), "When an idle connection is closed"),
    key("services.*.pool.connect_timeout", Duration, Is("20s"), "How long opening a connection may take"),
    key("services.*.pool.command_timeout", Duration, Is("30s"), "How long a statement may take"),
    key("services.*.streams.*", Words(StreamPlace::WORDS), Unset, "Where the streams and queues are whose names fit this pattern (a name, or the beginning of names with a `*` behind it): `postgres`, which holds for all that fit none, or `memory`: in its program, gone with it. `\"*\"` is all others"),
    key("services.*.program", Path, Unset, "Program that runs the migrations and seeders written in Rust; relative to the manifest"),
    key("services.*.run", Text, Unset, "Command with which `up` starts the service, for `sh -c` in the manifest's folder"),
    key("services.*.health", Text, Unset, "How `up` asks whether the service is healthy: `http://127.0.0.1:8081/health` or `tcp:8081`; without it, when it has run for a second"),
    key("services.*.health_timeout", Duration, Is("60s"), "How long the service may take to become healthy"),
    key("services.*.properties.*", Text, Unset, "Seed property of this service; goes before the one of the same name in `[seeds.properties]`").secret_by_name(),

    key("modules.*.migrations", Path, Made("`modules/<name>/migrations`"), "Folder of the module's migrations; for `outbox`, `inbox` and `event_streaming`, files that take the place of pgfleet's own"),
    key("modules.*.seeds", Path, Made("`modules/<name>/seeds`"), "Folder of the module's seed files"),
    key("modules.*.layout", Words(LAYOUTS), Unset, "Layout of the migrations' folder; recognised when not named"),
    key("modules.*.schema", Text, Unset, "Schema of the module's tables; the service's own when not named"),
    key("modules.*.history", Text, Unset, "History table, as `schema.table`"),
    key("modules.*.connection", Text, Unset, "Connection name of the module; the module's own name when not named"),

    key("connections.*", Text, Unset, "Service whose database serves this connection name; another service gets it only with `uses`"),

    key("tenants.databases", Words(TenantDatabases::WORDS), Is("one"), "`one`: a database per tenant with a schema per service; `per-service`: one for each service"),
    key("tenants.placement", Words(Placement::WORDS), Is("fewest-databases"), "Server on which a new tenant's databases are made: `fewest-databases`, `most-room` (the fewest bytes), `weighted` (by `weights`), or `pinned` (on `server`)"),
    key("tenants.servers", List, Made("the servers of the services with `tenants = \"own\"`"), "Servers that hold tenants' databases; every service with `tenants = \"own\"` has its roles on each of them. A server must be named as long as it holds some"),
    key("tenants.server", Text, Unset, "Server for `placement = \"pinned\"`"),
    key("tenants.weights.*", Integer { min: 0, max: 1_000 }, Unset, "Part of this server for `placement = \"weighted\"`; 1 when not named, 0: no new tenants, those that are there stay"),
    key("tenants.drop_after", Period, Is("7d"), "How long the closed databases of a deleted or moved tenant are kept before they are dropped"),
    key("tenants.canary", List, Is(""), "Tenants that a rollout takes first"),
    key("tenants.verify_after", Period, Is("24h"), "After how long what the control database knows of a database is looked up in the database itself again"),
    key("tenants.after_connection_string_updated", Text, Unset, "Command that is run after a tenant's string was changed and what it leads to was migrated, for `sh -c` in the manifest's folder, with `PGFLEET_TENANT` and `PGFLEET_CONNECTION`"),
    key("tenants.always_seed", Bool, Is("false"), "Seed tenants also when no schema changed"),

    key("migrations.lock_timeout", Duration, Is("2s"), "How long a statement of a migration waits for a lock"),
    key("migrations.lock_tries", COUNT, Is("10"), "How often a migration that met a lock time-out is tried in all"),
    key("migrations.retry_on", Words(RetryOn::WORDS), Is("transient"), "`transient`: only errors that can pass are tried again; `any`: all"),
    key("migrations.max_tries", COUNT, Is("3"), "How often a run is tried in all"),
    key("migrations.min_retry_wait", Duration, Is("5s"), "Shortest wait before the next try"),
    key("migrations.max_retry_wait", Duration, Is("15s"), "Longest wait before the next try"),
    key("migrations.wait_attempts", COUNT, Is("30"), "How often a service looks for its server when it starts"),
    key("migrations.wait_delay", Duration, Is("5s"), "Time between two such looks"),
    key("migrations.durability", Words(Durability::WORDS), Is("run"), "`run`: one flush to disk at the end of a run; `each`: one per migration"),
    key("migrations.concurrently", Words(Concurrently::WORDS), Is("as-written"), "`CREATE INDEX CONCURRENTLY` in a file without a transaction; `plain-when-empty`: without `CONCURRENTLY` on a table that has no row, so that it waits for no older transaction"),
    key("migrations.on_changed", Words(OnChanged::WORDS), Is("error"), "An applied migration was edited"),
    key("migrations.on_missing", Words(OnMissing::WORDS), Is("error"), "An applied migration below the newest known one has no file"),
    key("migrations.on_ahead", Words(OnAhead::WORDS), Is("run"), "The database is ahead of the newest migration known here"),
    key("migrations.on_out_of_order", Words(OnOutOfOrder::WORDS), Is("error"), "A pending migration is below the newest applied one"),
    key("migrations.concurrency", Integer { min: 1, max: 256 }, Is("4"), "How many databases are migrated at a time"),
    key("migrations.placeholders.*", Text, Unset, "Value of a placeholder in migrations").secret_by_name(),

    key("rollouts.concurrency", Integer { min: 1, max: 256 }, Made("`concurrency` of `[migrations]`"), "How many databases of one server are migrated at a time"),
    key("rollouts.canary", Integer { min: 0, max: 10_000 }, Is("1"), "How many tenants are in the first wave, beside those of `canary` in `[tenants]`"),
    key("rollouts.growth", Integer { min: 1, max: 1_000 }, Is("4"), "How many times larger each wave is than the one before"),
    key("rollouts.max_failures", Integer { min: 0, max: 1_000_000 }, Is("5"), "A rollout halts when more databases than this failed"),

    key("seeds.properties.*", Text, Unset, "Value of a property in all services' seed files").secret_by_name(),

    key("lint.deny", List, Is(""), "Rules whose findings are errors").unused(),
    key("lint.allow", List, Is(""), "Rules that are off").unused(),

    key("events.broker", Words(Broker::WORDS), Is("postgres"), "What carries messages between services: `postgres` is a bus database that provisioning makes when a service has the module `outbox` or `inbox`; `in-process` is for a solution of one service"),
    key("events.url", Text, Unset, "URL of RabbitMQ (`amqp://`, `amqps://`) or NATS (`nats://`, `tls://`)").url(),
    key("events.server", Text, Made("the only server; of several, that of the control database"), "Server of the bus database"),
    key("events.database", Text, Is("pgfleet_bus"), "Name of the bus database, with which the names of its roles begin"),
    key("events.chain", Words(ChainTransport::WORDS), Is("table"), "What carries the messages by which tenants follow their services: `table`: the control database; `broker`: as `broker` says"),

    key("backup.store", Text, Is("file:backups"), "`file:PATH` or `s3://bucket/prefix`").unused(),
    key("backup.recipients", List, Is(""), "Age public keys to which backups are encrypted").unused(),
    key("backup.schedule", Text, Is("0 0 * * *"), "When backups run, as a cron expression in UTC").unused(),
    key("backup.keep_days", Integer { min: 1, max: 36_500 }, Is("30"), "Days for which backups are kept").unused(),
];

/// Finds the key to which a path belongs.
pub(super) fn leaf<S: AsRef<str>>(path: &[S]) -> Option<&'static Key> {
    KEYS.iter().find(|key| matches(key, path) == Some(0))
}

/// Says whether a path is a table of the schema.
pub(super) fn is_table<S: AsRef<str>>(path: &[S]) -> bool {
    KEYS.iter().any(|key| matches(key, path).is_some_and(|left| left > 0))
}

/// Returns the names that the schema knows directly below a table, without `*`.
pub(super) fn children<S: AsRef<str>>(table: &[S]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in next_segments(table) {
        if name != "*" && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Says whether a table takes any name.
pub(super) fn is_open<S: AsRef<str>>(table: &[S]) -> bool {
    next_segments(table).any(|name| name == "*")
}

/// Returns the tables in which a key of this name stands, for keys that were written into the wrong one.
pub(super) fn homes(name: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let (table, last) = key.path.rsplit_once('.')?;
        (last == name).then_some(table)
    })
}

fn next_segments<S: AsRef<str>>(table: &[S]) -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .filter(move |key| matches(key, table).is_some_and(|left| left > 0))
        .filter_map(move |key| key.segments().nth(table.len()))
}

/// How many segments the key has beyond the path, if the path leads to it.
fn matches<S: AsRef<str>>(key: &Key, path: &[S]) -> Option<usize> {
    let mut segments = key.segments();
    for given in path {
        let segment = segments.next()?;
        if segment != "*" && segment != given.as_ref() {
            return None;
        }
    }
    Some(segments.count())
}
