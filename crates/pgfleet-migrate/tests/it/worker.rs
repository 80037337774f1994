//! The worker over a pair of streams, asked by hand: what its lines are is a contract between two
//! programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_migrate::code::{Migration, SchemaMigration, Seeder, StepResult};
use pgfleet_migrate::db::Db;
use pgfleet_migrate::options::Stop;
use pgfleet_migrate::schema::Schema;
use pgfleet_migrate::worker::{Description, Sets, serve};
use pgfleet_migrate::{Error, ErrorKind, Seeds, Set, SetPath};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::support::shown;

struct Recorded;

impl SchemaMigration for Recorded {
    fn id(&self) -> &'static str {
        "2_recorded"
    }

    fn up(&self, schema: &mut Schema) {
        schema.sql("CREATE TABLE recorded (id int)");
    }
}

/// Goes on when as many targets have come here.
struct Meet(Arc<Barrier>);

impl Migration for Meet {
    fn id(&self) -> &'static str {
        "3_meet"
    }

    fn requires(&self) -> Vec<String> {
        vec!["identity@1".to_owned()]
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        self.0.wait().await;
        db.execute("INSERT INTO recorded VALUES (1)", &[]).await?;
        Ok(())
    }
}

struct Fill;

impl Seeder for Fill {
    fn name(&self) -> &'static str {
        "1_fill"
    }

    fn properties(&self) -> &[&str] {
        &["id"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        let id: i32 = db.property("id")?.parse()?;
        db.execute("INSERT INTO recorded VALUES ($1)", &[&id]).await?;
        Ok(())
    }
}

/// A service of a module and a few steps.
#[derive(Clone)]
struct Trip {
    first: &'static str,
    barrier: Arc<Barrier>,
}

impl Trip {
    fn new(first: &'static str, meet: usize) -> Self {
        Self { first, barrier: Arc::new(Barrier::new(meet)) }
    }

    fn files(&self, properties: BTreeMap<String, String>) -> Set {
        let files = vec![("1_first.sql".into(), self.first.into())];
        let set = Set::from_files("trip", Path::new("migrations"), files, None).unwrap();
        set.with_seeds(Seeds::from_files(Path::new("seeds"), [("0_none.sql", "select 1;")], properties))
    }
}

impl Sets for Trip {
    fn name(&self) -> &'static str {
        "trip"
    }

    fn path(&self, _placeholders: &BTreeMap<String, String>) -> Result<SetPath, Error> {
        let files = vec![("1_users.sql".into(), "create table users (id int);".into())];
        let identity = Set::from_files("identity", Path::new("identity"), files, None)?;
        let mut own = self.files(BTreeMap::new());
        own.add(Recorded)?;
        own.add(Meet(self.barrier.clone()))?;
        own.add_seeder(Fill)?;
        SetPath::new(vec![identity], own)
    }
}

/// A worker and its two streams.
struct Worker {
    input: Option<DuplexStream>,
    output: Lines<BufReader<DuplexStream>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Worker {
    fn of(sets: Trip) -> Self {
        let (input, requests) = tokio::io::duplex(64 * 1024);
        let (answers, output) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(serve(sets, requests, answers, Stop::default()));
        Self { input: Some(input), output: BufReader::new(output).lines(), serving }
    }

    async fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        input.write_all(b"\n").await.unwrap();
    }

    async fn ask(&mut self, id: u64, ask: Value) {
        self.say(&json!({ "pgfleet": 2, "id": id, "ask": ask }).to_string()).await;
    }

    /// Reads the next answer.
    async fn answer(&mut self) -> (u64, Value) {
        loop {
            let line = self.output.next_line().await.unwrap().expect("the worker ended");
            if line.is_empty() {
                continue;
            }
            let mut answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["pgfleet"], 2, "{line}");
            return (answer["id"].as_u64().unwrap(), answer["answer"].take());
        }
    }

    /// Reads answers until one that is no event.
    async fn last_answer(&mut self) -> (u64, Value) {
        loop {
            let (id, answer) = self.answer().await;
            if answer.get("event").is_none() {
                return (id, answer);
            }
        }
    }

    async fn end(mut self) {
        drop(self.input.take());
        self.serving.await.unwrap().unwrap();
    }
}

/// A target of that database, with the default options.
fn task(database: &TestDatabase) -> Value {
    let time = |secs: u64| json!({ "secs": secs, "nanos": 0 });
    json!({
        "target": { "name": "trip/acme", "url": database.url(), "admin": null, "schema": null, "tenant": null,
                    "shared": false },
        "terms": {
            "lock_timeout": time(2), "lock_tries": 10, "retry_on": "Transient", "max_tries": 1,
            "min_retry_wait": time(5), "max_retry_wait": time(15), "wait_attempts": 1, "wait_delay": time(5),
            "lock_wait": null, "durability": "Run", "concurrently": "AsWritten", "on_changed": "Error",
            "on_missing": "Error", "on_ahead": "Run", "on_out_of_order": "Error", "to": null, "set": null,
            "enough": null, "always_seed": false, "announce": true, "dry_run": false, "look_only": false,
            "who": { "user": "somebody", "host": "somewhere" },
        },
        "properties": { "id": "7" },
        "own": [],
        "placeholders": {},
    })
}

async fn column(database: &TestDatabase, sql: &str) -> Vec<String> {
    let address = pgfleet_postgres::Address::parse(&database.url()).unwrap();
    let connection = pgfleet_postgres::connect(&address, &pgfleet_postgres::Purpose::new("test")).await.unwrap();
    let rows = connection.simple(sql).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
}

#[tokio::test]
async fn targets_are_worked_on_at_the_same_time_and_the_caller_is_asked_to_announce() {
    let server = TestServer::shared().await;
    let databases = [server.database().await, server.database().await];
    let mut worker = Worker::of(Trip::new("create table a (id int);", 2));
    for (id, database) in databases.iter().enumerate() {
        worker.ask(id as u64, json!({ "migrate": task(database) })).await;
    }
    let mut done = 0;
    let mut refused = false;
    while done < 2 {
        let (id, answer) = worker.last_answer().await;
        if let Some(announce) = answer.get("announce") {
            assert_eq!(announce["target"], "trip/acme");
            // One is taken, the other refused, which is no failure of the run.
            let error = if refused { json!(null) } else { json!("nobody is at home") };
            refused = true;
            worker.ask(id, json!({ "announced": error })).await;
            continue;
        }
        let report = &answer["report"];
        assert_eq!(report["applied"], json!(["identity/1_users", "1_first", "2_recorded", "3_meet"]), "{answer}");
        assert_eq!(report["seeded"], json!(["0_none", "1_fill"]));
        done += 1;
    }
    let mut announced = Vec::new();
    for database in &databases {
        assert_eq!(column(database, "select id from recorded order by 1").await, ["1", "7"]);
        let who = column(database, "select os_user || '@' || host from pgfleet.trip_migrations").await;
        assert_eq!(who, ["somebody@somewhere"; 3]);
        let sql = "select count(*) from pgfleet.trip_migrations where announced_at is not null";
        announced.extend(column(database, sql).await);
    }
    announced.sort();
    assert_eq!(announced, ["0", "3"]);
    worker.end().await;
}

#[tokio::test]
async fn the_end_of_the_input_ends_what_runs_in_an_orderly_way() {
    let database = TestServer::shared().await.database().await;
    let mut worker = Worker::of(Trip::new("select pg_sleep(600);", 1));
    worker.ask(1, json!({ "migrate": task(&database) })).await;
    while worker.answer().await.1["event"]["started"]["label"] != "1_first" {}
    drop(worker.input.take());
    let (id, answer) = worker.last_answer().await;
    assert_eq!((id, &answer["error"]["kind"]), (1, &json!("stopped")), "{answer}");
    worker.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_not_understood_is_not_repeated() {
    let mut worker = Worker::of(Trip::new("select 1;", 1));
    worker.say(r#"{"pgfleet":2,"id":4,"ask":{"migrate":{"url":"postgresql://u:s3cret@h/d"}}}"#).await;
    let (id, answer) = worker.answer().await;
    assert_eq!(id, 4);
    assert!(answer["error"]["message"].is_string() && !answer.to_string().contains("s3cret"), "{answer}");
    worker.say(r#"{"pgfleet":99,"id":5,"ask":"describe"}"#).await;
    let (id, answer) = worker.answer().await;
    assert_eq!(id, 5);
    assert!(answer.to_string().contains("it is of protocol 99, and this program speaks 2"), "{answer}");
    worker.end().await;
}

#[tokio::test]
async fn files_and_what_only_the_program_has_become_one_path() {
    let trip = Trip::new("create table a (id int);", 1);
    let properties = BTreeMap::from([("id".to_owned(), "7".to_owned())]);
    let compiled = trip.path(&BTreeMap::new()).unwrap().with_properties(&properties);
    let mut worker = Worker::of(trip.clone());
    let mut described = Vec::new();
    for ask in ["describe", "export"] {
        worker.ask(1, json!(ask)).await;
        described.push(worker.answer().await.1["description"].take());
    }
    worker.end().await;
    // Only an export holds what lies in files.
    let text = "create table a (id int);";
    assert!(!described[0].to_string().contains(text) && described[1].to_string().contains(text), "{described:?}");

    let description: Description = serde_json::from_value(described[0].take()).unwrap();
    let files = SetPath::incomplete(Vec::new(), trip.files(properties.clone()));
    let path = description.join(&files, Path::new("target/debug/trip")).unwrap();
    assert!(path.needs_program());
    let checksums = |path: &SetPath| {
        let of = |set: &Set| {
            let seeds: Vec<_> = set.seeds.files.iter().map(|seed| (seed.name.clone(), seed.checksum.clone())).collect();
            let migrations: Vec<_> = set.migrations.iter().map(|file| (file.label(), file.checksum())).collect();
            (set.name.clone(), migrations, seeds)
        };
        path.sets().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(checksums(&path), checksums(&compiled));

    // A comment is no difference; a word is.
    let commented = Trip::new("-- first\ncreate table a (id int);", 1);
    let files = SetPath::incomplete(Vec::new(), commented.files(properties.clone()));
    description.join(&files, Path::new("trip")).unwrap();
    let edited = Trip::new("create table b (id int);", 1);
    let files = SetPath::incomplete(Vec::new(), edited.files(properties.clone()).with_seeds(Seeds::default()));
    let error = description.join(&files, Path::new("trip")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program);
    assert_eq!(
        shown(&error),
        "cannot use the program of trip: it was built from other files\ncause: trip\n\
         cause: migrations/1_first.sql: another text in the program\n\
         cause: the seed 0_none.sql: in the program only\n\
         hint: build the program again (`cargo build`), or deploy the one that belongs to them\n"
    );
}
