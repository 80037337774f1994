//! A store per test.

use std::sync::Arc;

use pgfleet_events::Event;
use pgfleet_events_postgres::{Options, Store, module};
use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::{Target, run};
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Connection, Purpose, connect};

/// A database with the tables of the store.
pub(crate) struct Place {
    pub(crate) database: TestDatabase,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::on(&TestServer::shared().await).await
    }

    pub(crate) async fn on(server: &TestServer) -> Self {
        Self::with(server, Options::default()).await
    }

    pub(crate) async fn with(server: &TestServer, options: Options) -> Self {
        let database = server.database().await;
        migrate(&database.url(), &options.schema).await;
        let store = open_with(&database.url(), options);
        Self { database, store }
    }

    pub(crate) async fn connect(&self) -> Connection {
        connect(&Address::parse(&self.database.url()).unwrap(), &Purpose::new("test")).await.unwrap()
    }

    /// Another store on the same tables, as another process has it.
    pub(crate) fn other(&self) -> Store {
        open(&self.database.url())
    }
}

/// Makes the tables.
pub(crate) async fn migrate(url: &str, schema: &str) {
    let target = Target::new("events", Address::parse(url).unwrap());
    let set = module::event_streaming(schema).unwrap();
    run::migrate(&target, &set.into(), &pgfleet_migrate::Options::default(), &Silent).await.unwrap();
}

pub(crate) fn pool(url: &str, max: usize) -> Pool {
    let budget = Budget::new("test", max);
    let options = PoolOptions { max, min: 0, ..PoolOptions::default() };
    Pool::new(&budget, Address::parse(url).unwrap(), Purpose::new("test"), options)
}

pub(crate) fn open(url: &str) -> Store {
    open_with(url, Options::default())
}

pub(crate) fn open_with(url: &str, options: Options) -> Store {
    Store::new(pool(url, 20), options)
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// What identifies an event and its place.
pub(crate) fn key(event: &Event) -> (pgfleet_events::Position, Arc<str>, u64) {
    (event.position.unwrap(), Arc::clone(&event.stream), event.version)
}

/// How many events are there.
pub(crate) async fn count(url: &str) -> u64 {
    let db = connect(&Address::parse(url).unwrap(), &Purpose::new("test")).await.unwrap();
    let rows = db.query("SELECT count(*) FROM event_streaming.events", &[]).await.unwrap();
    rows[0].get::<_, i64>(0).cast_unsigned()
}
