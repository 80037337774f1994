//! (b) A queue with little in it: 200 messages a second, each from before it is put in until it is acknowledged.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use super::queue::Contender;
use crate::report::Report;

const EVERY: Duration = Duration::from_millis(5);
const GOAL: f64 = 1.25;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, runtime, .. } = bench;
    let all = Contender::all(bench, "steady", 2)?;
    let messages = options.times(1_000);
    let (mut middle, mut slow) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
    for round in 0..=options.rounds {
        for place in 0..3 {
            let who = (round + place) % 3;
            let mut times = runtime.block_on(turn(all[who].clone(), messages))?;
            times.sort_unstable();
            if round > 0 {
                middle[who].push(times[times.len() / 2]);
                slow[who].push(times[times.len() * 99 / 100]);
            }
        }
    }
    for (what, times) in [("p50", &middle), ("p99", &slow)] {
        let case = format!("(b) 200 messages a second, put in to acknowledged, {what}");
        report.compare_each(&case, ("", &times[0]), ("pgmq", &times[1]), 1, Some(GOAL));
        report.compare_each(&case, ("", &times[0]), ("limit: one table, SKIP LOCKED", &times[2]), 1, None);
    }
    Ok(())
}

/// One task puts in at a steady pace; the other one takes, and looks again after a millisecond when there is nothing.
async fn turn(who: Contender, messages: usize) -> Result<Vec<Duration>> {
    let (began, mut beginnings) = tokio::sync::mpsc::unbounded_channel();
    let sender = {
        let who = who.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            for _ in 0..messages {
                ticks.tick().await;
                began.send(Instant::now())?;
                who.send(0, 1).await?;
            }
            anyhow::Ok(())
        })
    };
    let mut times = Vec::with_capacity(messages);
    while times.len() < messages {
        let taken = who.take(1, 1).await?;
        if taken == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        // One is in it at a time, as a rule; where there are two they came in this order.
        if let Some(began) = beginnings.recv().await {
            times.push(began.elapsed());
        }
    }
    sender.await??;
    Ok(times)
}
