//! (d) Appending to 1,000 streams, with the version that is expected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use pgfleet_events::{Expected, Json, NewEvent, StreamStore};

use super::emmett;
use super::logs::{EMMETT, EMMETT_PREPARED, Kind, LIMIT, Log, MESSAGE_DB};
use super::{Bench, DATA, store};
use crate::report::Report;

const PEERS: [&Kind; 3] = [&EMMETT, &EMMETT_PREPARED, &MESSAGE_DB];

pub(super) const STREAMS: usize = 1_000;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, runtime } = bench;
    for (batch, writers, events, goal) in [(100, 4, 40_000, 1.429), (1, 8, 6_000, 1.333)] {
        let events = options.times(events) / (batch * writers) * batch * writers;
        let name = format!("append_{batch}");
        let ours = store::ours(bench, &name)?;
        let limit = Log::limit(bench, &name, writers)?;
        let mut others = vec![limit];
        for kind in PEERS {
            others.push(Log::peer(bench, kind, &name, writers)?.1);
        }
        let mut client = emmett::Client::start(bench, &name)?;
        let mut times = vec![Vec::new(); 2 + others.len()];
        for round in 0..=options.rounds {
            for place in 0..times.len() {
                let who = (round + place) % times.len();
                server.execute("postgres", &["CHECKPOINT".to_owned()])?;
                let took = match who {
                    0 => runtime.block_on(append(&ours, writers, batch, events, round))?,
                    _ if who <= others.len() => runtime.block_on(others[who - 1].append(batch, events, round))?,
                    _ => client.append(bench, (batch, writers), events, round)?,
                };
                if round > 0 {
                    times[who].push(took);
                }
            }
        }
        drop(client);
        let each = u32::try_from(events)?;
        let case = format!("(d) append with expected version, batch {batch}, {writers} writers");
        report.compare_each(&case, ("", &times[0]), (LIMIT.name, &times[1]), each, Some(goal));
        for (kind, times_of_peer) in PEERS.into_iter().zip(&times[2..]) {
            report.compare_each(&case, ("", &times[0]), (kind.name, times_of_peer), each, None);
        }
        let of_client = times.last().map_or(&[][..], Vec::as_slice);
        report.compare_each(&case, ("", &times[0]), (emmett::NAME, of_client), each, (batch == 100).then_some(0.333));
        if batch == 1 {
            let mut together = Vec::new();
            for round in 0..=options.rounds {
                server.execute("postgres", &["CHECKPOINT".to_owned()])?;
                let took = runtime.block_on(append(&ours, 64, 1, events / 64 * 64, round + 1_000))?;
                if round > 0 {
                    together.push(took);
                }
            }
            let case = "(d) append with expected version, 64 tasks of one process at once";
            report.compare_each(case, ("", &together), ("limit: INSERT, 8 writers", &times[1]), each, Some(0.5));
        }
    }
    Ok(())
}

/// Each writer has streams of its own and goes round in them.
pub(super) async fn append(
    store: &Arc<impl StreamStore + 'static>,
    writers: usize,
    batch: usize,
    events: usize,
    round: usize,
) -> Result<Duration> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let streams = STREAMS / writers;
                for number in 0..events / writers / batch {
                    let stream = format!("order-{round}-{writer}-{}", number % streams);
                    let version = (number / streams * batch) as u64;
                    let new = (0..batch).map(|_| NewEvent::new("Booked", Json::trusted(DATA))).collect();
                    store.append(&stream, Expected::Exact(version), new).await?;
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
