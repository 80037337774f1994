//! (h) What changing over to a queue's other tables costs those who use it meanwhile.
//!
//! The tables of queues come in pairs: when one has grown the other one is written to, and the first is emptied. Here that
//! is done again and again while messages pass at a steady pace, in turns with the same without it. A message's time begins
//! when it was due to be put in, so that one that had to wait for its turn counts with its wait.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pgfleet_events::{Json, NewItem, QueueStore as _};
use pgfleet_events_postgres::Store;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{self, Contender};
use super::{Bench, DATA, store};
use crate::report::Report;

const QUEUE: &str = "steady";
const GOAL: Duration = Duration::from_millis(50);

/// A pace, and how often the tables are changed.
struct Load {
    what: &'static str,
    every: Duration,
    batch: usize,
    batches: usize,
    /// Messages that pass beforehand, so that what is emptied has a size.
    filled: usize,
    /// A change is two of these apart: over to the other table, and the first one emptied.
    step: Duration,
}

const LOADS: [Load; 3] = [
    Load {
        what: "200 messages a second, tables changed every 0.2 s",
        every: Duration::from_millis(5),
        batch: 1,
        batches: 1_000,
        filled: 0,
        step: Duration::from_millis(100),
    },
    Load {
        what: "20,000 messages a second in batches of 100, likewise",
        every: Duration::from_millis(5),
        batch: 100,
        batches: 1_000,
        filled: 0,
        step: Duration::from_millis(100),
    },
    Load {
        what: "the second around a change of full tables, 200 messages",
        every: Duration::from_millis(5),
        batch: 1,
        batches: 200,
        filled: 160_000,
        step: Duration::from_millis(300),
    },
];

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, runtime } = bench;
    for (number, load) in LOADS.iter().enumerate() {
        let store = store::ours(bench, &format!("rotation_{number}"))?;
        let batches = if number == 2 { load.batches } else { options.times(load.batches) };
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut changes = 0;
        for round in 0..=options.rounds {
            for place in 0..2 {
                let is_changed = (round + place) % 2 == 0;
                runtime.block_on(async {
                    // The tables are empty, then as full as is wanted.
                    for _ in 0..2 {
                        store.rotate_queues(1).await?;
                    }
                    let who = Contender::Ours(store.clone());
                    queue::send(&who, 4, 100, load.filled).await?;
                    queue::take(&who, 4, 100, load.filled).await?;
                    anyhow::Ok(())
                })?;
                server.execute("postgres", &["CHECKPOINT".to_owned()])?;
                let (time, changed) = runtime.block_on(turn(&store, load, batches, is_changed))?;
                if round > 0 {
                    changes += changed;
                    if is_changed { &mut with } else { &mut without }.push(time);
                }
            }
        }
        ensure!(changes >= options.rounds, "the tables were changed {changes} times");
        let case = format!("(h) {}: p99", load.what);
        report.added(&case, &with, ("without a change", &without), GOAL);
    }
    Ok(())
}

/// Puts in at a steady pace and takes; returns the time that 99 of 100 messages stay below, and how often something was
/// done to the tables.
async fn turn(store: &Arc<Store>, load: &Load, batches: usize, is_changed: bool) -> Result<(Duration, usize)> {
    let (every, batch) = (load.every, load.batch);
    let began = Instant::now();
    let due = move |message: usize| began + every * u32::try_from(message / batch).unwrap_or(u32::MAX);
    let sender = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..batches {
                tokio::time::sleep_until(due(number * batch)).await;
                let items = (number * batch..(number + 1) * batch).map(item).collect();
                store.enqueue(QUEUE, items).await?;
            }
            anyhow::Ok(())
        })
    };
    let changing = is_changed.then(|| {
        let (store, step) = (store.clone(), load.step);
        let (done, mut stopped) = oneshot::channel::<()>();
        let changing = tokio::spawn(async move {
            let mut changes = 0;
            while tokio::time::timeout(step, &mut stopped).await.is_err() {
                changes += usize::from(store.rotate_queues(1).await?);
            }
            anyhow::Ok(changes)
        });
        (done, changing)
    });
    let mut times = Vec::with_capacity(batches * batch);
    while times.len() < batches * batch {
        let taken = store.dequeue(QUEUE, "bench", batch, Duration::from_mins(10)).await?;
        if taken.is_empty() {
            ensure!(began.elapsed() < Duration::from_mins(2), "{} of {} messages came", times.len(), batches * batch);
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let receipts: Vec<_> = taken.iter().map(|taken| taken.receipt.clone()).collect();
        store.acknowledge(&receipts).await?;
        let now = Instant::now();
        for taken in &taken {
            times.push(now - due(number_of(taken.data.as_str()).context("a message of somebody else's")?));
        }
    }
    sender.await??;
    let mut changes = 0;
    if let Some((done, changing)) = changing {
        drop(done);
        changes = changing.await??;
    }
    times.sort_unstable();
    Ok((times[times.len() * 99 / 100], changes))
}

/// A message of about the size that all have, which says which one it is.
fn item(number: usize) -> NewItem {
    NewItem::new(
        "Booked",
        Json::trusted(format!(r#"{{"number": {number}, "note": "{}"}}"#, &DATA[14..84].replace('"', " "))),
    )
}

fn number_of(data: &str) -> Option<usize> {
    let (_, rest) = data.split_once(r#""number": "#)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
