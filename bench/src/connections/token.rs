//! A read that must see what its caller wrote, on a replica that has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgfleet_local::testing::{OwnServer, Replica};
use pgfleet_local::{Binaries, OLDEST_SUPPORTED};
use pgfleet_postgres::{Address, Purpose, connect};
use pgfleet_route::{Endpoints, Options as RouterOptions, Router, Scope, Session};
use tokio::runtime::Runtime;

use super::options::Options;
use super::setting::APPLICATION;
use crate::report::Report;

const GOAL: f64 = 1.25;

/// Reads of a turn.
const READS: u32 = 5_000;

const FIRST_READS: u32 = 200;

const ROWS: i64 = 10_000;
const SQL: &str = "SELECT n FROM item WHERE id = $1";

pub(super) fn measure(options: &Options, runtime: &Runtime, report: &mut Report) -> Result<()> {
    runtime.block_on(async {
        let primary = OwnServer::start(|server| {
            let oldest = server.search.clone().with_major(OLDEST_SUPPORTED);
            if Binaries::find(&oldest).is_ok() {
                server.search = oldest;
            }
            server.durable = true;
        })
        .await?;
        let url = primary.superuser_url("postgres");
        let admin = connect(&Address::parse(&url)?, &Purpose::new("setup")).await?;
        admin
            .execute_all(&format!(
                "CREATE TABLE item (id bigint PRIMARY KEY, n bigint NOT NULL); \
                 INSERT INTO item SELECT i, 0 FROM generate_series(1, {ROWS}) i"
            ))
            .await?;
        admin.execute_all("VACUUM ANALYZE item").await?;
        let replica = primary.replica().await?;
        replica.caught_up().await?;
        let readers = vec![Address::parse(&replica.superuser_url("postgres"))?];
        let mut settings = RouterOptions::new(APPLICATION, Endpoints { writer: Address::parse(&url)?, readers });
        // Thousands of writes only make tokens; how long they take is not measured.
        settings.purpose = Purpose::new(APPLICATION).setting("synchronous_commit", "off");
        let router = Router::new(settings);
        let reads = options.times(READS);
        for tasks in [1, 8] {
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..=options.rounds {
                for place in 0..2 {
                    let who = (round + place) % 2;
                    let scope = Arc::new(wrote(&router).await?);
                    replica.caught_up().await?;
                    let scope = if who == 0 { scope } else { Arc::new(Scope::host()) };
                    let took = turn(&router, scope, tasks, reads / tasks).await?;
                    if round > 0 {
                        times[who].push(took);
                    }
                }
            }
            let case = format!("(c) read on a replica that is up to date, {tasks} at once: ");
            let plain = ("pgfleet: without a token", times[1].as_slice());
            report.compare_each(&case, ("with a token", &times[0]), plain, reads, Some(GOAL));
        }
        first(options, &router, &replica, report).await
    })
}

/// The first read after a write, which nothing that was learnt before answers for. Each is taken alone, with a write
/// between any two; what else the machine has to wake up for such a read is in both.
async fn first(options: &Options, router: &Router, replica: &Replica, report: &mut Report) -> Result<()> {
    let reads = options.times(FIRST_READS);
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=options.rounds {
        let mut sums = [Duration::ZERO; 2];
        for read in 0..reads * 2 {
            let who = (round + read as usize) % 2;
            let scope = wrote(router).await?;
            replica.caught_up().await?;
            let scope = if who == 0 { scope } else { Scope::host() };
            let began = Instant::now();
            scope.run(one(router, i64::from(read) % ROWS + 1)).await?;
            sums[who] += began.elapsed();
        }
        if round > 0 {
            (0..2).for_each(|who| times[who].push(sums[who]));
        }
    }
    let plain = ("pgfleet: without a token", times[1].as_slice());
    report.compare_each("(c) likewise, ", ("the first read after a write", &times[0]), plain, reads, None);
    Ok(())
}

/// The session of a caller who has written.
async fn wrote(router: &Router) -> Result<Scope> {
    let session = Session::new();
    let scope = Scope::host().with_session(session.clone());
    scope.clone().run(write(router)).await?;
    ensure!(!session.is_empty(), "a write left no token");
    Ok(scope)
}

async fn write(router: &Router) -> Result<()> {
    let db = router.writer(None).await?;
    db.execute("UPDATE item SET n = n + 1 WHERE id = 1", &[]).await?;
    Ok(())
}

async fn turn(router: &Router, scope: Arc<Scope>, tasks: u32, reads: u32) -> Result<Duration> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (router, scope) = (router.clone(), Scope::clone(&scope));
            tokio::spawn(async move {
                for read in 0..reads {
                    let id = i64::from(read * 31 + task) % ROWS + 1;
                    scope.clone().run(one(&router, id)).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(began.elapsed())
}

async fn one(router: &Router, id: i64) -> Result<()> {
    let mut db = router.reader(None).await?;
    let row = db.query_one(SQL, &[&id]).await?;
    ensure!(db.is_replica(), "it was not read on the replica");
    let _n: i64 = row.get(0);
    Ok(())
}
