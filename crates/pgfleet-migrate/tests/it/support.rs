//! A database and a folder per test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_migrate::revert::{self, Goal};
use pgfleet_migrate::{Error, Event, Observer, Options, Report, Seeds, Set, SetPath, Target, run};
use pgfleet_postgres::{Address, Connection, Purpose, connect};

/// A database, a folder of migrations and one of seeds.
pub(crate) struct Bench {
    pub(crate) database: TestDatabase,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) options: Options,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) events: Events,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(&TestServer::shared().await).await
    }

    /// On a server of another version than most tests use.
    pub(crate) async fn new_on(major: u32) -> Self {
        Self::on(&TestServer::shared_version(major).await).await
    }

    async fn on(server: &TestServer) -> Self {
        Self {
            database: server.database().await,
            folder: tempfile::tempdir().unwrap(),
            options: Options { max_tries: 1, ..Options::default() },
            properties: BTreeMap::new(),
            events: Events::default(),
        }
    }

    /// Writes a migration (or, below `seeds/`, a seed).
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn address(&self) -> Address {
        Address::parse(&self.database.url()).unwrap()
    }

    pub(crate) fn target(&self) -> Target {
        Target::new("trip", self.address())
    }

    pub(crate) fn set(&self) -> Result<Set, Error> {
        Set::read("trip", self.folder.path(), None, BTreeMap::from([("region".to_owned(), "eu".to_owned())]))
    }

    /// A path of the one set, without seeds.
    pub(crate) fn path(&self) -> SetPath {
        self.set().unwrap().into()
    }

    pub(crate) async fn migrate(&self) -> Result<Report, Error> {
        self.migrate_with(&self.options).await
    }

    pub(crate) async fn migrate_with(&self, options: &Options) -> Result<Report, Error> {
        let seeds = Seeds::read(&self.folder.path().join("seeds"), self.properties.clone())?;
        run::migrate(&self.target(), &self.set()?.with_seeds(seeds).into(), options, &self.events).await
    }

    pub(crate) async fn connect(&self) -> Connection {
        connect(&self.address(), &Purpose::new("test")).await.unwrap()
    }

    /// Reverts with the bench's options.
    pub(crate) async fn revert(&self, goal: Goal) -> Result<Report, Error> {
        revert::revert(&self.target(), &self.set()?.into(), &goal, &self.options, &self.events).await
    }

    /// Runs statements as the superuser.
    pub(crate) async fn run(&self, sql: &str) {
        self.connect().await.execute_all(sql).await.unwrap();
    }

    /// Runs a query and returns the first column of its rows.
    pub(crate) async fn column(&self, sql: &str) -> Vec<String> {
        let connection = self.connect().await;
        let rows = connection.simple(sql).await.unwrap();
        rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
    }

    pub(crate) async fn versions(&self) -> Vec<String> {
        self.column("SELECT version FROM pgfleet.trip_migrations ORDER BY version").await
    }
}

/// Makes a database as good as new for `counted` migrations; cheaper than a new one.
pub(crate) const START_OVER: &str = "drop table if exists counted; drop schema if exists pgfleet cascade";

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Keeps what was told.
#[derive(Default)]
pub(crate) struct Events(pub(crate) Mutex<Vec<Event>>);

impl Observer for Events {
    fn event(&self, _target: &str, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Events {
    /// Whether something that was told satisfies a condition.
    pub(crate) fn any(&self, holds: impl Fn(&Event) -> bool) -> bool {
        self.0.lock().unwrap().iter().any(holds)
    }
}

/// Returns everything that a reader of an error sees.
pub(crate) fn shown(error: &Error) -> String {
    let mut text = format!("{error}\n");
    for cause in error.causes() {
        text.push_str(&format!("cause: {cause}\n"));
    }
    if let Some(place) = error.place() {
        let name = place.path.file_name().unwrap().to_string_lossy().into_owned();
        text.push_str(&format!("at: {name}:{}:{}: {}\n", place.line, place.column, place.excerpt));
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}
