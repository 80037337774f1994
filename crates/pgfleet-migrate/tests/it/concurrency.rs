//! Several runs at once.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_migrate::event::Silent;
use pgfleet_migrate::{Error, ErrorKind, Event, Outcome, Report, SetPath, Target, run};
use pgfleet_postgres::Address;
use pgfleet_postgres::lock::{LockKey, try_lock};

use crate::support::{Bench, shown, until};

/// Migrations that leave one row each in a table without a key.
pub(crate) fn counted(bench: &Bench, count: u32) {
    bench.file("1_m.sql", "create table counted (version int); insert into counted values (1);");
    for number in 2..=count {
        bench.file(
            &format!("{number}_m.sql"),
            format!("insert into counted values ({number}); select pg_sleep(0.001);"),
        );
    }
}

/// Asserts that each migration ran exactly once.
pub(crate) async fn each_once(connection: &pgfleet_postgres::Connection, count: u32, hint: &str) {
    let rows = connection
        .simple(
            "select (select count(*) from counted), (select count(distinct version) from counted), \
             (select count(*) from pgfleet.trip_migrations)",
        )
        .await
        .unwrap();
    let numbers: Vec<_> = (0..3).map(|at| rows[0].get(at).unwrap_or("NULL")).collect();
    assert_eq!(numbers, [count.to_string().as_str(); 3], "{hint}");
}

async fn at_once(bench: &Bench, target: &Target, runs: usize) -> Vec<Result<Report, Error>> {
    let set: Arc<SetPath> = Arc::new(bench.path());
    let tasks: Vec<_> = (0..runs)
        .map(|_| {
            let (target, set, options) = (target.clone(), set.clone(), bench.options.clone());
            tokio::spawn(async move { run::migrate(&target, &set, &options, &Silent).await })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// Ten replicas of a service start, and not even the database is there.
pub(crate) async fn ten_replicas_start(bench: &Bench) {
    counted(bench, 20);
    let server = bench.database.server().clone();
    let name = server.empty_name().await;
    let mut target = bench.target();
    target.address = Address::parse(&server.superuser_url(&name)).unwrap();
    target.admin = Some(Address::parse(&server.superuser_url("postgres")).unwrap());
    let results = at_once(bench, &target, 10).await;
    let reports: Vec<Report> = results.into_iter().map(|r| r.unwrap_or_else(|e| panic!("{}", shown(&e)))).collect();
    assert_eq!(reports.iter().filter(|report| report.outcome == Outcome::Applied).count(), 1);
    assert_eq!(reports.iter().filter(|report| report.created).count(), 1);
    assert!(reports.iter().all(|report| report.to.as_deref() == Some("20")));
    let connection = pgfleet_postgres::connect(&target.address, &pgfleet_postgres::Purpose::new("test")).await.unwrap();
    each_once(&connection, 20, "ten replicas").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_runs_at_once_apply_each_migration_once() {
    let bench = Bench::new().await;
    counted(&bench, 20);
    for result in at_once(&bench, &bench.target(), 10).await {
        result.unwrap_or_else(|error| panic!("{}", shown(&error)));
    }
    each_once(&bench.connect().await, 20, "ten runs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_replicas_make_a_database_that_is_not_there_once() {
    ten_replicas_start(&Bench::new().await).await;
}

#[tokio::test]
async fn a_lock_that_stays_held_ends_the_run_and_names_the_holder() {
    let mut bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.options.lock_wait = Some(Duration::from_millis(60));
    let holder = bench.connect().await;
    assert!(try_lock(&holder, LockKey::Migrate).await.unwrap());
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Locked, "{text}");
    assert!(text.contains("(test, role postgres)") && text.contains("pg_terminate_backend("), "{text}");
    let told = bench.events.any(|e| matches!(e, Event::LockHeld { holder: Some(h) } if h.application == "test"));
    assert!(told, "waiting shows the holder");
}

#[tokio::test]
async fn a_holder_that_dies_frees_the_lock() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    let holder = bench.connect().await;
    assert!(try_lock(&holder, LockKey::Migrate).await.unwrap());
    let kill = async {
        let seen = || {
            bench.events.0.lock().unwrap().iter().find_map(|event| match event {
                Event::LockHeld { holder: Some(holder) } => Some(holder.pid),
                _ => None,
            })
        };
        until("it waits", async || seen().is_some()).await;
        bench.run(&format!("select pg_terminate_backend({})", seen().unwrap())).await;
    };
    let (report, ()) = tokio::join!(bench.migrate(), kill);
    assert_eq!(report.unwrap().outcome, Outcome::Applied);
}

#[tokio::test]
async fn an_index_is_built_concurrently_while_others_wait() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int); insert into t select generate_series(1, 20000);");
    bench.file(
        "2_i.sql",
        "-- pgfleet: no-transaction\ncreate index concurrently a on t (id);\ncreate index concurrently b on t (id);",
    );
    for result in at_once(&bench, &bench.target(), 6).await {
        result.unwrap_or_else(|error| panic!("{}", shown(&error)));
    }
    assert_eq!(
        bench.column("select count(*) from pg_index where indrelid = 't'::regclass and indisvalid").await,
        ["2"]
    );
}

#[tokio::test]
async fn a_waiter_goes_on_when_what_it_needs_is_there() {
    let mut bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.file("2_b.sql", "select 1;");
    bench.options.to = Some("1".parse().unwrap());
    bench.run("create schema pgfleet").await;
    let holder = bench.connect().await;
    assert!(try_lock(&holder, LockKey::Migrate).await.unwrap());
    let appear = async {
        until("it waits", async || bench.events.any(|event| matches!(event, Event::LockHeld { .. }))).await;
        bench
            .run(
                "create table pgfleet.trip_migrations (version text, description text, checksum text, raw_hash text, \
                 applied_at timestamptz, down text, run uuid, announced_at timestamptz); insert into pgfleet.trip_migrations values ('1', 'a')",
            )
            .await;
    };
    let (report, ()) = tokio::join!(bench.migrate(), appear);
    assert_eq!(report.unwrap().outcome, Outcome::DoneByAnother);
}

#[tokio::test]
async fn different_databases_do_not_wait_for_each_other() {
    let (one, two) = (Bench::new().await, Bench::new().await);
    one.file("1_a.sql", "select 1;");
    two.file("1_a.sql", "select 1;");
    let holder = one.connect().await;
    assert!(try_lock(&holder, LockKey::Migrate).await.unwrap());
    assert_eq!(two.migrate().await.unwrap().outcome, Outcome::Applied);
    assert!(!two.events.any(|event| matches!(event, Event::LockHeld { .. })));
}
