//! (e) Reading all streams from the start, 1,000 at a time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgfleet_events::{Filter, Position, StreamStore};

use super::store::{self, Plain};
use super::{Bench, append};
use crate::report::Report;

const GOAL: f64 = 1.429;
const PAGE: usize = 1_000;

/// What a scan of the log by its sequence gives: the same columns in the same number of round trips, and no promise.
const SCAN: &str = "SELECT seq, stream, version, extract(epoch FROM at)::float8, id, type, data::text FROM event_streaming.events \
     WHERE seq > $1 ORDER BY seq LIMIT 1000";

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, runtime, server } = bench;
    let store = store::ours(bench, "read")?;
    let events = options.times(1_000_000) / 400 * 400;
    server.prepare(|| {
        runtime.block_on(append::append(&store, 4, 100, events, 0))?;
        Ok(())
    })?;
    let plain = runtime.block_on(Plain::open(&server.url("read"), &[SCAN]))?;
    let mut times = vec![Vec::new(); 2];
    for round in 0..=options.rounds {
        for place in 0..2 {
            let who = (round + place) % 2;
            let (took, count) =
                runtime.block_on(async { if who == 0 { ours(&*store).await } else { scan(&plain).await } })?;
            ensure!(count == events, "{count} of {events} events were read");
            if round > 0 {
                times[who].push(took);
            }
        }
    }
    let each = u32::try_from(events)?;
    let case = format!("(e) {events} events of all streams from the start");
    report.compare_each(&case, ("", &times[0]), ("limit: scan by sequence", &times[1]), each, Some(GOAL));
    Ok(())
}

async fn ours(store: &dyn StreamStore) -> Result<(Duration, usize)> {
    let began = Instant::now();
    let (mut position, mut count) = (Position::START, 0);
    let all = Filter::default();
    loop {
        let page = store.read_all(position, PAGE, &all).await?;
        count += page.events.len();
        position = page.next;
        if page.at_end {
            return Ok((began.elapsed(), count));
        }
    }
}

async fn scan(plain: &Plain) -> Result<(Duration, usize)> {
    let began = Instant::now();
    let (mut position, mut count, mut bytes) = (0_i64, 0, 0);
    loop {
        let rows = plain.query(SCAN, &[&position]).await?;
        for row in &rows {
            // As ours, everything is read.
            let (stream, kind, data): (String, String, String) = (row.get(1), row.get(5), row.get(6));
            bytes += stream.len() + kind.len() + data.len();
        }
        let Some(last) = rows.last() else { break };
        position = last.get(0);
        count += rows.len();
    }
    ensure!(bytes > count, "events are empty");
    Ok((began.elapsed(), count))
}
