//! The stores of a service and their keeper; nothing is done with the database before somebody does something with them.

use std::sync::{Arc, Mutex, PoisonError};

use pgfleet_events::registry::{Events, Routing};
use pgfleet_events::{EventStore, Memory};
use pgfleet_events_postgres::{Keeper, KeeperOptions, KeeperStats, Store};
use pgfleet_route::Router;

use super::{MEMORY, POSTGRES, Plan};
use crate::Scope;
use crate::error::Error;

/// The stores of a service, made once, and their keeper.
#[derive(Debug)]
pub(crate) struct Hosted {
    events: Option<Events>,
    store: Option<Store>,
    keeper: Option<KeeperOptions>,
    /// The keeper while it runs. Dropping it ends it at once.
    running: Mutex<Option<Keeper>>,
    /// What it had done when it was ended.
    done: Mutex<Option<KeeperStats>>,
}

impl Hosted {
    /// Makes what the plan needs; connects to nothing.
    pub(crate) fn new(service: &str, router: &Router, mut plan: Plan) -> Result<Self, Error> {
        let routing = plan.routing(service)?;
        let store = plan.schema.take().map(|schema| {
            // The host's place is there without asking anybody.
            let main = Scope::host().run_sync(|| router.resolve(None));
            main.map(|main| Store::new(main.pool().clone(), pgfleet_events_postgres::Options { schema, ..plan.store }))
        });
        let store = store.transpose()?;
        let routing = match (routing, &store) {
            (Some(said), _) => Some(said),
            (None, Some(_)) => Some(Routing::new(POSTGRES)),
            (None, None) => None,
        };
        let events = routing.map(|routing| events(service, &routing, store.as_ref())).transpose()?;
        let keeper = plan.keeper;
        Ok(Self { events, store, keeper, running: Mutex::default(), done: Mutex::default() })
    }

    pub(super) fn events(&self, service: &str) -> Result<&Events, Error> {
        self.events.as_ref().ok_or_else(|| without_module(service))
    }

    pub(super) fn store(&self, service: &str) -> Result<&Store, Error> {
        self.store.as_ref().ok_or_else(|| without_module(service))
    }

    /// Starts the keeper, within a runtime; one that runs stays.
    pub(crate) fn begin(&self) {
        let (Some(store), Some(options)) = (&self.store, &self.keeper) else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get_or_insert_with(|| store.keep(options.clone()));
    }

    /// Ends the keeper after the step that it is at, so that another one leads at once.
    pub(crate) async fn end(&self) {
        let keeper = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let stats = keeper.stop().await;
            *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        }
    }

    pub(super) fn keeper_stats(&self) -> Option<KeeperStats> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Keeper::stats);
        running.or_else(|| *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Puts the stores together that the routing may name.
fn events(service: &str, routing: &Routing, store: Option<&Store>) -> Result<Events, Error> {
    let names_postgres = std::iter::once(&routing.default).chain(routing.routes.values()).any(|name| name == POSTGRES);
    if store.is_none() && names_postgres {
        return Err(without_module(service));
    }
    let memory: (&str, Arc<dyn EventStore>) = (MEMORY, Arc::new(Memory::new()));
    let postgres = store.map(|store| -> (&str, Arc<dyn EventStore>) { (POSTGRES, Arc::new(store.clone())) });
    Events::new(routing, postgres.into_iter().chain([memory])).map_err(|error| {
        let own = Error::configuration(format!("{service} cannot keep its streams so")).cause(error.to_string());
        own.hinted(format!("name the stores \"{POSTGRES}\" and \"{MEMORY}\": a pattern is a name, or ends with *"))
    })
}

fn without_module(service: &str) -> Error {
    Error::configuration(format!("{service} has no streams and queues on PostgreSQL")).hinted(
        "add .module(Module::event_streaming()) before .start(), and modules = [\"event_streaming\"] to the manifest",
    )
}
