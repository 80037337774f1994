//! A store of queues per test.

use std::time::{Duration, Instant};

use pgfleet_events::{Delivery, Json, NewItem, QueueStore as _, Receipt};
use pgfleet_events_postgres::{Options, Store, module};
use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::{Target, run};
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Purpose};

pub(super) const LONG: Duration = Duration::from_mins(1);

/// A database with the tables of the store.
pub(super) struct Place {
    pub(super) database: TestDatabase,
    pub(super) store: Store,
    pub(super) pool: Pool,
}

impl Place {
    pub(super) async fn new() -> Self {
        Self::on(&TestServer::shared().await).await
    }

    pub(super) async fn on(server: &TestServer) -> Self {
        let database = server.database().await;
        let (store, pool) = open(&database.url(), true).await;
        Self { database, store, pool }
    }

    /// Configures a queue.
    pub(super) async fn configure(&self, queue: &str, max_attempts: i32, park_keys: bool, max_length: i64) {
        let sql = "INSERT INTO event_streaming.stream_configurations (kind, name, max_attempts, visibility, dedup_window, \
                   park_keys, max_length, keep_dead, index_data, closed) \
                   VALUES ('queue', $1, $2, '30 s', '24 h', $3, $4, '30 d', false, false)";
        self.pool.get().await.unwrap().execute(sql, &[&queue, &max_attempts, &park_keys, &max_length]).await.unwrap();
    }
}

/// Opens a store on a database, whose tables it makes where asked to.
pub(super) async fn open(url: &str, migrate: bool) -> (Store, Pool) {
    let address = Address::parse(url).unwrap();
    if migrate {
        let target = Target::new("events", address.clone());
        let set = module::event_streaming("event_streaming").unwrap();
        run::migrate(&target, &set.into(), &pgfleet_migrate::Options::default(), &Silent).await.unwrap();
    }
    let budget = Budget::new("test", 40);
    let options = PoolOptions { max: 40, min: 0, ..PoolOptions::default() };
    let pool = Pool::new(&budget, address, Purpose::new("test"), options);
    (Store::new(pool.clone(), Options::default()), pool)
}

/// A message that is a number.
pub(super) fn item(number: usize) -> NewItem {
    NewItem::new("Numbered", Json::trusted(number.to_string()))
}

/// The numbers of messages.
pub(super) fn numbers(taken: &[Delivery]) -> Vec<usize> {
    taken.iter().map(number).collect()
}

pub(super) fn number(delivery: &Delivery) -> usize {
    delivery.data.as_str().parse().unwrap()
}

pub(super) fn receipts(taken: &[Delivery]) -> Vec<Receipt> {
    taken.iter().map(|delivery| delivery.receipt.clone()).collect()
}

/// Takes until something is there.
pub(super) async fn take(store: &Store, queue: &str, max: usize, visibility: Duration) -> Vec<Delivery> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let taken = store.dequeue(queue, "test", max, visibility).await.unwrap();
        if !taken.is_empty() {
            return taken;
        }
        assert!(Instant::now() < deadline, "nothing came in queue {queue}");
        store.wait(queue, Duration::from_millis(20)).await.unwrap();
        store.sweep().await.unwrap();
    }
}

/// Waits until a condition holds.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
