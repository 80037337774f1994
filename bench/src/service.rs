//! What a service pays inside its own process: starting with nothing pending, and a backfill.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgfleet::embed::Folder;
use pgfleet::{Backfill, Batch, Db, Service, StepResult};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::options::{Case, Options};
use crate::report::Report;
use crate::server::Server;
use crate::timing::Contender;

/// The database of both.
const DATABASE: &str = "service";

/// What a service has when it has been migrated for a while.
const MIGRATIONS: usize = 50;

/// Starts in one measurement; a single one is too short to be told from noise.
const STARTS: u32 = 20;

const ROWS: i64 = 1_000_000;

/// The look that the limit does: as many rows as the history has.
const LOOK: &str = "SELECT version, description, checksum, raw_hash, applied_at::text FROM pgfleet.bench_migrations";

pub(crate) fn measure(options: &Options, server: &Server, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if options.has(Case::H) {
        server.prepare(|| server.create(&[DATABASE.to_owned()]))?;
        start(options, &runtime, &server.url(DATABASE), report)?;
        server.prepare(|| server.drop(&[DATABASE.to_owned()]))?;
    }
    if options.has(Case::I) {
        server.prepare(|| server.create(&[DATABASE.to_owned()]))?;
        backfill(options, &runtime, server, report)?;
        server.prepare(|| server.drop(&[DATABASE.to_owned()]))?;
    }
    Ok(())
}

fn files() -> &'static [(&'static str, &'static str)] {
    let files = (1..=MIGRATIONS).map(|number| {
        let (name, text) = (format!("{number:04}_m.sql"), format!("CREATE TABLE t{number} (id bigint PRIMARY KEY);"));
        // What `migrations!` puts into a program lives as long as it.
        (&*name.leak(), &*text.leak())
    });
    files.collect::<Vec<_>>().leak()
}

fn start(options: &Options, runtime: &Runtime, url: &str, report: &mut Report) -> Result<()> {
    let folder = Folder::new("migrations", "pgfleet", files());
    let service = || Service::builder("bench").migrations(folder).migrator_url(url).start();
    runtime.block_on(service())?;
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        let measured_ours = || -> Result<Duration> {
            let began = Instant::now();
            for _ in 0..STARTS {
                runtime.block_on(service())?;
            }
            Ok(began.elapsed() / STARTS)
        };
        let measured_limit = || -> Result<Duration> {
            let began = Instant::now();
            for _ in 0..STARTS {
                runtime.block_on(connect_and_select(url))?;
            }
            Ok(began.elapsed() / STARTS)
        };
        let (first, second) = turns(round, measured_ours, measured_limit)?;
        // The first round warms both up.
        if round > 0 {
            ours.push(first);
            limit.push(second);
        }
    }
    let case = "(h) service start, 50 migrations applied, nothing pending";
    let limit = Contender::measured("limit: connect, one SELECT", limit);
    report.compare(case, &Contender::measured("pgfleet", ours), &limit, Some(1.5));
    Ok(())
}

/// Both take their turn; whoever is first is second in the next round.
fn turns(
    round: usize,
    ours: impl Fn() -> Result<Duration>,
    other: impl Fn() -> Result<Duration>,
) -> Result<(Duration, Duration)> {
    if round.is_multiple_of(2) {
        let first = ours()?;
        Ok((first, other()?))
    } else {
        let second = other()?;
        Ok((ours()?, second))
    }
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect_and_select(url: &str) -> Result<()> {
    let rows = connect(url).await?.simple_query(LOOK).await?;
    ensure!(rows.len() > MIGRATIONS, "the history is not what it was");
    Ok(())
}

/// Sets a column of a million rows, ten thousand at a time.
struct Fill;

impl Backfill for Fill {
    type Cursor = i64;

    fn id(&self) -> &'static str {
        "2_fill"
    }

    async fn batch(&self, db: &Db<'_>, after: Option<i64>) -> StepResult<Batch<i64>> {
        let after = after.unwrap_or(0);
        let sql = "UPDATE filled SET fare = price * 1.2 WHERE id > $1 AND id <= $1 + 10000";
        let rows = db.execute(sql, &[&after]).await?;
        let next = after + 10_000;
        Ok(if next >= ROWS { Batch::done(rows) } else { Batch::new(rows, Some(next)) })
    }
}

fn backfill(options: &Options, runtime: &Runtime, server: &Server, report: &mut Report) -> Result<()> {
    let url = server.url(DATABASE);
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        eprintln!("backfill, round {round} of {}", options.rounds);
        let measured_ours = || -> Result<Duration> {
            fresh(runtime, server, &url)?;
            let builder = Service::builder("bench").migration(Fill).migrator_url(&url);
            let began = Instant::now();
            runtime.block_on(builder.start())?;
            let took = began.elapsed();
            check(runtime, &url)?;
            Ok(took)
        };
        let measured_limit = || -> Result<Duration> {
            fresh(runtime, server, &url)?;
            let began = Instant::now();
            runtime.block_on(async {
                let client = connect(&url).await?;
                client.batch_execute("UPDATE filled SET fare = price * 1.2").await?;
                anyhow::Ok(())
            })?;
            let took = began.elapsed();
            check(runtime, &url)?;
            Ok(took)
        };
        let (first, second) = turns(round, measured_ours, measured_limit)?;
        if round > 0 {
            ours.push(first);
            limit.push(second);
        }
    }
    // At least 0.7 of the rate is at most 1 / 0.7 of the time.
    let case = "(i) backfill in Rust, 1,000,000 rows at 10,000 a batch";
    let limit = Contender::measured("limit: one UPDATE", limit);
    report.compare(case, &Contender::measured("pgfleet", ours), &limit, Some(1.43));
    Ok(())
}

/// The table as it was before, with nothing of the last turn in it.
fn fresh(runtime: &Runtime, server: &Server, url: &str) -> Result<()> {
    server.prepare(|| {
        runtime.block_on(async {
            let sql = format!(
                "DROP TABLE IF EXISTS filled; DROP SCHEMA IF EXISTS pgfleet CASCADE; \
                 CREATE TABLE filled (id bigint PRIMARY KEY, price numeric NOT NULL, fare numeric); \
                 INSERT INTO filled SELECT g, g % 100, NULL FROM generate_series(1, {ROWS}) g"
            );
            let client = connect(url).await?;
            client.batch_execute(&sql).await?;
            client.batch_execute("VACUUM ANALYZE filled").await?;
            anyhow::Ok(())
        })
    })
}

fn check(runtime: &Runtime, url: &str) -> Result<()> {
    runtime.block_on(async {
        let client = connect(url).await?;
        let row = client.query_one("SELECT count(*) FROM filled WHERE fare = price * 1.2", &[]).await?;
        let done: i64 = row.try_get(0).context("count")?;
        ensure!(done == ROWS, "{done} rows are filled");
        Ok(())
    })
}
