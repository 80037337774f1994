//! (g) The store in memory.

use std::time::{Duration, Instant};

use anyhow::Result;
use pgfleet_events::{Expected, Json, Memory, NewEvent, StreamStore};

use super::{Bench, DATA};
use crate::report::Report;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, runtime, .. } = bench;
    let events = options.times(1_000_000);
    let mut times = Vec::new();
    for round in 0..=options.rounds {
        let store = Memory::new();
        let data = Json::trusted(DATA);
        let took = runtime.block_on(async {
            let began = Instant::now();
            for number in 0..events {
                let new = NewEvent::new("Booked", data.clone());
                store.append(STREAMS[number % STREAMS.len()], Expected::Any, vec![new]).await?;
            }
            anyhow::Ok(began.elapsed())
        })?;
        if round > 0 {
            times.push(took);
        }
    }
    let goal = Duration::from_secs(1).mul_f64(f64::from(u32::try_from(events)?) / 1e6);
    report.time(&format!("(g) {events} appends from one task, in memory"), &times, goal);
    Ok(())
}

const STREAMS: [&str; 8] = ["order-0", "order-1", "order-2", "order-3", "order-4", "order-5", "order-6", "order-7"];
