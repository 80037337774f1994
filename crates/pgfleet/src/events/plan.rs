//! What a service says about its streams and queues before it starts.

use pgfleet_events::registry::Routing;
use pgfleet_events_postgres::{KeeperOptions, Options};

use crate::builder::Builder;
use crate::environment::{text, variable};
use crate::error::Error;

/// What a service says about its streams and queues before it starts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) routing: Option<Routing>,
    pub(super) store: Options,
    /// How its keeper behaves; none for no keeper.
    pub(super) keeper: Option<KeeperOptions>,
    /// The schema of the module's tables; none without the module.
    pub(crate) schema: Option<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { routing: None, store: Options::default(), keeper: Some(KeeperOptions::default()), schema: None }
    }
}

impl Builder {
    /// Sets which streams and queues are on PostgreSQL and which in memory; without it, what `PGFLEET_<SERVICE>_STREAMS`
    /// says, and else all of them are on PostgreSQL.
    ///
    /// The stores are [`POSTGRES`](crate::events::POSTGRES) and [`MEMORY`](crate::events::MEMORY). Where all is in memory,
    /// as for a test, the service does not need the module.
    ///
    /// ```
    /// use pgfleet::events::{MEMORY, POSTGRES, Routing};
    /// use pgfleet::{Module, Service};
    ///
    /// let builder = Service::builder("orders")
    ///     .module(Module::event_streaming())
    ///     .streams(Routing::new(POSTGRES).route("presence-*", MEMORY));
    /// ```
    #[must_use]
    pub fn streams(mut self, routing: Routing) -> Self {
        self.events.routing = Some(routing);
        self
    }

    /// Changes how streams and queues are read and written: how many events at once, how often who waits looks by himself.
    /// The schema is the module's.
    #[must_use]
    pub fn event_store(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.events.store);
        self
    }

    /// Changes how the keeper behaves, which applies retention while the service runs: its interval, and what it does in
    /// one step.
    #[must_use]
    pub fn keeper(mut self, change: impl FnOnce(&mut KeeperOptions)) -> Self {
        change(self.events.keeper.get_or_insert_default());
        self
    }

    /// Starts no keeper: another service has one on the same database, or
    /// [`Store::keep`](crate::events::Store::keep) is called by hand. Without any, all works, and tables grow.
    #[must_use]
    pub fn without_keeper(mut self) -> Self {
        self.events.keeper = None;
        self
    }
}

impl Plan {
    /// The routing that was said, or that the environment says.
    pub(super) fn routing(&mut self, service: &str) -> Result<Option<Routing>, Error> {
        if let Some(said) = self.routing.take() {
            return Ok(Some(said));
        }
        let from = variable(service, "STREAMS");
        let Some(said) = text(&from) else { return Ok(None) };
        serde_json::from_str(&said).map(Some).map_err(|error| {
            Error::configuration(format!("cannot use {from}"))
                .cause(error.to_string())
                .hinted(r#"it looks like {"default":"postgres","routes":{"presence-*":"memory"}}"#)
        })
    }
}
