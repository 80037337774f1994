//! (a) Queues, as fast as they go: putting in, then taking out and acknowledging.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgfleet_events::{Json, NewItem, QueueStore};

use super::store::{self, Plain};
use super::{Bench, DATA};
use crate::report::Report;

const QUEUE: &str = "bench";
const VISIBILITY: Duration = Duration::from_mins(10);

const RAW_SEND: &str = "INSERT INTO raw_queue (payload) SELECT p::jsonb FROM unnest($1::text[]) p";
/// Locked, read and deleted in one transaction: nobody else can see what is being handled, and nothing comes back when a
/// process hangs.
const RAW_TAKE: &str = "DELETE FROM raw_queue WHERE id = ANY(ARRAY( \
     SELECT id FROM raw_queue ORDER BY id FOR UPDATE SKIP LOCKED LIMIT $1)) RETURNING id, payload::text";
const PGMQ_SEND: &str = "SELECT pgmq.send_batch('bench', $1::text[]::jsonb[])";
const PGMQ_READ: &str = "SELECT msg_id, message::text FROM pgmq.read('bench', 600, $1)";
const PGMQ_DELETE: &str = "SELECT pgmq.delete('bench', $1::bigint[])";

/// Somebody who is measured.
#[derive(Clone)]
pub(super) enum Contender {
    Ours(Arc<dyn QueueStore>),
    Pgmq(Arc<Vec<Plain>>),
    Raw(Arc<Vec<Plain>>),
}

impl Contender {
    /// Puts a batch in.
    pub(super) async fn send(&self, worker: usize, batch: usize) -> Result<()> {
        let texts = || vec![DATA; batch];
        match self {
            Self::Ours(store) => {
                let items = (0..batch).map(|_| NewItem::new("Booked", Json::trusted(DATA))).collect();
                store.enqueue(QUEUE, items).await?;
            }
            Self::Pgmq(plain) => drop(plain[worker].query(PGMQ_SEND, &[&texts()]).await?),
            Self::Raw(plain) => drop(plain[worker].query(RAW_SEND, &[&texts()]).await?),
        }
        Ok(())
    }

    /// Takes up to a batch and acknowledges it; returns how many there were.
    pub(super) async fn take(&self, worker: usize, batch: usize) -> Result<usize> {
        let most = i64::try_from(batch)?;
        match self {
            Self::Ours(store) => {
                let taken = store.dequeue(QUEUE, "bench", batch, VISIBILITY).await?;
                if taken.is_empty() {
                    return Ok(0);
                }
                ensure!(taken.iter().all(|taken| taken.data.as_str().len() >= DATA.len() / 2), "data came back short");
                let receipts: Vec<_> = taken.iter().map(|taken| taken.receipt.clone()).collect();
                let settled = store.acknowledge(&receipts).await?;
                ensure!(settled.done == taken.len(), "{settled:?} of {}", taken.len());
                Ok(taken.len())
            }
            Self::Pgmq(plain) => {
                let most = i32::try_from(most)?;
                let rows = plain[worker].query(PGMQ_READ, &[&most]).await?;
                if rows.is_empty() {
                    return Ok(0);
                }
                let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
                plain[worker].query(PGMQ_DELETE, &[&ids]).await?;
                Ok(rows.len())
            }
            Self::Raw(plain) => Ok(plain[worker].query(RAW_TAKE, &[&most]).await?.len()),
        }
    }

    /// What takes part, each in a database of its own with `workers` connections.
    pub(super) fn all(bench: &Bench<'_>, name: &str, workers: usize) -> Result<[Self; 3]> {
        let (ours, pgmq, raw) = (format!("{name}_ours"), format!("{name}_pgmq"), format!("{name}_raw"));
        let store = store::ours(bench, &ours)?;
        store::pgmq(bench, &pgmq)?;
        bench.server.create(std::slice::from_ref(&raw))?;
        bench.server.execute(
            &raw,
            &["CREATE TABLE raw_queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload jsonb NOT NULL)"
                .to_owned()],
        )?;
        let open = |database: &str, statements: &'static [&'static str]| -> Result<Arc<Vec<Plain>>> {
            let url = bench.server.url(database);
            bench.runtime.block_on(async {
                let mut all = Vec::new();
                for _ in 0..workers {
                    all.push(Plain::open(&url, statements).await?);
                }
                Ok(Arc::new(all))
            })
        };
        Ok([
            Self::Ours(store),
            Self::Pgmq(open(&pgmq, &[PGMQ_SEND, PGMQ_READ, PGMQ_DELETE])?),
            Self::Raw(open(&raw, &[RAW_SEND, RAW_TAKE])?),
        ])
    }
}

/// The time that `workers` need for so many messages.
pub(super) async fn send(who: &Contender, workers: usize, batch: usize, messages: usize) -> Result<Duration> {
    let began = Instant::now();
    let each = messages / workers / batch;
    run(workers, |worker| {
        let who = who.clone();
        async move {
            for _ in 0..each {
                who.send(worker, batch).await?;
            }
            Ok(())
        }
    })
    .await?;
    Ok(began.elapsed())
}

/// The time that `workers` need to take so many messages that are there.
pub(super) async fn take(who: &Contender, workers: usize, batch: usize, messages: usize) -> Result<Duration> {
    let left = Arc::new(AtomicUsize::new(messages));
    let began = Instant::now();
    run(workers, |worker| {
        let (who, left) = (who.clone(), left.clone());
        async move {
            let mut empty = 0;
            while left.load(Ordering::Relaxed) > 0 {
                let taken = who.take(worker, batch).await?;
                left.fetch_sub(taken, Ordering::Relaxed);
                empty = if taken == 0 { empty + 1 } else { 0 };
                ensure!(empty < 10_000, "{} messages do not come", left.load(Ordering::Relaxed));
            }
            Ok(())
        }
    })
    .await?;
    Ok(began.elapsed())
}

async fn run<F: Future<Output = Result<()>> + Send + 'static>(workers: usize, work: impl Fn(usize) -> F) -> Result<()> {
    let tasks: Vec<_> = (0..workers).map(|worker| tokio::spawn(work(worker))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, runtime } = bench;
    for (batch, workers, messages, goals) in [(100, 4, 80_000, (1.25, 0.333)), (1, 8, 8_000, (1.25, 0.5))] {
        let messages = options.times(messages) / (batch * workers) * batch * workers;
        let all = Contender::all(bench, &format!("queue_{batch}"), workers)?;
        let (mut sending, mut taking) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        for round in 0..=options.rounds {
            for place in 0..3 {
                let who = (round + place) % 3;
                server.execute("postgres", &["CHECKPOINT".to_owned()])?;
                let sent = runtime.block_on(send(&all[who], workers, batch, messages))?;
                let taken = runtime.block_on(take(&all[who], workers, batch, messages))?;
                if round > 0 {
                    sending[who].push(sent);
                    taking[who].push(taken);
                }
            }
        }
        let each = u32::try_from(messages)?;
        let case = format!("(a) batch {batch}, {workers} workers: ");
        let limit = "limit: one table, SKIP LOCKED";
        let (send, take) = (format!("{case}enqueue"), format!("{case}dequeue and acknowledge"));
        let raw_goal = (batch == 100).then_some(goals.0);
        report.compare_each(&send, ("", &sending[0]), (limit, &sending[2]), each, raw_goal);
        report.compare_each(&send, ("", &sending[0]), ("pgmq", &sending[1]), each, None);
        report.compare_each(&take, ("", &taking[0]), ("pgmq", &taking[1]), each, Some(goals.1));
        report.compare_each(&take, ("", &taking[0]), (limit, &taking[2]), each, None);
    }
    Ok(())
}
