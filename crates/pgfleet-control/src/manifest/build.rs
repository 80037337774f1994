//! From the completed layers to the typed manifest.
//!
//! Nothing fails here. What is missing or wrong was reported before or is reported by `validate`, and a manifest with
//! errors is never handed out; until then an empty value stands in its place, so that one pass finds all errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::builtin::Builtin;
use super::layers::Layers;
use super::model::{
    Backup, Broker, Budget, ChainTransport, Concurrently, Control, Durability, Events, Isolation, Lint, Manifest,
    Migrations, Module, OnAhead, OnChanged, OnMissing, OnOutOfOrder, Placement, Pool, RetryOn, Rollouts, Server,
    ServerUrl, Service, Solution, StreamPlace, TenantDatabases, TenantUse, Tenants, Uses,
};
use super::value::Value;

pub(super) fn build(layers: &Layers, path: &Path, root: &Path, env: &str) -> Manifest {
    let read = Reader { layers, root };
    let names = |section: &str| layers.names(&[section]);
    let services: Vec<Service> = names("services").into_iter().map(|name| service(&read, name)).collect();
    Manifest {
        root: root.to_owned(),
        path: path.to_owned(),
        env: env.to_owned(),
        solution: Solution {
            name: read.text(&["solution", "name"]),
            auto_migrate: read.bool(&["solution", "auto_migrate"]),
            isolation: read.word(&["solution", "isolation"], Isolation::from_word, Isolation::Strict),
        },
        servers: names("servers").into_iter().map(|name| (name.to_owned(), server(&read, name))).collect(),
        control: Control {
            server: read.text(&["control", "server"]),
            database: read.text(&["control", "database"]),
            key_file: read.path(&["control", "key_file"]),
            old_key_file: read.path(&["control", "old_key_file"]),
        },
        modules: modules(&read, &services),
        services,
        migrations: migrations(&read),
        rollouts: Rollouts {
            concurrency: read.number(&["rollouts", "concurrency"]),
            canary: read.number(&["rollouts", "canary"]),
            growth: read.number(&["rollouts", "growth"]),
            max_failures: read.number(&["rollouts", "max_failures"]),
        },
        properties: read.secrets(&["seeds", "properties"]),
        connections: names("connections")
            .into_iter()
            .map(|name| (name.to_owned(), read.text(&["connections", name])))
            .collect(),
        tenants: Tenants {
            databases: read.word(&["tenants", "databases"], TenantDatabases::from_word, TenantDatabases::One),
            placement: read.word(&["tenants", "placement"], Placement::from_word, Placement::FewestDatabases),
            servers: read.list(&["tenants", "servers"]),
            pinned: read.optional(&["tenants", "server"]),
            weights: layers
                .names(&["tenants", "weights"])
                .into_iter()
                .map(|name| (name.to_owned(), read.number(&["tenants", "weights", name])))
                .collect(),
            drop_after: read.duration(&["tenants", "drop_after"]),
            canary: read.list(&["tenants", "canary"]),
            verify_after: read.duration(&["tenants", "verify_after"]),
            after_connection_string_updated: read
                .optional(&["tenants", "after_connection_string_updated"])
                .filter(|command| !command.is_empty()),
            always_seed: read.bool(&["tenants", "always_seed"]),
        },
        events: Events {
            broker: read.word(&["events", "broker"], Broker::from_word, Broker::Postgres),
            url: read.optional(&["events", "url"]).filter(|url| !url.is_empty()).map(SecretString::from),
            server: read.text(&["events", "server"]),
            database: read.text(&["events", "database"]),
            chain: read.word(&["events", "chain"], ChainTransport::from_word, ChainTransport::Table),
        },
        backup: Backup {
            store: read.text(&["backup", "store"]),
            recipients: read.list(&["backup", "recipients"]),
            schedule: read.text(&["backup", "schedule"]),
            keep_days: read.number(&["backup", "keep_days"]),
        },
        lint: Lint { deny: read.list(&["lint", "deny"]), allow: read.list(&["lint", "allow"]) },
    }
}

fn server(read: &Reader<'_>, name: &str) -> Server {
    let at = |key| ["servers", name, key];
    Server {
        name: name.to_owned(),
        url: match read.text(&at("url")) {
            url if url == "local" => ServerUrl::Local,
            url => ServerUrl::Remote(url.into()),
        },
        direct: read.optional(&at("direct")).filter(|url| !url.is_empty()).map(SecretString::from),
        replicas: read.list(&at("replicas")).into_iter().map(SecretString::from).collect(),
        budget: match read.optional_number(&at("budget")) {
            Some(connections) => Budget::Connections(connections),
            None => Budget::Auto,
        },
        data_dir: read.path(&at("data_dir")),
        bin_dir: read.path(&at("bin_dir")),
        max_connections: read.optional_number(&at("max_connections")),
    }
}

fn service(read: &Reader<'_>, name: &str) -> Service {
    let at = |key| ["services", name, key];
    let pool = |key| ["services", name, "pool", key];
    Service {
        name: name.to_owned(),
        server: read.text(&at("server")),
        database: read.text(&at("database")),
        schema: read.text(&at("schema")),
        migrations: read.path(&at("migrations")).unwrap_or_default(),
        seeds: read.path(&at("seeds")).unwrap_or_default(),
        layout: read.optional(&at("layout")),
        history: read.optional(&at("history")),
        modules: read.list(&at("modules")),
        uses: read.list(&at("uses")).iter().filter_map(|text| parse_uses(text)).collect(),
        extensions: read.list(&at("extensions")),
        tenants: read.word(&at("tenants"), TenantUse::from_word, TenantUse::None),
        pool: Pool {
            max: read.number(&pool("max")),
            min: read.number(&pool("min")),
            idle_timeout: read.duration(&pool("idle_timeout")),
            connect_timeout: read.duration(&pool("connect_timeout")),
            command_timeout: read.duration(&pool("command_timeout")),
        },
        streams: {
            let names = read.layers.names(&at("streams")).into_iter();
            let place = |pattern| {
                read.word(&["services", name, "streams", pattern], StreamPlace::from_word, StreamPlace::Postgres)
            };
            names.map(|pattern| (pattern.to_owned(), place(pattern))).collect()
        },
        program: read.path(&at("program")),
        run: read.optional(&at("run")).filter(|command| !command.is_empty()),
        health: read.optional(&at("health")).filter(|check| !check.is_empty()),
        health_timeout: read.duration(&at("health_timeout")),
        properties: read.secrets(&at("properties")),
        bus: false,
    }
}

/// Those that are declared, and those in use that need no declaration.
fn modules(read: &Reader<'_>, services: &[Service]) -> BTreeMap<String, Module> {
    let declared = read.layers.names(&["modules"]).into_iter().map(|name| (name.to_owned(), module(read, name)));
    let mut modules: BTreeMap<String, Module> = declared.collect();
    for builtin in Builtin::ALL {
        let name = builtin.name();
        if services.iter().any(|service| service.modules.iter().any(|module| module == name)) {
            modules.entry(name.to_owned()).or_insert_with(|| Module::builtin(builtin));
        }
    }
    modules
}

fn module(read: &Reader<'_>, name: &str) -> Module {
    let at = |key| ["modules", name, key];
    // Who names a folder means his own files.
    let own = |key| read.layers.get(&at(key)).is_some_and(|entry| !entry.setter.is_default());
    let builtin = Builtin::of(name).filter(|_| !own("migrations"));
    Module {
        name: name.to_owned(),
        builtin,
        migrations: read.path(&at("migrations")).unwrap_or_default(),
        seeds: read.path(&at("seeds")).unwrap_or_default(),
        layout: read.optional(&at("layout")),
        schema: read.optional(&at("schema")).or_else(|| builtin.and_then(Builtin::schema).map(str::to_owned)),
        history: read.optional(&at("history")),
        connection: read.optional(&at("connection")),
    }
}

fn migrations(read: &Reader<'_>) -> Migrations {
    let at = |key| ["migrations", key];
    Migrations {
        lock_timeout: read.duration(&at("lock_timeout")),
        lock_tries: read.number(&at("lock_tries")),
        retry_on: read.word(&at("retry_on"), RetryOn::from_word, RetryOn::Transient),
        max_tries: read.number(&at("max_tries")),
        min_retry_wait: read.duration(&at("min_retry_wait")),
        max_retry_wait: read.duration(&at("max_retry_wait")),
        wait_attempts: read.number(&at("wait_attempts")),
        wait_delay: read.duration(&at("wait_delay")),
        durability: read.word(&at("durability"), Durability::from_word, Durability::Run),
        concurrently: read.word(&at("concurrently"), Concurrently::from_word, Concurrently::AsWritten),
        on_changed: read.word(&at("on_changed"), OnChanged::from_word, OnChanged::Error),
        on_missing: read.word(&at("on_missing"), OnMissing::from_word, OnMissing::Error),
        on_ahead: read.word(&at("on_ahead"), OnAhead::from_word, OnAhead::Run),
        on_out_of_order: read.word(&at("on_out_of_order"), OnOutOfOrder::from_word, OnOutOfOrder::Error),
        placeholders: read.secrets(&at("placeholders")),
        concurrency: read.number(&at("concurrency")),
    }
}

/// Reads `service:module`; a service's name may hold a colon itself, a module's does not.
pub(super) fn parse_uses(text: &str) -> Option<Uses> {
    let (service, module) = text.rsplit_once(':')?;
    let whole = !service.is_empty() && !module.is_empty() && service.trim() == service && module.trim() == module;
    whole.then(|| Uses { service: service.into(), module: module.into() })
}

struct Reader<'a> {
    layers: &'a Layers,
    root: &'a Path,
}

impl Reader<'_> {
    fn value(&self, path: &[&str]) -> Option<&Value> {
        self.layers.get(path).map(|entry| &entry.value)
    }

    fn optional(&self, path: &[&str]) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn text(&self, path: &[&str]) -> String {
        self.optional(path).unwrap_or_default()
    }

    fn path(&self, path: &[&str]) -> Option<PathBuf> {
        self.optional(path).filter(|text| !text.is_empty()).map(|text| self.root.join(text))
    }

    fn bool(&self, path: &[&str]) -> bool {
        matches!(self.value(path), Some(Value::Bool(true)))
    }

    fn optional_number(&self, path: &[&str]) -> Option<u32> {
        match self.value(path) {
            Some(Value::Integer(number)) => u32::try_from(*number).ok(),
            _ => None,
        }
    }

    fn number(&self, path: &[&str]) -> u32 {
        self.optional_number(path).unwrap_or_default()
    }

    fn duration(&self, path: &[&str]) -> Duration {
        match self.value(path) {
            Some(Value::Duration(duration)) => *duration,
            _ => Duration::ZERO,
        }
    }

    fn list(&self, path: &[&str]) -> Vec<String> {
        match self.value(path) {
            Some(Value::List(list)) => list.clone(),
            _ => Vec::new(),
        }
    }

    fn word<W>(&self, path: &[&str], from_word: fn(&str) -> Option<W>, otherwise: W) -> W {
        self.optional(path).and_then(|word| from_word(&word)).unwrap_or(otherwise)
    }

    fn secrets(&self, table: &[&str]) -> BTreeMap<String, SecretString> {
        let names = self.layers.names(table).into_iter();
        names.map(|name| (name.to_owned(), self.text(&[table, &[name]].concat()).into())).collect()
    }
}
