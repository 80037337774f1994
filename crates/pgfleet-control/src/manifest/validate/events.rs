//! What must fit for messages between services: a broker that can be reached, a bus database that is nobody else's.

use secrecy::ExposeSecret as _;

use super::super::builtin::Builtin;
use super::super::diagnostic::Diagnostic;
use super::super::layers::Layers;
use super::super::model::{Broker, Manifest, Service, StreamPlace, TenantDatabases, TenantUse};
use super::super::name::{did_you_mean, dotted};
use super::super::secret::{is_well_known, url_password};
use super::Check;

const BROKER: [&str; 2] = ["events", "broker"];
const URL: [&str; 2] = ["events", "url"];
const SERVER: [&str; 2] = ["events", "server"];
const DATABASE: [&str; 2] = ["events", "database"];

/// How the URLs of a broker begin.
fn schemes(broker: Broker) -> &'static [&'static str] {
    match broker {
        Broker::Rabbitmq => &["amqp://", "amqps://"],
        Broker::Nats => &["nats://", "tls://"],
        Broker::Postgres | Broker::InProcess => &[],
    }
}

/// A user's password that RabbitMQ has when nobody gave it another one, beside those of everywhere.
const GUEST: &str = "guest";

impl Check<'_> {
    pub(super) fn events(&mut self) {
        self.shared_streams();
        self.places_of_streams();
        let events = &self.manifest.events;
        match events.broker {
            Broker::Rabbitmq | Broker::Nats => self.broker_url(),
            Broker::InProcess => self.one_program(),
            Broker::Postgres => self.bus(),
        }
    }

    /// Patterns are what the library takes, and what is to be in the database has its tables there.
    fn places_of_streams(&mut self) {
        let manifest = self.manifest;
        let module = Builtin::EventStreaming;
        for service in &manifest.services {
            let name = service.name.as_str();
            for pattern in service.streams.keys() {
                if pattern.is_empty() || pattern.strip_suffix('*').unwrap_or(pattern).contains('*') {
                    let message = format!("`{}` is no pattern of streams", pattern.escape_debug());
                    let hint = "a pattern is a name, or the beginning of names with a * behind it".to_owned();
                    self.error_hinted(&["services", name, "streams", pattern], message, Some(hint));
                }
            }
            if !service.streams.is_empty() && !service.has(module) {
                let stays = service.streams.get("*") != Some(&StreamPlace::Memory)
                    || service.streams.values().any(|place| *place == StreamPlace::Postgres);
                if stays {
                    let message = format!(
                        "service `{name}` keeps streams on PostgreSQL, and does not have the module `{}`",
                        module.name()
                    );
                    let hint =
                        format!("add it to `modules` of [services.{name}], or say \"*\" = \"memory\" for all of them");
                    let first = service.streams.keys().next().map_or("", String::as_str);
                    self.error_hinted(&["services", name, "streams", first], message, Some(hint));
                }
            }
        }
    }

    /// Streams have a schema of their own, which only one service can own.
    fn shared_streams(&mut self) {
        let manifest = self.manifest;
        if manifest.tenants.databases != TenantDatabases::One {
            return;
        }
        let module = Builtin::EventStreaming;
        let services = manifest.services.iter();
        let mut having = services.filter(|service| service.tenants == TenantUse::Own && service.has(module));
        if let (Some(first), Some(second)) = (having.next(), having.next()) {
            let message = format!(
                "services `{}` and `{}` both have the module `{}`, and a tenant has one database for both",
                first.name,
                second.name,
                module.name()
            );
            let hint = "say databases = \"per-service\" in [tenants], or have one of them keep the streams".to_owned();
            self.error_hinted(&["services", second.name.as_str(), "modules"], message, Some(hint));
        }
    }

    fn broker_url(&mut self) {
        let events = &self.manifest.events;
        let (word, schemes) = (events.broker.as_str(), schemes(events.broker));
        let hint = format!("write url = \"{}user@host\" in [events], or set PGFLEET_EVENTS__URL", schemes[0]);
        match &events.url {
            None => self.error_hinted(&BROKER, format!("`broker` is \"{word}\", and there is no `url`"), Some(hint)),
            Some(url) if !schemes.iter().any(|scheme| url.expose_secret().starts_with(scheme)) => {
                let known = schemes.join(" or ");
                self.error_hinted(&URL, format!("`url` is none of \"{word}\": it begins with {known}"), Some(hint));
            }
            Some(_) => {}
        }
    }

    /// What one program publishes to itself reaches no other.
    fn one_program(&mut self) {
        let services = self.manifest.services.iter().filter(|service| service.has_messages());
        let names: Vec<_> = services.map(|service| format!("`{}`", service.name)).collect();
        if names.len() > 1 {
            let message =
                format!("`broker` is \"in-process\", and {} services have messages: {}", names.len(), names.join(", "));
            let hint = "\"postgres\" needs nothing more than a server of the solution".to_owned();
            self.error_hinted(&BROKER, message, Some(hint));
        }
    }

    fn bus(&mut self) {
        let manifest = self.manifest;
        let events = &manifest.events;
        if !manifest.services.iter().any(Service::has_messages) && !self.is_set(&DATABASE) {
            return;
        }
        if !manifest.servers.contains_key(&events.server) && !events.server.is_empty() {
            let hint = did_you_mean(&events.server, manifest.servers.keys().map(String::as_str))
                .unwrap_or_else(|| format!("declare [servers.{}]", events.server));
            // One that [control] names is told there.
            if self.is_set(&SERVER) {
                self.error_hinted(&SERVER, format!("there is no server `{}`", events.server), Some(hint));
            }
        }
        if !self.database_name(&DATABASE, &events.database) {
            return;
        }
        let another = Some("name another one: `database = \"…\"` in [events]".to_owned());
        let control = &manifest.control;
        let taken = if (&control.server, &control.database) == (&events.server, &events.database) {
            Some("the control database".to_owned())
        } else {
            let mut services = manifest.services.iter();
            let owner =
                services.find(|service| (&service.server, &service.database) == (&events.server, &events.database));
            owner.map(|service| format!("the database of service `{}`", service.name))
        };
        if let Some(owner) = taken {
            let message = format!("the bus database `{}` is {owner}, too", events.database);
            self.error_hinted(&DATABASE, message, another.clone());
        }
        if manifest.service(&events.database).is_some() || manifest.modules.contains_key(&events.database) {
            let message = format!("the bus database has the name of `{}`, and its roles would, too", events.database);
            self.error_hinted(&DATABASE, message, another);
        }
    }

    /// Nobody means these outside of a developer's machine.
    pub(super) fn broker_password(&mut self) {
        let Some(url) = &self.manifest.events.url else { return };
        let known =
            url_password(url.expose_secret()).is_some_and(|password| is_well_known(password) || password == GUEST);
        if known {
            let message = "the password in the URL of the broker is a well-known default";
            self.error_hinted(&URL, message, Some("set PGFLEET_EVENTS__URL".to_owned()));
        }
    }
}

/// Returns notes about what was set in vain.
pub(super) fn without_effect(layers: &Layers, manifest: &Manifest) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    let set = |path: &[&str]| layers.get(path).is_some_and(|entry| !entry.setter.is_default());
    let broker = manifest.events.broker;
    let bus_only = [&SERVER, &DATABASE];
    let vain: &[&[&str; 2]] = if broker == Broker::Postgres { &[&URL] } else { &bus_only };
    for path in vain.iter().filter(|path| set(&path[..])) {
        let message = format!("`{}` has no effect with `broker = \"{}\"`", dotted(&path[..]), broker.as_str());
        notes.push(layers.about(&path[..], message));
    }
    if broker == Broker::InProcess && set(&URL) {
        notes.push(layers.about(&URL, format!("`{}` has no effect with `broker = \"in-process\"`", dotted(&URL))));
    }
    for module in manifest.modules.values() {
        let name = module.name.as_str();
        if module.builtin.is_some() {
            for key in ["seeds", "layout"].map(|key| ["modules", name, key]).iter().filter(|path| set(&path[..])) {
                let message = format!(
                    "`{}` has no effect without `migrations`: module `{name}` is pgfleet's own",
                    dotted(&key[..])
                );
                notes.push(layers.about(&key[..], message));
            }
        } else if Builtin::of(name).is_some() {
            let message = format!(
                "the files of [modules.{name}] take the place of pgfleet's own module `{name}`: commands and libraries \
                 expect its tables"
            );
            notes.push(layers.about(&["modules", name, "migrations"], message));
        }
    }
    notes
}
