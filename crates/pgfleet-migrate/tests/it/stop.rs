//! Asking a run to stop.

use std::time::Duration;

use pgfleet_migrate::options::Stop;
use pgfleet_migrate::{ErrorKind, Outcome};

use crate::concurrency::{counted, each_once};
use crate::support::{Bench, START_OVER, shown, until};

/// Whether a session of this database waits for an event.
async fn running(bench: &Bench, event: &str) -> bool {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = ";
    bench.column(&format!("{sql}'{event}'")).await == ["1"]
}

#[tokio::test]
async fn a_run_stops_in_the_middle_and_the_next_one_completes_it() {
    let mut bench = Bench::new().await;
    bench.file("1_a.sql", "create table a (id int);");
    bench.file("2_slow.sql", "create table b (id int); select pg_sleep(60);");
    bench.file("3_c.sql", "create table c (id int);");
    let stop = async {
        until("the slow one runs", async || running(&bench, "PgSleep").await).await;
        bench.options.stop.ask();
    };
    let (result, ()) = tokio::join!(bench.migrate(), stop);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{}", shown(&error));
    assert!(shown(&error).contains("rolled back"), "{}", shown(&error));
    assert_eq!(bench.versions().await, ["1"]);
    let attempts = bench.column("select to_regclass('pgfleet.attempts')::text").await;
    assert_eq!(attempts, ["NULL"], "a stop is no failure");
    bench.options.stop = Stop::default();
    bench.file("2_slow.sql", "create table b (id int);");
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_slow", "3_c"]);
}

/// Cancelling can come at any moment: before the server has begun, between two migrations, at the end.
#[tokio::test]
async fn a_stop_at_any_moment_leaves_whole_migrations() {
    let mut bench = Bench::new().await;
    counted(&bench, 40);
    for round in 0..12_u64 {
        bench.run(START_OVER).await;
        bench.options.stop = Stop::default();
        let stop = bench.options.stop.clone();
        let ask = async {
            tokio::time::sleep(Duration::from_millis(round * 6)).await;
            stop.ask();
        };
        let (result, ()) = tokio::join!(bench.migrate(), ask);
        match result {
            Ok(report) => assert_eq!(report.outcome, Outcome::Applied),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Stopped, "round {round}: {}", shown(&error)),
        }
        bench.options.stop = Stop::default();
        bench.migrate().await.unwrap();
        each_once(&bench.connect().await, 40, &format!("round {round}")).await;
    }
}

#[tokio::test]
async fn a_run_that_was_told_to_stop_before_does_nothing() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.options.stop.ask();
    assert_eq!(bench.migrate().await.unwrap_err().kind(), ErrorKind::Stopped);
    assert_eq!(bench.column("select coalesce(to_regnamespace('pgfleet')::text, 'none')").await, ["none"]);
}

#[tokio::test]
async fn a_wait_for_the_lock_can_be_stopped() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    let other = bench.connect().await;
    assert!(pgfleet_postgres::lock::try_lock(&other, pgfleet_postgres::lock::LockKey::Migrate).await.unwrap());
    let stop = async {
        until("it waits", async || {
            bench.events.any(|event| matches!(event, pgfleet_migrate::Event::LockHeld { holder: Some(_) }))
        })
        .await;
        bench.options.stop.ask();
    };
    let (result, ()) = tokio::join!(bench.migrate(), stop);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Stopped);
}

#[tokio::test]
async fn a_file_without_a_transaction_is_stopped_and_recorded() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "-- pgfleet: no-transaction\ncreate table a (id int);\nselect pg_sleep(60);\nselect 1;");
    let stop = async {
        until("the second statement runs", async || running(&bench, "PgSleep").await).await;
        bench.options.stop.ask();
    };
    let (result, ()) = tokio::join!(bench.migrate(), stop);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{}", shown(&error));
    assert!(shown(&error).contains("1 of 3 statements"), "{}", shown(&error));
    assert_eq!(bench.column("select outcome || statement_number from pgfleet.attempts").await, ["interrupted2"]);
}
