//! A database for a service, and what it is told while it starts.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgfleet::{Builder, Event, Observer, Service, embed::Folder};
use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_postgres::{Address, Connection, Purpose, connect};

pub(crate) const TWO: Folder = Folder::new(
    "migrations",
    "pgfleet",
    &[
        ("1_trips.sql", "CREATE TABLE trips (id bigint PRIMARY KEY);"),
        ("2_seats.sql", "CREATE TABLE seats (trip bigint REFERENCES trips);"),
    ],
);

pub(crate) const THREE: Folder = Folder::new(
    "migrations",
    "pgfleet",
    &[
        ("1_trips.sql", "CREATE TABLE trips (id bigint PRIMARY KEY);"),
        ("2_seats.sql", "CREATE TABLE seats (trip bigint REFERENCES trips);"),
        ("3_fares.sql", "CREATE TABLE fares (trip bigint REFERENCES trips);"),
    ],
);

/// What was told.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

impl Observer for Events {
    fn event(&self, _target: &str, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Events {
    pub(crate) fn any(&self, holds: impl Fn(&Event) -> bool) -> bool {
        self.0.lock().unwrap().iter().any(holds)
    }

    pub(crate) fn count(&self, holds: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| holds(event)).count()
    }
}

pub(crate) async fn database() -> TestDatabase {
    TestServer::shared().await.database().await
}

/// A service that migrates itself and does not wait long for what does not come.
pub(crate) fn service(database: &TestDatabase, folder: Folder) -> Builder {
    waiting(database, folder).migrator_url(database.url())
}

/// The same without a role that migrates.
pub(crate) fn waiting(database: &TestDatabase, folder: Folder) -> Builder {
    Service::builder("trip").migrations(folder).url(database.url()).options(|options| {
        options.wait_attempts = 1;
        options.max_tries = 1;
    })
}

pub(crate) async fn sql(database: &TestDatabase) -> Connection {
    connect(&Address::parse(&database.url()).unwrap(), &Purpose::new("test")).await.unwrap()
}

pub(crate) async fn column(database: &TestDatabase, query: &str) -> Vec<String> {
    let rows = sql(database).await.simple(query).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
