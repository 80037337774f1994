//! (c) A queue while somebody holds a snapshot, as a report or a forgotten session does.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Bench;
use super::queue::{self, Contender};
use super::store::Plain;
use crate::report::Report;

const WORKERS: usize = 4;
const BATCH: usize = 100;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, runtime } = bench;
    let passing = options.times(1_000_000) / (WORKERS * BATCH) * WORKERS * BATCH;
    let measured = options.times(80_000) / (WORKERS * BATCH) * WORKERS * BATCH;
    let names = ["pgfleet", "pgmq", "limit: one table, SKIP LOCKED"];
    let all = Contender::all(bench, "pinned", WORKERS)?;
    for (who, contender) in all.iter().enumerate() {
        let database = format!("pinned_{}", ["ours", "pgmq", "raw"][who]);
        // As users have it: what helps against dead rows is on.
        server.execute(
            "postgres",
            &["ALTER SYSTEM SET autovacuum = on".to_owned(), "SELECT pg_reload_conf()".to_owned()],
        )?;
        // One takes a quarter of a second, which says little by itself.
        let turns = 9;
        let rate = |times: Vec<Duration>| {
            let total: Duration = times.iter().sum();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = (measured * times.len()) as f64 / total.as_secs_f64();
            rate
        };
        let turn = || -> Result<Duration> {
            runtime.block_on(queue::send(contender, WORKERS, BATCH, measured))?;
            runtime.block_on(queue::take(contender, WORKERS, BATCH, measured))
        };
        turn()?;
        let before = rate((0..turns).map(|_| turn()).collect::<Result<_>>()?);
        let holder = runtime.block_on(async {
            let plain = Plain::open(&server.url(&database), &[]).await?;
            plain.client().batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
            plain.client().query_one("SELECT count(*) FROM pg_class", &[]).await?;
            anyhow::Ok(plain)
        })?;
        // The others lose so much that passing all through them one by one would take hours: for them it passes in bulk.
        let bulk = passing / 20;
        for _ in 0..20 {
            match contender {
                Contender::Ours(_) => {
                    runtime.block_on(queue::send(contender, WORKERS, BATCH, bulk))?;
                    runtime.block_on(queue::take(contender, WORKERS, BATCH, bulk))?;
                }
                Contender::Pgmq(plain) => pass(bench, &plain[0], PGMQ_PASS, bulk)?,
                Contender::Raw(plain) => pass(bench, &plain[0], RAW_PASS, bulk)?,
            }
        }
        let few = if who == 0 { measured } else { WORKERS * BATCH * 2 };
        runtime.block_on(queue::send(contender, WORKERS, BATCH, few))?;
        let mut held = vec![runtime.block_on(queue::take(contender, WORKERS, BATCH, few))?];
        if who == 0 {
            for _ in 1..turns {
                held.push(turn()?);
            }
        }
        let total: Duration = held.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let after = (few * held.len()) as f64 / total.as_secs_f64();
        let (dead, size) = runtime.block_on(async {
            let row = holder_stats(&server.url(&database)).await?;
            anyhow::Ok(row)
        })?;
        runtime.block_on(holder.client().batch_execute("ROLLBACK"))?;
        server
            .execute("postgres", &["ALTER SYSTEM RESET autovacuum".to_owned(), "SELECT pg_reload_conf()".to_owned()])?;
        ensure!(before > 0.0, "nothing was taken");
        let case = format!("(c) {passing} messages passed while a snapshot was held: {}", names[who]);
        let figures = format!("{before:.0} → {after:.0} a second; {dead} dead rows, {size} MB");
        let ratio = format!("{:.3}", after / before);
        let goal = (who == 0).then_some(("≥ 0.8", after / before >= 0.8));
        report.note(&case, &figures, ("its own rate before", &ratio), goal);
    }
    Ok(())
}

const PGMQ_PASS: [&str; 2] = [
    "SELECT pgmq.send_batch('bench', array_agg('{}'::jsonb)) FROM generate_series(1, $1)",
    "WITH read AS (SELECT msg_id FROM pgmq.read('bench', 600, $1)) SELECT pgmq.delete('bench', array_agg(msg_id)) FROM read",
];
const RAW_PASS: [&str; 2] = [
    "INSERT INTO raw_queue (payload) SELECT '{}' FROM generate_series(1, $1)",
    "DELETE FROM raw_queue WHERE id = ANY(ARRAY(SELECT id FROM raw_queue ORDER BY id FOR UPDATE SKIP LOCKED LIMIT $1))",
];

fn pass(bench: &Bench<'_>, plain: &Plain, statements: [&str; 2], messages: usize) -> Result<()> {
    let number = messages.to_string();
    bench.runtime.block_on(async {
        for sql in statements {
            plain.client().batch_execute(&sql.replace("$1", &number)).await?;
        }
        Ok(())
    })
}

/// Dead rows of the user's tables, and their size in megabytes.
async fn holder_stats(url: &str) -> Result<(i64, i64)> {
    let plain = Plain::open(url, &[]).await?;
    let sql = "SELECT coalesce(sum(n_dead_tup), 0)::bigint, \
                      (coalesce(sum(pg_total_relation_size(relid)), 0) / 1000000)::bigint FROM pg_stat_user_tables";
    // Sessions tell their counts when they are idle.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let row = plain.client().query_one(sql, &[]).await?;
    Ok((row.get(0), row.get(1)))
}
