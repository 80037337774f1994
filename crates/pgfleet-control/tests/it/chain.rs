//! How tenants follow their services: from the host's history row to every tenant's database.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::chain::{
    ChainEvent, ChainListener, ChainOptions, Draft, Message, TableTransport, Transport, Until,
};
use pgfleet_control::tenants::Choices;
use pgfleet_migrate::options::Stop;
use pgfleet_postgres::Connection;

use crate::support::{Admin, Town};
use crate::tenants::{silent, string};

const UNSEEN: Choices = Choices { check: false, shared: false };

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl ChainListener for Log {
    fn happened(&self, event: &ChainEvent<'_>) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

/// A solution with a service that has data in tenants' databases, and one that has not.
struct Chained {
    town: Town,
    trip: String,
    log: Log,
}

impl Chained {
    async fn new() -> Self {
        Self::with(15, "").await
    }

    async fn with(major: u32, tenants: &str) -> Self {
        let town = Town::new(major, Admin::Superuser).await;
        town.manifest(&format!(
            "[services.{{}}_trip]\ntenants = \"own\"\n[services.{{}}_user]\n[tenants]\n{tenants}\n\
             [migrations]\nmin_retry_wait = \"10ms\"\nmax_retry_wait = \"20ms\"\n"
        ));
        town.provision().await;
        let trip = town.service("trip");
        Self { town, trip, log: Log::default() }
    }

    fn file(&self, name: &str, sql: &str) {
        let folder = self.town.folder.path().join("services").join(&self.trip);
        std::fs::write(folder.join(name), sql).unwrap();
    }

    /// Stores a tenant whose database is not there yet.
    async fn tenant(&self, name: &str) {
        let text = format!("dbname={}", self.town.service(name));
        let solution = self.town.open().await;
        solution.create_tenant(name, None, &[string("", text)], UNSEEN, &silent()).await.unwrap();
    }

    /// Handles messages until none is due.
    async fn run(&self) -> Vec<String> {
        self.run_of(&self.town.open().await).await;
        self.log.take()
    }

    async fn run_of(&self, solution: &Solution) {
        let options = ChainOptions::of(solution, Until::Idle);
        solution.run_chain(&options, &Stop::default(), &self.log, &silent()).await.unwrap();
    }

    /// Migrates the services' own databases, as `pgfleet migrate` does.
    async fn migrate(&self) {
        self.town.migrate().await;
    }

    async fn control(&self) -> Connection {
        self.town.superuser(&self.town.service("control")).await
    }

    async fn control_column(&self, sql: &str) -> Vec<String> {
        column(&self.control().await, sql).await
    }

    /// The versions in a tenant's database.
    async fn versions(&self, tenant: &str) -> Vec<String> {
        let sql = format!("select version from pgfleet.\"{}_migrations\" order by version::int", self.trip);
        self.tenant_column(tenant, &sql).await
    }

    async fn tenant_column(&self, tenant: &str, sql: &str) -> Vec<String> {
        column(&self.town.superuser(&self.town.service(tenant)).await, sql).await
    }

    async fn messages(&self) -> Vec<String> {
        let sql = "select kind || ' ' || target || ' ' || state || coalesce(': ' || note, '') from control.messages order by id";
        let lines = self.control_column(sql).await;
        lines.into_iter().map(|line| line.replace(&self.trip, "trip").replace(&self.town.anchor.name, "x")).collect()
    }
}

async fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let rows = connection.simple(sql).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
}

#[tokio::test]
async fn tenants_follow_when_their_host_was_migrated() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.tenant("globex").await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1"], "made, as the template was");
    chained.file("migrations/2_more.sql", "create table more (id int);");
    chained.migrate().await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2"]);
    assert_eq!(chained.versions("globex").await, ["1", "2"]);
    println!("{:#?}", chained.messages().await);
    // What is known of them says so, and nothing is left to do.
    let standings = "select state from control.targets where tenant <> '' and pending = 0";
    assert_eq!(chained.control_column(standings).await, ["current", "current"]);
    assert_eq!(chained.run().await, Vec::<String>::new());
}
