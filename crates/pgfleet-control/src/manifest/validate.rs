//! What the schema cannot say: names that must resolve, pairs that must fit, what production refuses.

mod events;
mod tenants;

use std::collections::BTreeMap;

use pgfleet_migrate::seed::TENANT;
use secrecy::ExposeSecret as _;

use super::build::parse_uses;
use super::connections::Leads;
use super::diagnostic::Diagnostic;
use super::layers::{Declared, Layers};
use super::model::{Isolation, Manifest, ServerUrl, Service, Uses};
use super::name::{did_you_mean, identifier_mistake, name_mistake};
use super::overrides::service_variables;
use super::secret::{is_well_known, names_a_secret, url_password};
use super::value::Value;

/// Databases that every server has and that are nobody's own.
const RESERVED_DATABASES: &[&str] = &["postgres", "template0", "template1"];

pub(super) fn validate(layers: &Layers, manifest: &Manifest, errors: &mut Vec<Diagnostic>) {
    let mut check = Check { layers, manifest, errors };
    check.names();
    check.environment_names();
    check.servers();
    check.services();
    check.databases();
    check.ranges();
    check.connections();
    check.tenants();
    check.events();
    check.properties();
    if manifest.env != "dev" {
        check.production();
    }
}

struct Check<'a> {
    layers: &'a Layers,
    manifest: &'a Manifest,
    errors: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    fn error(&mut self, path: &[&str], message: impl Into<String>) {
        let error = self.layers.about(path, message);
        self.errors.push(error);
    }

    fn error_hinted(&mut self, path: &[&str], message: impl Into<String>, hint: Option<String>) {
        let error = Diagnostic { hint, ..self.layers.about(path, message) };
        self.errors.push(error);
    }

    fn names(&mut self) {
        let name = &self.manifest.solution.name;
        if let Some(mistake) = name_mistake(name) {
            self.error(&["solution", "name"], format!("the name of the solution `{}` {mistake}", name.escape_debug()));
        }
        if self.layers.services.is_empty() {
            let error = Diagnostic::new("there is no service").in_file(&self.manifest.path);
            self.errors.push(error.hinted("declare one: [services.trip]"));
        }
        let layers = self.layers;
        for (noun, declared) in [("service", &layers.services), ("server", &layers.servers)] {
            for Declared { name, place } in declared {
                if let (Some(mistake), Some(place)) = (name_mistake(name), place) {
                    let message = format!("the name of {noun} `{}` {mistake}", name.escape_debug());
                    self.errors.push(Diagnostic::new(message).at(place));
                }
            }
        }
    }

    /// Two services whose variables have one name would be handed each other's credentials.
    fn environment_names(&mut self) {
        let layers = self.layers;
        let mut taken: BTreeMap<String, &Declared> = BTreeMap::new();
        for service in &layers.services {
            let connections = self.manifest.service(&service.name).into_iter().flat_map(|service| {
                let names = self.manifest.connections_of(service).into_iter();
                let elsewhere = names.filter(|(_, leads)| matches!(leads, Leads::To(_)));
                elsewhere.map(|(name, _)| service.variable(&format!("CONNECTION_{}_URL", super::env_name(name))))
            });
            for variable in service_variables(&service.name).into_iter().chain(connections.collect::<Vec<_>>()) {
                let at = ["services", service.name.as_str()];
                if variable == "PGFLEET_ADMIN_URL" {
                    let message = format!(
                        "service `{}` would be handed its URL in {variable}, which is the administrator's",
                        service.name
                    );
                    self.error_hinted(&at, message, Some("give the service another name".into()));
                } else if let Some(first) = taken.get(&variable) {
                    let place =
                        first.place.as_ref().map(|place| format!(" (the first at {place})")).unwrap_or_default();
                    let message = format!(
                        "services `{}` and `{}` would both be handed a URL in {variable}{place}",
                        first.name, service.name
                    );
                    self.error_hinted(&at, message, Some("rename one of them".into()));
                    // The second variable collides for the same reason.
                    break;
                } else {
                    taken.insert(variable, service);
                }
            }
        }
    }

    fn servers(&mut self) {
        for server in self.manifest.servers.values() {
            let url = ["servers", &server.name, "url"];
            match &server.url {
                ServerUrl::Remote(text) if !is_connection_string(text.expose_secret()) => {
                    let hint = "write \"local\" or postgres://user@host:5432/postgres".to_owned();
                    self.error_hinted(&url, "`url` is no connection string", Some(hint));
                }
                _ => {}
            }
            if server.direct.as_ref().is_some_and(|text| !is_connection_string(text.expose_secret())) {
                let hint = "write postgresql://host:5432, or remove it".to_owned();
                let path = ["servers", &server.name, "direct"];
                self.error_hinted(&path, "`direct` is no connection string", Some(hint));
            }
        }
    }

    fn services(&mut self) {
        let manifest = self.manifest;
        for service in &manifest.services {
            let at = |key| ["services", service.name.as_str(), key];
            self.server_exists(&at("server"), &service.server);
            self.schema(&at("schema"), &service.schema, &format!("service `{}`", service.name));
            for key in ["migrations", "seeds"] {
                if matches!(self.layers.get(&at(key)).map(|entry| &entry.value), Some(Value::Text(path)) if path.is_empty())
                {
                    self.error(&at(key), format!("`{key}` of service `{}` is empty", service.name));
                }
            }
            if let Some(history) = &service.history
                && !is_qualified(history)
            {
                self.error(&at("history"), "`history` must be written as `schema.table`");
            }
            if let Some(Err(why)) = service.health.as_deref().map(str::parse::<crate::services::health::Check>) {
                self.error_hinted(
                    &at("health"),
                    format!("`health` of service `{}` cannot be asked", service.name),
                    Some(why),
                );
            }
            self.uses(service);
            self.modules_of(service);
        }
        for module in manifest.modules.values() {
            let at = |key| ["modules", module.name.as_str(), key];
            if let Some(schema) = &module.schema {
                self.schema(&at("schema"), schema, &format!("module `{}`", module.name));
            }
            if module.history.as_deref().is_some_and(|history| !is_qualified(history)) {
                self.error(&at("history"), "`history` must be written as `schema.table`");
            }
            if manifest.service(&module.name).is_some() {
                // Both would have the history `pgfleet.<name>_migrations`.
                self.error(&["modules", &module.name], format!("a service is called `{}`, too", module.name));
            }
        }
        if !manifest.services.is_empty() || self.layers.get(&["control", "server"]).is_some() {
            self.server_exists(&["control", "server"], &manifest.control.server);
        }
    }

    fn schema(&mut self, path: &[&str], schema: &str, owner: &str) {
        if let Some(mistake) = identifier_mistake(schema) {
            self.error(path, format!("the schema of {owner} {mistake}"));
        } else if schema.starts_with("pg_") || ["pgfleet", "information_schema"].contains(&schema) {
            self.error(path, format!("schema `{schema}` belongs to PostgreSQL or to pgfleet"));
        }
    }

    fn modules_of(&mut self, service: &Service) {
        let path = ["services", service.name.as_str(), "modules"];
        for (at, module) in service.modules.iter().enumerate() {
            if service.modules[..at].contains(module) {
                self.error(&path, format!("`modules` of service `{}` names `{module}` twice", service.name));
            }
        }
    }

    fn server_exists(&mut self, path: &[&str], server: &str) {
        let names: Vec<_> = self.manifest.servers.keys().map(String::as_str).collect();
        if self.layers.get(path).is_none() {
            let owner = if path[0] == "control" { "[control]".into() } else { format!("service `{}`", path[1]) };
            let message = format!("{owner} does not say which of the servers it uses: {}", names.join(", "));
            let mut error = self.layers.about(path, message);
            if error.file.is_none() {
                error = error.in_file(&self.manifest.path);
            }
            self.errors.push(error.hinted("add `server = \"…\"`"));
        } else if !names.contains(&server) {
            let hint = did_you_mean(server, names.iter().copied());
            let hint =
                hint.or_else(|| Some(format!("declare [servers.{server}], or use one of: {}", names.join(", "))));
            self.error_hinted(path, format!("there is no server `{server}`"), hint);
        }
    }

    fn uses(&mut self, service: &Service) {
        let path = ["services", service.name.as_str(), "uses"];
        let Some(Value::List(list)) = self.layers.get(&path).map(|entry| &entry.value) else { return };
        if !list.is_empty() && self.manifest.solution.isolation == Isolation::Strict {
            let hint = "set `isolation = \"declared\"` in [solution] to allow what `uses` names";
            let message = format!("`uses` of service `{}` is refused by `isolation = \"strict\"`", service.name);
            self.error_hinted(&path, message, Some(hint.into()));
        }
        let names: Vec<_> = self.manifest.services.iter().map(|service| service.name.as_str()).collect();
        for text in list {
            match parse_uses(text) {
                None => {
                    let message = format!("`uses` must hold `service:module`, found `{}`", text.escape_debug());
                    self.error(&path, message);
                }
                Some(uses) if uses.service == service.name => {
                    self.error(&path, format!("service `{}` uses itself", service.name));
                }
                Some(uses) if !names.contains(&&*uses.service) => {
                    let message = format!("`uses` names service `{}`, which is not declared", uses.service);
                    self.error_hinted(&path, message, did_you_mean(&uses.service, names.iter().copied()));
                }
                Some(uses) => self.used_module(&path, text, &uses),
            }
        }
    }

    /// A module can be let in to only when its tables, and nothing else, are in one schema.
    fn used_module(&mut self, path: &[&str], text: &str, uses: &Uses) {
        let manifest = self.manifest;
        let Some(owner) = manifest.service(&uses.service) else { return };
        let name = &uses.module;
        if !owner.modules.contains(name) {
            let message =
                format!("`uses` names `{text}`, but `{name}` is none of the modules of service `{}`", owner.name);
            let hint = did_you_mean(name, owner.modules.iter().map(String::as_str))
                .unwrap_or_else(|| format!("add it to `modules` of [services.{}]", owner.name));
            return self.error_hinted(path, message, Some(hint));
        }
        let own = format!("add `schema = \"{name}\"` to [modules.{name}]");
        let module = manifest.modules.get(name);
        let Some((module, schema)) = module.and_then(|module| Some((module, module.schema.as_deref()?))) else {
            let message = format!(
                "`uses` names `{text}`, and module `{name}` has no schema of its own: all tables of service `{}` would be open",
                owner.name
            );
            return self.error_hinted(path, message, Some(own));
        };
        let mut neighbours = owner.modules.iter().filter(|other| *other != name);
        let shared = neighbours.find(|other| {
            let other = manifest.modules.get(*other);
            other.is_some_and(|other| other.schema.as_deref().unwrap_or(&owner.schema) == schema)
        });
        let with = if schema == owner.schema {
            Some(format!("service `{}` itself", owner.name))
        } else {
            shared.map(|other| format!("module `{other}`"))
        };
        if let Some(with) = with {
            let message = format!("`uses` names `{text}`, but module `{name}` shares schema `{schema}` with {with}");
            self.error_hinted(path, message, Some("give the module a schema of its own".into()));
        } else if module
            .history
            .as_deref()
            .and_then(|history| history.split_once('.'))
            .is_some_and(|(h, _)| h == schema)
        {
            let message = format!("`uses` names `{text}`, and the history of module `{name}` is among its tables");
            let hint = "who can write a history can forge it: remove `history`, or name another schema in it";
            self.error_hinted(path, message, Some(hint.into()));
        }
    }

    /// One database, one owner: two services in one database would not be isolated from each other.
    fn databases(&mut self) {
        let manifest = self.manifest;
        let mut taken: BTreeMap<(&str, &str), (String, Vec<&str>)> = BTreeMap::new();
        let control = &manifest.control;
        let control_path = vec!["control", "database"];
        if self.database_name(&control_path, &control.database) {
            taken.insert((&control.server, &control.database), ("the control database".into(), control_path));
        }
        for service in &manifest.services {
            let path = vec!["services", &service.name, "database"];
            if !self.database_name(&path, &service.database) {
                continue;
            }
            let owner = format!("service `{}`", service.name);
            if let Some((first, first_path)) = taken.get(&(&*service.server, &*service.database)) {
                let place =
                    self.layers.place(first_path).map(|place| format!(" (the first at {place})")).unwrap_or_default();
                let message = format!(
                    "{first} and {owner} both use database `{}` on server `{}`{place}",
                    service.database, service.server
                );
                self.error_hinted(&path, message, Some("give each a database of its own".into()));
            } else {
                taken.insert((&service.server, &service.database), (owner, path));
            }
        }
    }

    fn database_name(&mut self, path: &[&str], database: &str) -> bool {
        if let Some(mistake) = identifier_mistake(database) {
            self.error(path, format!("the name of database `{}` {mistake}", database.escape_debug()));
        } else if RESERVED_DATABASES.contains(&database) {
            let hint = "name another one: `database = \"…\"`".to_owned();
            self.error_hinted(path, format!("database `{database}` belongs to the server"), Some(hint));
        } else {
            return true;
        }
        false
    }

    fn ranges(&mut self) {
        let manifest = self.manifest;
        for service in &manifest.services {
            let pool = &service.pool;
            if pool.min > pool.max {
                let path = ["services", &service.name, "pool", "min"];
                let path = if self.is_set(&path) { path } else { ["services", &service.name, "pool", "max"] };
                let message = format!(
                    "pool of service `{}`: `min` ({}) is more than `max` ({})",
                    service.name, pool.min, pool.max
                );
                self.error(&path, message);
            }
        }
        let migrations = &manifest.migrations;
        if migrations.min_retry_wait > migrations.max_retry_wait {
            let path = ["migrations", "min_retry_wait"];
            let path = if self.is_set(&path) { path } else { ["migrations", "max_retry_wait"] };
            let message = format!(
                "`min_retry_wait` ({}) is longer than `max_retry_wait` ({})",
                Value::Duration(migrations.min_retry_wait),
                Value::Duration(migrations.max_retry_wait)
            );
            self.error(&path, message);
        }
    }

    fn is_set(&self, path: &[&str]) -> bool {
        self.layers.get(path).is_some_and(|entry| !entry.setter.is_default())
    }

    /// Each run sets one of the properties itself.
    fn properties(&mut self) {
        let manifest = self.manifest;
        let solution = manifest.properties.contains_key(TENANT).then_some(vec!["seeds", "properties", TENANT]);
        let services = manifest.services.iter().filter(|service| service.properties.contains_key(TENANT));
        let services = services.map(|service| vec!["services", service.name.as_str(), "properties", TENANT]);
        for path in solution.into_iter().chain(services) {
            let message = format!("the property `{TENANT}` is set by pgfleet: to the tenant's name, or to nothing");
            self.error_hinted(&path, message, Some("give the property another name".to_owned()));
        }
    }

    fn connections(&mut self) {
        let manifest = self.manifest;
        let mut variables: BTreeMap<String, &str> = BTreeMap::new();
        for name in manifest.connections.keys() {
            if name.trim() != name || name.is_empty() || name.contains(',') || name.chars().any(char::is_control) {
                let message = format!("connection `{}` cannot be in a list of names", name.escape_debug());
                self.error_hinted(
                    &["connections", name],
                    message,
                    Some("write it without commas and blanks around".into()),
                );
            }
            if let Some(first) = variables.insert(super::env_name(name), name) {
                let message = format!("connections `{first}` and `{name}` would have one name in the environment");
                self.error(&["connections", name], message);
            }
        }
        let mut named: BTreeMap<&str, &str> = BTreeMap::new();
        for module in manifest.modules.values() {
            let connection = manifest.connection_of(&module.name);
            let path = ["modules", module.name.as_str(), "connection"];
            if let Some(first) = named.insert(connection, &module.name) {
                self.error(
                    &path,
                    format!("modules `{first}` and `{}` have one connection name `{connection}`", module.name),
                );
            }
            let Some(owner) = manifest.connections.get(connection).and_then(|service| manifest.service(service)) else {
                continue;
            };
            if !owner.modules.contains(&module.name) {
                let message = format!(
                    "connection `{connection}` is mapped to service `{}`, which does not have its module `{}`",
                    owner.name, module.name
                );
                let hint = format!("add it to `modules` of [services.{}]", owner.name);
                self.error_hinted(&["connections", connection], message, Some(hint));
            }
        }
        for service in &manifest.services {
            let path = ["services", service.name.as_str(), "uses"];
            for (at, uses) in service.uses.iter().enumerate() {
                let name = manifest.connection_of(&uses.module);
                let twice = service.uses[..at].iter().any(|other| manifest.connection_of(&other.module) == name);
                if twice && !manifest.connections.contains_key(name) {
                    let message = format!("service `{}` uses `{}` of several services", service.name, uses.module);
                    let hint = format!("say in [connections] where {name} leads");
                    self.error_hinted(&path, message, Some(hint));
                }
            }
        }
        for (name, service) in &manifest.connections {
            if name != service && manifest.service(name).is_some() {
                let message = format!("connection `{name}` has the name of a service, whose main connection it is");
                self.error(&["connections", name], message);
            }
            if manifest.service(service).is_none() {
                let hint = did_you_mean(service, manifest.services.iter().map(|service| service.name.as_str()));
                let message = format!("connection `{name}` is mapped to service `{service}`, which is not declared");
                self.error_hinted(&["connections", name], message, hint);
            }
        }
    }

    /// Nobody means these outside of a developer's machine.
    fn production(&mut self) {
        let manifest = self.manifest;
        let env = &manifest.env;
        for server in manifest.servers.values() {
            let path = ["servers", &server.name, "url"];
            let variable = format!("PGFLEET_SERVERS__{}__URL", super::env_name(&server.name));
            match &server.url {
                ServerUrl::Local => {
                    let message = format!("server `{}` is \"local\" in environment `{env}`", server.name);
                    let hint = format!("set `url` in the environment's own file, or {variable}");
                    self.error_hinted(&path, message, Some(hint));
                }
                ServerUrl::Remote(url) if url_password(url.expose_secret()).is_some_and(is_well_known) => {
                    let message =
                        format!("the password in the URL of server `{}` is a well-known default", server.name);
                    self.error_hinted(&path, message, Some(format!("set {variable}")));
                }
                ServerUrl::Remote(_) => {}
            }
            let direct = server.direct.as_ref().and_then(|url| url_password(url.expose_secret()));
            if direct.is_some_and(is_well_known) {
                let path = ["servers", &server.name, "direct"];
                let message = format!("the password in `direct` of server `{}` is a well-known default", server.name);
                let variable = format!("PGFLEET_SERVERS__{}__DIRECT", super::env_name(&server.name));
                self.error_hinted(&path, message, Some(format!("set {variable}")));
            }
        }
        self.broker_password();
        let solution = manifest.properties.iter().map(|(name, value)| (vec!["seeds", "properties", name], value));
        let services = manifest.services.iter().flat_map(|service| {
            let own = service.properties.iter();
            own.map(|(name, value)| (vec!["services", service.name.as_str(), "properties", name], value))
        });
        for (path, value) in solution.chain(services) {
            let name = path[path.len() - 1];
            if names_a_secret(name) && is_well_known(value.expose_secret()) {
                let message = format!("`{name}` is a well-known default, refused in environment `{env}`");
                let names: Vec<_> = path.iter().map(|segment| super::env_name(segment)).collect();
                self.error_hinted(&path, message, Some(format!("set PGFLEET_{}", names.join("__"))));
            }
        }
    }
}

/// Says whether a text looks like a URL or like key-value pairs; connecting reads it exactly.
fn is_connection_string(text: &str) -> bool {
    let url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    let lower = text.to_ascii_lowercase();
    url || (!lower.contains("://") && ["host", "server", "hostaddr"].iter().any(|key| has_pair(&lower, key)))
}

fn has_pair(pairs: &str, key: &str) -> bool {
    pairs.split([';', ' ']).filter_map(|pair| pair.split_once('=')).any(|(name, _)| name.trim() == key)
}

fn is_qualified(table: &str) -> bool {
    table.split_once('.').is_some_and(|(schema, name)| {
        identifier_mistake(schema).is_none() && identifier_mistake(name).is_none() && !name.contains('.')
    })
}

/// Returns notes about what was set in vain: keys of later versions, and settings of a local server on a remote one.
pub(super) fn without_effect(layers: &Layers, manifest: &Manifest) -> Vec<Diagnostic> {
    let mut notes = layers.unused();
    for service in &manifest.services {
        let path = ["services", service.name.as_str(), "modules"];
        for module in service.modules.iter().filter(|module| !manifest.modules.contains_key(*module)) {
            let message = format!(
                "module `{module}` of service `{}` has no migrations: [modules.{module}] is not declared",
                service.name
            );
            notes.push(layers.about(&path, message));
        }
    }
    for service in manifest.services.iter().filter(|service| service.run.is_none()) {
        for key in ["health", "health_timeout"] {
            let path = ["services", service.name.as_str(), key];
            if layers.get(&path).is_some_and(|entry| !entry.setter.is_default()) {
                let message = format!("`{}` has no effect without `run`", super::name::dotted(&path));
                notes.push(layers.about(&path, message));
            }
        }
    }
    for server in manifest.servers.values() {
        let (keys, which): (&[&str], _) = match server.url {
            ServerUrl::Remote(_) => (&["data_dir", "bin_dir", "max_connections"], "a server that is not local"),
            ServerUrl::Local => (&["direct"], "a local server"),
        };
        for key in keys {
            let path = ["servers", &server.name, key];
            if layers.get(&path).is_some() {
                let message = format!("`{}` has no effect on {which}", super::name::dotted(&path));
                notes.push(layers.about(&path, message));
            }
        }
    }
    notes.extend(events::without_effect(layers, manifest));
    notes.extend(tenants::without_effect(layers, manifest));
    notes
}
