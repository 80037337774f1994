//! What a service hands out.

use pgfleet_events::registry::Events;
use pgfleet_events_postgres::{KeeperStats, Store};

use crate::error::Error;
use crate::service::Service;

impl Service {
    /// Returns the streams and queues of the service, wherever each of them is; the same each time, and cheap to clone.
    ///
    /// The service needs the module: `.module(Module::event_streaming())`, and `modules = ["event_streaming"]` in the
    /// manifest. What concerns streams of PostgreSQL and of memory at once is refused: see [`Events`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) without the module.
    pub fn events(&self) -> Result<&Events, Error> {
        self.0.events.events(&self.0.name)
    }

    /// Returns the store in the service's own database: for [`append_in`](Store::append_in) a transaction of the service,
    /// and for what is made of events there ([`Projection`](crate::events::Projection)).
    ///
    /// ```no_run
    /// use pgfleet::events::{Append, Expected, NewEvent};
    ///
    /// # async fn example(orders: pgfleet::Service) -> Result<(), Box<dyn std::error::Error>> {
    /// let store = orders.event_store()?;
    /// let tx = orders.begin().await?;
    /// tx.execute("INSERT INTO orders (id) VALUES ($1)", &[&1_i64]).await?;
    /// let placed = NewEvent::of("OrderPlaced", &serde_json::json!({ "amount": 30 }))?;
    /// let append = Append { stream: "order-1".into(), expected: Expected::NoStream, events: vec![placed] };
    /// store.append_in(&tx, vec![append]).await?;
    /// tx.commit().await?;
    /// // Whoever waits for events looks at once.
    /// store.wake();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) without the module.
    pub fn event_store(&self) -> Result<&Store, Error> {
        self.0.events.store(&self.0.name)
    }

    /// Returns what the service's keeper has done; none when it was not started. See
    /// [`Builder::keeper`](crate::Builder::keeper).
    pub fn keeper_stats(&self) -> Option<KeeperStats> {
        self.0.events.keeper_stats()
    }
}
