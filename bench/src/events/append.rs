//! (d) Appending to 1,000 streams, with the version that is expected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use pgfleet_events::{Expected, Json, NewEvent, StreamStore};

use super::store::{self, Plain};
use super::{Bench, DATA};
use crate::report::Report;

const STREAMS: usize = 1_000;

/// The same columns and the same indexes, and a unique stream and version; nothing is locked or looked at before.
const LIMIT_TABLE: &str = "CREATE SEQUENCE limit_seq; CREATE TABLE limit_events (LIKE event_streaming.events INCLUDING DEFAULTS INCLUDING INDEXES)";

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, runtime } = bench;
    for (batch, writers, events, goal) in [(100, 4, 40_000, 1.429), (1, 8, 6_000, 1.333)] {
        let events = options.times(events) / (batch * writers) * batch * writers;
        let name = format!("append_{batch}");
        let ours = store::ours(bench, &name)?;
        let limit = Arc::new(runtime.block_on(Limit::open(bench, &name, writers))?);
        let mut times = vec![Vec::new(); 2];
        for round in 0..=options.rounds {
            for place in 0..2 {
                let who = (round + place) % 2;
                server.execute("postgres", &["CHECKPOINT".to_owned()])?;
                let took = runtime.block_on(async {
                    if who == 0 {
                        append(&ours, writers, batch, events, round).await
                    } else {
                        limit.append(batch, events, round).await
                    }
                })?;
                if round > 0 {
                    times[who].push(took);
                }
            }
        }
        let each = u32::try_from(events)?;
        let case = format!("(d) append with expected version, batch {batch}, {writers} writers");
        report.compare_each(&case, ("", &times[0]), ("limit: INSERT, same indexes", &times[1]), each, Some(goal));
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

struct Limit {
    plain: Vec<Arc<Plain>>,
}

const INSERT: &str = "INSERT INTO limit_events (stream, part, version, xid, seq, at, id, type, data) \
     SELECT $1, 0, $2 + o, pg_current_xact_id(), nextval('limit_seq'), clock_timestamp(), gen_random_uuid(), 'Booked', p::jsonb \
     FROM unnest($3::text[]) WITH ORDINALITY AS t (p, o)";

impl Limit {
    async fn open(bench: &Bench<'_>, database: &str, writers: usize) -> Result<Self> {
        let url = bench.server.url(database);
        Plain::open(&url, &[]).await?.client().batch_execute(LIMIT_TABLE).await?;
        let mut plain = Vec::new();
        for _ in 0..writers {
            plain.push(Arc::new(Plain::open(&url, &[INSERT]).await?));
        }
        Ok(Self { plain })
    }

    async fn append(&self, batch: usize, events: usize, round: usize) -> Result<Duration> {
        let began = Instant::now();
        let writers = self.plain.len();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let plain = self.plain[writer].clone();
                tokio::spawn(async move {
                    let streams = STREAMS / writers;
                    for number in 0..events / writers / batch {
                        let stream = format!("order-{round}-{writer}-{}", number % streams);
                        let version = i64::try_from(number / streams * batch)?;
                        plain.query(INSERT, &[&stream, &version, &vec![DATA; batch]]).await?;
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
}
