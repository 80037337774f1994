//! Several stores behind one face: which one a stream or a queue is in is configuration.
//!
//! An [`Events`] is a store itself, so whoever uses streams and queues by their names need not know. What concerns streams
//! of several stores at once has no answer, since each store has an order and positions of its own: such calls are refused,
//! rather than answered for one store only.

mod configs;
mod consumers;
mod queues;
mod routes;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::routes::Routes;
use crate::answer::Answer;
use crate::error::{Error, ErrorKind};
use crate::store::EventStore;
use crate::stream::Filter;

/// Which store each stream and queue is in.
///
/// A pattern is a name, or the beginning of names with a `*` behind it; the longest that fits counts, and a name before a
/// beginning. It can be read from a configuration file:
///
/// ```
/// # fn main() -> Result<(), serde_json::Error> {
/// use pgfleet_events::registry::Routing;
///
/// let text = r#"{"default":"postgres","routes":{"session-*":"memory"}}"#;
/// let routing: Routing = serde_json::from_str(text)?;
/// assert_eq!(routing, Routing::new("postgres").route("session-*", "memory"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// The name of the store of whatever fits no pattern.
    pub default: String,
    /// Names of stores by patterns.
    #[serde(default)]
    pub routes: BTreeMap<String, String>,
}

impl Routing {
    /// Everything in one store.
    pub fn new(default: impl Into<String>) -> Self {
        Self { default: default.into(), routes: BTreeMap::new() }
    }

    /// Adds a pattern.
    #[must_use]
    pub fn route(mut self, pattern: impl Into<String>, store: impl Into<String>) -> Self {
        self.routes.insert(pattern.into(), store.into());
        self
    }
}

/// Several stores as one. Cheap to clone; all clones are one.
///
/// * What names a stream or a queue is done in its store. Receipts of deliveries lead back to the store of their queue.
/// * [`append_several`](crate::StreamStore::append_several) is refused for streams in different stores.
/// * [`read_all`](crate::StreamStore::read_all) is refused where streams that the filter can want are in different stores;
///   so are [`head`](crate::StreamStore::head), [`position_at`](crate::StreamStore::position_at) and
///   [`wait`](crate::StreamStore::wait) where there are several at all. Subscriptions, groups and replays find the one store
///   of what they read by [`home`](crate::StreamStore::home).
/// * What is configured for a pattern of streams is configured in each store that has such streams. Lists are put together.
///
/// ```
/// use std::sync::Arc;
/// use pgfleet_events::registry::{Events, Routing};
/// use pgfleet_events::subscription::{Source, Start, StreamSubscription};
/// use pgfleet_events::{EventStore, Expected, Json, Memory, NewEvent, StreamStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pgfleet_events::Error> {
/// // The first would be one on PostgreSQL.
/// let stores: [(&str, Arc<dyn EventStore>); 2] =
///     [("postgres", Arc::new(Memory::new())), ("memory", Arc::new(Memory::new()))];
/// let events = Events::new(&Routing::new("postgres").route("session-*", "memory"), stores)?;
///
/// events.append("session-1", Expected::Any, vec![NewEvent::new("Begun", Json::parse("{}")?)]).await?;
/// assert_eq!(events.name_of("session-1"), "memory");
/// let mut session = StreamSubscription::new(Arc::new(events), Source::stream("session-1"), Start::Beginning);
/// assert_eq!(session.next().await?.events.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stores: Vec<(Arc<str>, Arc<dyn EventStore>)>,
    routes: Routes,
}

impl Events {
    /// Puts stores together, each under its name.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a store's name that is empty, there twice or has a `/` in it, a pattern
    /// that is empty or has a `*` before its end, and a route to a store that is not there.
    pub fn new<N: Into<Arc<str>>>(
        routing: &Routing,
        stores: impl IntoIterator<Item = (N, Arc<dyn EventStore>)>,
    ) -> Result<Self, Error> {
        let stores: Vec<(Arc<str>, Arc<dyn EventStore>)> =
            stores.into_iter().map(|(name, store)| (name.into(), store)).collect();
        for (index, (name, _)) in stores.iter().enumerate() {
            if name.is_empty() || name.contains('/') {
                return Err(Error::invalid(format!("{name:?} is no name of a store"))
                    .with_hint("a name is not empty and has no / in it"));
            }
            if stores[..index].iter().any(|(other, _)| other == name) {
                return Err(Error::invalid(format!("store {name} is there twice")));
            }
        }
        let routes = Routes::new(routing, |wanted| stores.iter().position(|(name, _)| **name == *wanted))?;
        Ok(Self(Arc::new(Inner { stores, routes })))
    }

    /// Returns a store by its name, for what concerns all of its streams.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is none.
    pub fn store(&self, name: &str) -> Result<Arc<dyn EventStore>, Error> {
        let found = self.0.stores.iter().find(|(known, _)| **known == *name);
        found.map(|(_, store)| Arc::clone(store)).ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            Error::new(ErrorKind::NotFound, format!("there is no store {name}"))
                .with_hint(format!("there are {}", known.join(", ")))
        })
    }

    /// Returns the names of the stores, in the order in which they were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.stores.iter().map(|(name, _)| &**name)
    }

    /// Returns the name of the store of a stream or a queue.
    pub fn name_of(&self, name: &str) -> &str {
        &self.0.stores[self.0.routes.of(name)].0
    }

    /// The store of a stream or a queue.
    fn of(&self, name: &str) -> &dyn EventStore {
        self.at(self.0.routes.of(name))
    }

    fn at(&self, index: usize) -> &dyn EventStore {
        &*self.0.stores[index].1
    }

    fn all(&self) -> impl Iterator<Item = &dyn EventStore> {
        self.0.stores.iter().map(|(_, store)| &**store)
    }

    /// The one store of all streams that a filter can want.
    fn one(&self, filter: &Filter) -> Result<usize, Error> {
        if let Some(stream) = &filter.stream {
            return Ok(self.0.routes.of(stream));
        }
        let prefix = filter.stream_prefix.as_deref().unwrap_or_default();
        let reachable = self.0.routes.reachable(prefix);
        if let [only] = *reachable {
            return Ok(only);
        }
        let names: Vec<&str> = reachable.iter().map(|index| &*self.0.stores[*index].0).collect();
        let which = if prefix.is_empty() { "streams".to_owned() } else { format!("streams {prefix}*") };
        let hint = "each store has an order of its own: name a stream, or take one store by its name (`Events::store`)";
        Err(Error::invalid(format!("{which} are in several stores: {}", names.join(", "))).with_hint(hint))
    }

    /// The one store that has whatever streams there are.
    fn only(&self) -> Result<&dyn EventStore, Error> {
        self.one(&Filter::default()).map(|index| self.at(index))
    }
}

fn refused<'a, T: Send + 'a>(error: Error) -> Answer<'a, T> {
    Box::pin(std::future::ready(Err(error)))
}
