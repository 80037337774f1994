//! The bus database: the one that the manifest does not declare as a service, and that is handled as one.
//!
//! It is provisioned, migrated, shown and proven to be closed like the database of any service. Services with an
//! outbox or an inbox are let in to the schema of its streams, as if they had declared the use of that module.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::builtin::Builtin;
use super::model::{Broker, Manifest, Module, Pool, Service, TenantUse, Uses};

impl Manifest {
    /// Returns the bus; none when another broker carries the messages, or nobody has any.
    pub fn bus(&self) -> Option<&Service> {
        self.services.iter().find(|service| service.bus)
    }

    /// Returns the schema of the bus's tables: that of streams and queues, wherever they are.
    pub fn bus_schema(&self) -> &str {
        let module = Builtin::EventStreaming.name();
        let named = self.modules.get(module).and_then(|module| module.schema.as_deref());
        named.unwrap_or(pgfleet_events_postgres::module::EVENT_STREAMING)
    }

    /// Returns the services that the manifest declares: all but the bus.
    pub fn declared_services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| !service.bus)
    }
}

impl Service {
    /// Returns whether it sends or receives messages.
    pub fn has_messages(&self) -> bool {
        [Builtin::Outbox, Builtin::Inbox].iter().any(|module| self.has(*module))
    }

    /// Returns whether it has one of the modules that pgfleet brings itself, or one that takes its place.
    pub fn has(&self, module: Builtin) -> bool {
        self.modules.iter().any(|name| name == module.name())
    }
}

/// Adds the bus when it carries messages.
pub(super) fn add(manifest: &mut Manifest) {
    if manifest.events.broker != Broker::Postgres || !manifest.services.iter().any(Service::has_messages) {
        return;
    }
    let module = Builtin::EventStreaming;
    let name = manifest.events.database.clone();
    for service in manifest.services.iter_mut().filter(|service| service.has_messages()) {
        service.uses.push(Uses { service: name.clone(), module: module.name().to_owned() });
    }
    manifest.modules.entry(module.name().to_owned()).or_insert_with(|| Module::builtin(module));
    let bus = Service {
        server: manifest.events.server.clone(),
        database: name.clone(),
        name,
        schema: "public".to_owned(),
        migrations: PathBuf::new(),
        seeds: PathBuf::new(),
        layout: None,
        history: None,
        modules: vec![module.name().to_owned()],
        uses: Vec::new(),
        extensions: Vec::new(),
        tenants: TenantUse::None,
        // Those who use it come with their own roles; its own one is for pgfleet's own messages.
        pool: Pool {
            max: 10,
            min: 0,
            idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(20),
            command_timeout: Duration::from_secs(30),
        },
        streams: BTreeMap::new(),
        program: None,
        run: None,
        health: None,
        health_timeout: Duration::from_mins(1),
        properties: BTreeMap::new(),
        bus: true,
    };
    manifest.services.push(bus);
}
