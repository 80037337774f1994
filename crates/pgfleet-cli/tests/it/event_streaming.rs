//! The example `event-streaming`: `pgfleet up` runs its two services, and what they do is right.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::program::example;
use crate::support::{Folder, Ran, until};

pub(crate) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/event-streaming")
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The example in a folder of its own, stopped at the end, also when the test fails.
struct Town {
    folder: Folder,
    port: u16,
}

impl Town {
    fn new() -> Self {
        let (mut folder, port) = (Folder::new(), free_port());
        for file in [
            "pgfleet.toml",
            "services/orders/migrations/1_totals.up.sql",
            "services/orders/migrations/1_totals.down.sql",
            "services/mails/migrations/1_sent.up.sql",
            "services/mails/migrations/1_sent.down.sql",
        ] {
            folder.file(file, std::fs::read(source().join(file)).unwrap());
        }
        let run = |service: &str| format!("PORT={port} exec '{}' {service}", example("streaming").display());
        folder.set("PGFLEET_SERVICES__ORDERS__RUN", run("orders"));
        folder.set("PGFLEET_SERVICES__ORDERS__HEALTH", format!("http://127.0.0.1:{port}/health"));
        folder.set("PGFLEET_SERVICES__MAILS__RUN", run("mails"));
        Self { folder, port }
    }

    fn pgfleet(&self, line: &str) -> Ran {
        self.folder.pgfleet(line)
    }

    /// Asks the orders service; returns the status and what it says, `null` when that is no JSON.
    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(text).unwrap_or_default())
    }

    fn place(&self, order: &str, customer: &str, email: &str, amount: i64) -> u16 {
        let order = json!({ "order": order, "customer": customer, "email": email, "amount": amount });
        self.ask("POST", "/orders", Some(order)).0
    }

    fn queue(&self) -> Value {
        let list = self.pgfleet("queue list --service mails --json").exits(0).json();
        list.as_array().unwrap().iter().find(|queue| queue["queue"] == "mails").cloned().unwrap_or_default()
    }

    fn psql(&self, service: &str, sql: &str) -> String {
        self.folder.run(&["psql", service, "--", "-Atc", sql]).exits(0).out.trim_end().to_owned()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _stopped = self.folder.command(&["down"]).output();
    }
}

#[tokio::test]
async fn the_example_does_what_its_page_says() {
    let town = Town::new();
    town.pgfleet("up --detach").exits(0).prints("running");

    // Streams: appended with the message, decided on by version, in memory by the manifest.
    assert_eq!(town.place("1", "ann", "ann@example.org", 30), 201);
    assert_eq!(town.place("2", "ann", "nowhere", 12), 201);
    assert_eq!(town.place("3", "bob", "bob@example.org", 5), 201);
    assert_eq!(town.place("1", "eve", "eve@example.org", 1), 409, "there is one of that id");
    assert_eq!(town.ask("POST", "/orders/1/pay", None), (200, json!({ "order": "1", "version": 2 })));
    assert_eq!(town.ask("POST", "/orders/1/pay", None).0, 409);
    assert_eq!(town.ask("POST", "/orders/9/pay", None).0, 404);
    for seen in 1..=2 {
        let shown = json!({ "order": "1", "events": ["OrderPlaced", "OrderPaid"], "seen": seen });
        assert_eq!(town.ask("GET", "/orders/1", None), (200, shown));
    }
    let lines = town.pgfleet("stream read --all --service orders --json").exits(0).out;
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        events.iter().map(|event| (event["stream"].as_str().unwrap(), event["type"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [("order-1", "OrderPlaced"), ("order-2", "OrderPlaced"), ("order-3", "OrderPlaced"), ("order-1", "OrderPaid")]
    );

    // The projection, and once more when it was emptied.
    let totals = json!({ "ann": { "orders": 2, "amount": 42 }, "bob": { "orders": 1, "amount": 5 } });
    let counted = async || town.ask("GET", "/totals", None) == (200, totals.clone());
    until("all orders are counted", counted).await;
    assert_eq!(town.ask("POST", "/totals/rebuild", None).0, 200);
    until("they are counted anew", counted).await;

    // The queue: two mails are sent, once each, and one is given up after two tries.
    until("the mails are sent", async || town.psql("mails", "select count(*) from sent") == "2").await;
    until("one is given up", async || town.queue()["dead"] == 1).await;
    let queue = town.queue();
    assert_eq!((&queue["ready"], &queue["delayed"], &queue["in_flight"]), (&0.into(), &0.into(), &0.into()), "{queue}");
    assert_eq!(
        town.psql("mails", "select string_agg(address, ' ' order by address) from sent"),
        "ann@example.org bob@example.org"
    );
    let dead = town.pgfleet("queue dead-letters mails --service mails --json").exits(0).json();
    assert_eq!((&dead[0]["attempts"], &dead[0]["reason"]), (&2.into(), &"nowhere is no address".into()), "{dead}");

    // The keeper of the service leaves the newest two of what was refused.
    for _ in 0..3 {
        assert_eq!(town.place("4", "eve", "eve@example.org", 0), 422);
    }
    let refused = "stream show refused-eve --service orders --json";
    until("one is removed", async || town.pgfleet(refused).exits(0).json()["stream"]["length"] == 2).await;
    let policies = town.pgfleet("stream retention --service orders --json").exits(0).json();
    assert_eq!((&policies[0]["name"], &policies[0]["max_count"]), (&"refusals".into(), &2.into()), "{policies}");

    // Replay: from an event on, into a queue, at a rate.
    let replay = "stream replay --service orders --all --type OrderPlaced --to-queue again --rate 1000 --json";
    assert_eq!(town.pgfleet(replay).exits(0).json()["events"], 3);
    let behind = events[0]["position"].as_str().unwrap();
    let replay =
        format!("stream replay --service orders --all --from {behind} --type OrderPlaced --to-queue tail --json");
    assert_eq!(town.pgfleet(&replay).exits(0).json()["events"], 2);

    migrates_by_hand(&town);
    town.pgfleet("down").exits(0).says("stopped 2 services");
}

#[tokio::test]
async fn the_programs_find_streams_and_queues_where_the_manifest_puts_them() {
    let town = Town::new();
    let manifest = std::fs::read_to_string(source().join("pgfleet.toml")).unwrap();
    town.folder.file("pgfleet.toml", format!("{manifest}\n[modules.event_streaming]\nschema = \"es\"\n"));
    town.pgfleet("up --detach").exits(0).prints("running");
    assert_eq!(town.place("1", "ann", "ann@example.org", 30), 201);
    until("the mail is sent", async || town.psql("mails", "select count(*) from sent") == "1").await;
    let there = "select count(*), to_regnamespace('event_streaming') is null from es.events where stream = 'order-1'";
    assert_eq!(town.psql("orders", there), "1|t");
}

/// `mails` does not migrate when it starts; its program does it when it is told to.
fn migrates_by_hand(town: &Town) {
    town.pgfleet("revert --service mails --steps 1").exits(0);
    town.pgfleet("status --check --service mails").exits(5);
    let told = town.pgfleet("connection env --service mails --reveal").exits(0).out;
    let variables = told.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name, value.trim_matches('\'')));
    let mut program = Command::new(example("streaming"));
    let start = Ran::of({
        program.arg("mails").envs(variables.clone());
        program
    });
    let told = start.err;
    assert!(start.code == Some(1) && told.contains("mails cannot start: migrations are pending"), "{told}");
    let mut program = Command::new(example("streaming"));
    program.args(["mails", "migrate"]).envs(variables);
    Ran::of(program).exits(0).says("mails is migrated");
    town.pgfleet("status --check --service mails").exits(0);
    assert_eq!(town.psql("mails", "select count(*) from sent"), "0");
}
