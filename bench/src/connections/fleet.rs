//! Many tenants with databases of their own, some of them busy at a time: few connections for all, or a pool for each
//! without a limit.
//!
//! A tenant that is busy has three tasks; each request takes a connection, reads a row by its key, changes it, and puts
//! the connection back. When it has done its requests, the next tenant is busy. Each tenant comes several times. The
//! peer's pools keep what they opened, so from the second time on they open nothing: that is measured, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use pgfleet_postgres::pool::Budget;
use pgfleet_postgres::{Address, Purpose, connect};
use pgfleet_route::{Router, Scope};
use tokio::runtime::Runtime;

use super::options::Options;
use super::setting::{self, APPLICATION, CONTROL};
use crate::report::Report;
use crate::server::Server;

/// Tasks of a tenant that is busy, so the most connections that its pool opens.
pub(super) const TASKS: usize = 3;

/// How often each tenant comes in one measurement.
const TURNS: usize = 2;

const ROWS: usize = 1_000;

/// A rate of 0.9 is a ratio of times of 1.11.
const GOAL: f64 = 1.11;

const READ: &str = "SELECT n FROM item WHERE id = $1";
const WRITE: &str = "UPDATE item SET n = n + 1 WHERE id = $1";

/// Who hands out the connections.
#[derive(Clone)]
enum Fleet {
    Ours(Router),
    Peer(Arc<Vec<deadpool_postgres::Pool>>),
}

/// What a measurement found.
struct Outcome {
    took: Duration,
    /// How long each request waited for its connection.
    waits: Vec<Duration>,
    /// Connections at the server, at most.
    most: usize,
}

pub(super) fn measure(options: &Options, runtime: &Runtime, server: &Server, report: &mut Report) -> Result<()> {
    let tenants = options.tenants;
    let (busy, limit) = (tenants / 10, tenants / 10 * 6 / 5);
    eprintln!("making {tenants} databases");
    server.prepare(|| databases(server, tenants))?;
    let names = ["pgfleet", "deadpool-postgres"];
    let (mut cold, mut warm) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut cpu = [Vec::new(), Vec::new()];
    let (mut waits, mut most, mut refusals) = ([Vec::new(), Vec::new()], [0, 0], [0, 0]);
    for round in 0..=options.rounds {
        for place in 0..2 {
            let who = (round + place) % 2;
            server.prepare(|| Ok(()))?;
            let before = server.refusals()?;
            let used = server.processor_time()?;
            let (first, again) = runtime.block_on(async {
                let fleet = match who {
                    0 => Fleet::Ours(setting::with_tenants(&server.url(CONTROL), Some(limit)).await?),
                    _ => Fleet::Peer(Arc::new(
                        (0..tenants)
                            .map(|tenant| setting::peer(&server.url(&database(tenant)), 4))
                            .collect::<Result<_>>()?,
                    )),
                };
                let first = run(&fleet, options, busy, server).await.context(names[who])?;
                let again = run(&fleet, options, busy, server).await.context(names[who])?;
                if let Fleet::Ours(router) = &fleet {
                    let stats = router.budgets().iter().map(Budget::stats).max_by_key(|stats| stats.most_open);
                    let stats = stats.context("there is no budget")?;
                    ensure!(stats.most_open <= limit, "the budget was {limit}, {} were open", stats.most_open);
                    eprintln!("stolen: {}, waited: {}", stats.stolen, stats.waits.count());
                }
                drop(fleet);
                nobody(server).await?;
                anyhow::Ok((first, again))
            })?;
            eprintln!(
                "{} in round {round}: {:.2} s from nothing, {:.2} s again; {} connections",
                names[who],
                first.took.as_secs_f64(),
                again.took.as_secs_f64(),
                first.most.max(again.most)
            );
            // The peer's sessions end with the second measurement, so there is one figure for both.
            let used = server.processor_time()?.saturating_sub(used);
            eprintln!("{:.2} s of processor time", used.as_secs_f64());
            most[who] = first.most.max(again.most).max(most[who]);
            refusals[who] += server.refusals()? - before;
            if round > 0 {
                cpu[who].push(used);
                cold[who].push(first.took);
                warm[who].push(again.took);
                waits[who].push([percentiles(first.waits), percentiles(again.waits)]);
            }
        }
    }
    let requests = u32::try_from(tenants * TURNS * TASKS * options.requests)?;
    let case =
        format!("(d) {tenants} tenants, {busy} busy, {}×{} requests a turn, budget {limit}: ", TASKS, options.requests);
    report.compare_each(&case, ("from nothing", &cold[0]), (names[1], &cold[1]), requests, Some(GOAL));
    report.compare_each(&case, ("later turns", &warm[0]), (names[1], &warm[1]), requests, None);
    let case = "(d) processor time of a request, client and server, ";
    report.compare_each(case, ("both together", &cpu[0]), (names[1], &cpu[1]), requests * 2, None);
    let shown = |who: usize| most[who].to_string();
    let goal = (&*format!("≤ {limit}"), most[0] <= limit);
    report.note("(d) connections at the server, at most", &shown(0), (names[1], &shown(1)), Some(goal));
    let refused = |who: usize| refusals[who].to_string();
    report.note("(d) logins refused because the server was full", &refused(0), (names[1], &refused(1)), None);
    for (at, what) in ["from nothing", "later turns"].into_iter().enumerate() {
        let wait = |who: usize| {
            let middle = |pick: fn(&[Duration; 3]) -> Duration| {
                let mut values: Vec<_> = waits[who].iter().map(|both: &[[Duration; 3]; 2]| pick(&both[at])).collect();
                values.sort();
                values[values.len() / 2].as_secs_f64() * 1000.0
            };
            format!("{:.1} / {:.1} / {:.0} ms", middle(|w| w[0]), middle(|w| w[1]), middle(|w| w[2]))
        };
        let case = format!("(d) wait for a connection, {what}: median / 99 % / longest");
        report.note(&case, &wait(0), (names[1], &wait(1)), None);
    }
    Ok(())
}

fn database(tenant: usize) -> String {
    format!("tenant_{tenant}")
}

fn databases(server: &Server, tenants: usize) -> Result<()> {
    server.create(&["tenant".to_owned()])?;
    let table = [
        "CREATE TABLE item (id bigint PRIMARY KEY, n bigint NOT NULL, text text NOT NULL)".to_owned(),
        format!("INSERT INTO item SELECT i, 0, repeat('x', 100) FROM generate_series(0, {}) i", ROWS - 1),
        "VACUUM ANALYZE".to_owned(),
    ];
    server.execute("tenant", &table)?;
    let copies = (0..tenants).map(|at| format!("CREATE DATABASE {} TEMPLATE tenant STRATEGY FILE_COPY", database(at)));
    server.execute("postgres", &copies.collect::<Vec<_>>())
}

impl Fleet {
    /// One request of a tenant; returns how long it waited for its connection.
    async fn request(&self, tenant: usize, row: i64) -> Result<Duration> {
        let began = Instant::now();
        let (waited, changed) = match self {
            Self::Ours(router) => {
                let db = router.writer(None).await?;
                let waited = began.elapsed();
                let _n: i64 = db.query_one(READ, &[&row]).await?.get(0);
                (waited, db.execute(WRITE, &[&row]).await?)
            }
            Self::Peer(pools) => {
                let db = pools[tenant].get().await?;
                let waited = began.elapsed();
                let read = db.prepare_cached(READ).await?;
                let _n: i64 = db.query_one(&read, &[&row]).await?.get(0);
                let write = db.prepare_cached(WRITE).await?;
                (waited, db.execute(&write, &[&row]).await?)
            }
        };
        ensure!(changed == 1, "{changed} rows were changed");
        Ok(waited)
    }
}

/// Lets each tenant be busy twice, so many at a time.
async fn run(fleet: &Fleet, options: &Options, busy: usize, server: &Server) -> Result<Outcome> {
    let (tenants, requests) = (options.tenants, options.requests);
    let running = Arc::new(AtomicBool::new(true));
    let watching = tokio::spawn(watch(server.url("postgres"), running.clone()));
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let workers: Vec<_> = (0..busy)
        .map(|_| {
            let (fleet, next) = (fleet.clone(), next.clone());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= tenants * TURNS {
                        return anyhow::Ok(waits);
                    }
                    // Neighbours in the list are not neighbours in time.
                    let tenant = at * 37 % tenants;
                    let tasks: Vec<_> = (0..TASKS)
                        .map(|task| {
                            let fleet = fleet.clone();
                            let work = async move {
                                let mut waits = Vec::with_capacity(requests);
                                for request in 0..requests {
                                    let row = (at * 131 + task * 337 + request * 17) % ROWS;
                                    waits.push(fleet.request(tenant, i64::try_from(row)?).await?);
                                }
                                anyhow::Ok(waits)
                            };
                            tokio::spawn(Scope::tenant(format!("t{tenant}")).run(work))
                        })
                        .collect();
                    for task in tasks {
                        waits.extend(task.await??);
                    }
                }
            })
        })
        .collect();
    let mut waits = Vec::new();
    for worker in workers {
        waits.extend(worker.await??);
    }
    let took = began.elapsed();
    running.store(false, Ordering::Relaxed);
    Ok(Outcome { took, waits, most: watching.await?? })
}

/// Counts the connections at the server until told to stop; returns the most.
async fn watch(url: String, running: Arc<AtomicBool>) -> Result<usize> {
    let watcher = connect(&Address::parse(&url)?, &Purpose::new("watch")).await?;
    let mut most = 0;
    while running.load(Ordering::Relaxed) {
        most = most.max(count(&watcher).await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(most)
}

async fn count(watcher: &pgfleet_postgres::Connection) -> Result<usize> {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{APPLICATION}'");
    let rows = watcher.simple(&sql).await?;
    Ok(rows.first().and_then(|row| row.get(0)).context("no count")?.parse()?)
}

/// Waits until all connections are gone.
async fn nobody(server: &Server) -> Result<()> {
    let watcher = connect(&Address::parse(&server.url("postgres"))?, &Purpose::new("watch")).await?;
    let began = Instant::now();
    while count(&watcher).await? > 0 {
        if began.elapsed() > Duration::from_mins(1) {
            bail!("connections outlive their pools");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The median, the 99th percentile and the longest.
fn percentiles(mut waits: Vec<Duration>) -> [Duration; 3] {
    waits.sort();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    [at(50), at(99), at(100)]
}
