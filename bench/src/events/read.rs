//! (e) Reading all streams from the start, 1,000 at a time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgfleet_events::{Filter, Position, StreamStore};

use super::logs::{EMMETT_PREPARED, Kind, Log, MESSAGE_DB};
use super::store::{self, Plain};
use super::{Bench, append};
use crate::report::Report;

const GOAL: f64 = 1.429;
const PAGE: usize = 1_000;

/// What a scan of the log by its sequence gives: the same columns in the same number of round trips, and no promise.
const SCAN: &str = "SELECT seq, stream, type, data::text, version, extract(epoch FROM at)::float8, id FROM event_streaming.events \
     WHERE seq > $1 ORDER BY seq LIMIT 1000";

/// What emmett's consumers ask for. There is no index for it: each page looks through all that is there, so a few pages
/// have to do, and stand for all.
const EMMETT_PAGE: &str = "SELECT global_position, stream_id, message_type, message_data::text, stream_position, message_metadata::text, \
     message_schema_version, message_id FROM emt_messages \
     WHERE partition = 'emt:default' AND is_archived = FALSE AND transaction_id < pg_snapshot_xmin(pg_current_snapshot()) \
     AND global_position > $1 ORDER BY transaction_id, global_position LIMIT 1000";
const EMMETT_PAGES: usize = 10;

const MESSAGE_DB_PAGE: &str = "SELECT global_position, stream_name, type, data, position, metadata, id, time \
     FROM message_store.get_category_messages('order', $1::bigint + 1, 1000)";

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, runtime, server } = bench;
    let store = store::ours(bench, "read")?;
    let events = options.times(1_000_000) / 400 * 400;
    server.prepare(|| {
        runtime.block_on(append::append(&store, 4, 100, events, 0))?;
        Ok(())
    })?;
    let plain = runtime.block_on(Plain::open(&server.url("read"), &[SCAN]))?;
    let emmett = peer(bench, &EMMETT_PREPARED, EMMETT_PAGE, events)?;
    let message_db = peer(bench, &MESSAGE_DB, MESSAGE_DB_PAGE, events)?;
    let some = (EMMETT_PAGES * PAGE).min(events);
    let mut times = vec![Vec::new(); 4];
    for round in 0..=options.rounds {
        for place in 0..times.len() {
            let who = (round + place) % times.len();
            let wanted = if who == 2 { some } else { events };
            let (took, count) = runtime.block_on(async {
                match who {
                    0 => ours(&*store).await,
                    1 => scan(&plain, SCAN, events).await,
                    2 => scan(&emmett, EMMETT_PAGE, some).await,
                    _ => scan(&message_db, MESSAGE_DB_PAGE, events).await,
                }
            })?;
            ensure!(count == wanted, "{count} of {wanted} events were read");
            if round > 0 {
                times[who].push(took);
            }
        }
    }
    let each = u32::try_from(events)?;
    let case = format!("(e) {events} events of all streams from the start");
    // As if all had been read at this rate.
    let all: Vec<Duration> = times[2].iter().map(|time| *time * each / u32::try_from(some).unwrap_or(1)).collect();
    report.compare_each(&case, ("", &times[0]), ("limit: scan by sequence", &times[1]), each, Some(GOAL));
    report.compare_each(&case, ("", &times[0]), (&format!("emmett, its first {some}"), &all), each, None);
    report.compare_each(&case, ("", &times[0]), (MESSAGE_DB.name, &times[3]), each, None);
    Ok(())
}

/// A peer with as many events, written as it writes them.
fn peer(bench: &Bench<'_>, kind: &'static Kind, page: &'static str, events: usize) -> Result<Plain> {
    let (database, log) = Log::peer(bench, kind, "read", 4)?;
    bench.server.prepare(|| {
        bench.runtime.block_on(log.append(100, events, 0))?;
        bench.server.execute(&database, &["VACUUM ANALYZE".to_owned()])
    })?;
    bench.runtime.block_on(Plain::open(&bench.server.url(&database), &[page]))
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

/// Reads page by page; a page's rows begin with the place that the next one is after.
async fn scan(plain: &Plain, page: &str, events: usize) -> Result<(Duration, usize)> {
    let began = Instant::now();
    let (mut position, mut count, mut bytes) = (0_i64, 0, 0);
    while count < events {
        let rows = plain.query(page, &[&position]).await?;
        for row in &rows {
            // As ours, everything is read.
            let (stream, kind, data): (String, String, String) = (row.get(1), row.get(2), row.get(3));
            bytes += stream.len() + kind.len() + data.len();
        }
        let Some(last) = rows.last() else { break };
        position = last.get(0);
        count += rows.len();
    }
    ensure!(bytes > count, "events are empty");
    Ok((began.elapsed(), count))
}
