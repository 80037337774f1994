//! What a crash at any moment leaves, and what the next run makes of it.

use std::time::Duration;

use pgfleet_local::StopMode;
use pgfleet_local::testing::OwnServer;
use pgfleet_migrate::{Outcome, Target, run};
use pgfleet_postgres::{Address, Connection, Purpose, connect};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::concurrency::{counted, each_once};
use crate::support::{Bench, START_OVER, shown, until};

const COUNT: u32 = 30;

/// `PGFLEET_SOAK_ROUNDS` raises the number of rounds.
pub(crate) fn rounds(usual: u64) -> u64 {
    std::env::var("PGFLEET_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

const KILL: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                    where datname = current_database() and application_name like 'pgfleet migrate%'";

#[tokio::test]
async fn a_connection_killed_at_any_moment_loses_and_doubles_nothing() {
    let first: u64 = rand::random_range(0..1_000_000);
    let bench = Bench::new().await;
    counted(&bench, COUNT);
    let killer = bench.connect().await;
    for seed in first..first + rounds(20) {
        killer.execute_all(START_OVER).await.unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let kill = async {
            for _ in 0..random.random_range(1..4) {
                tokio::time::sleep(Duration::from_micros(random.random_range(0..40_000))).await;
                killer.execute_all(KILL).await.unwrap();
            }
        };
        let (result, ()) = tokio::join!(bench.migrate(), kill);
        if let Err(error) = &result {
            assert!(error.is_retryable(), "seed {seed}: {}", shown(error));
        }
        let again = bench.migrate().await.unwrap_or_else(|error| panic!("seed {seed}: {}", shown(&error)));
        assert_eq!(again.to.as_deref(), Some("30"), "seed {seed}");
        each_once(&killer, COUNT, &format!("seed {seed}")).await;
    }
}

#[tokio::test]
async fn a_run_whose_connection_is_killed_starts_again_by_itself() {
    let mut bench = Bench::new().await;
    bench.options.max_tries = 50;
    bench.options.min_retry_wait = Duration::from_millis(1);
    bench.options.max_retry_wait = Duration::from_millis(5);
    counted(&bench, COUNT);
    let killer = bench.connect().await;
    let kill = async {
        for number in [5, 15, 25] {
            until("it has come so far", async || progress(&killer).await >= number).await;
            killer.execute_all(KILL).await.unwrap();
        }
    };
    let (report, ()) = tokio::join!(bench.migrate(), kill);
    assert_eq!(report.unwrap().to.as_deref(), Some("30"));
    each_once(&killer, COUNT, "three kills").await;
}

/// How many migrations are committed.
async fn progress(watcher: &Connection) -> u32 {
    match watcher.simple("select count(*) from counted").await {
        Ok(rows) => rows[0].get(0).unwrap().parse().unwrap(),
        Err(_) => 0,
    }
}

fn target(server: &OwnServer) -> Target {
    Target::new("trip", Address::parse(&server.superuser_url("postgres")).unwrap())
}

/// Commits do not wait for the disk within a run; whoever hears of its end must find all of it.
#[tokio::test]
async fn what_was_reported_survives_a_crash_of_the_server_that_follows_at_once() {
    // Without the background writer nothing reaches the disk but what a run puts there.
    let mut server =
        OwnServer::start(|options| options.settings.push(("wal_writer_delay".to_owned(), "10s".to_owned())))
            .await
            .unwrap();
    let bench = Bench::new().await;
    let mut count = 0;
    // Applied; failed at the end; stopped at a version.
    for case in 0..3 {
        let (from, to) = (count + 1, count + 5);
        if count == 0 {
            counted(&bench, to);
        }
        for number in from.max(2)..=to {
            bench.file(&format!("{number}_m.sql"), format!("insert into counted values ({number});"));
        }
        let mut options = bench.options.clone();
        match case {
            1 => drop(bench.file("1000_bad.sql", "select 1/0;")),
            2 => {
                bench.file("1000_bad.sql", "select 1;");
                options.to = Some(to.to_string().parse().unwrap());
            }
            _ => {}
        }
        let path = bench.path();
        let result = run::migrate(&target(&server), &path, &options, &bench.events).await;
        assert_eq!(result.is_err(), case == 1, "case {case}: {:?}", result.map_err(|error| shown(&error)));
        server.stop(StopMode::Immediate).unwrap();
        server.ensure_running().unwrap();
        let connection = connect(&target(&server).address, &Purpose::new("test")).await.unwrap();
        each_once(&connection, to, &format!("case {case}")).await;
        count = to;
    }
}

#[tokio::test]
async fn a_server_that_crashes_in_the_middle_and_comes_back_is_migrated_by_the_same_run() {
    let mut server = OwnServer::start(|_| {}).await.unwrap();
    let mut bench = Bench::new().await;
    counted(&bench, COUNT);
    bench.file("15_m.sql", "insert into counted values (15); select pg_sleep(0.2);");
    bench.options.max_tries = 200;
    bench.options.min_retry_wait = Duration::from_millis(20);
    bench.options.max_retry_wait = Duration::from_millis(20);
    let (target, path) = (target(&server), bench.path());
    let watcher = connect(&target.address, &Purpose::new("test")).await.unwrap();
    let port = server.port();
    let crash = async {
        until("it is in the middle", async || progress(&watcher).await >= 14).await;
        tokio::task::spawn_blocking(move || {
            server.stop(StopMode::Immediate).unwrap();
            server.ensure_running().unwrap();
            server
        })
        .await
        .unwrap()
    };
    let (report, server) = tokio::join!(run::migrate(&target, &path, &bench.options, &bench.events), crash);
    assert_eq!(server.port(), port, "else the run looks for the server in vain");
    assert_eq!(report.unwrap_or_else(|error| panic!("{}", shown(&error))).outcome, Outcome::Applied);
    each_once(&connect(&target.address, &Purpose::new("test")).await.unwrap(), COUNT, "a crash").await;
}
