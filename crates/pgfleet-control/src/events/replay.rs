//! Having events handled again.

use std::time::{Duration, Instant};

use pgfleet_events::{ConsumerStore, Event, NewItem, QueueStore, StreamStore};
use pgfleet_migrate::options::Stop;
use serde::Serialize;

use super::failed::failed;
use super::read::{Begin, Reading};
use crate::error::Error;

/// How many messages are put into a queue at once.
const BATCH: usize = 500;

/// What is replayed, and to where.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The events.
    pub reading: Reading,
    /// The queue that they are put into.
    pub queue: String,
    /// At most so many a second.
    pub rate: Option<u32>,
}

/// What was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Replayed {
    /// How many events.
    pub events: u64,
}

impl Replay {
    /// Puts the events into the queue, in their order, with their stream as the key; `progress` is told how many were.
    ///
    /// Events are read and put in batch by batch; one that was stopped in between has put in the first of them.
    ///
    /// # Errors
    ///
    /// As [`Reading::run`]; what the queue refuses.
    pub async fn run<S: StreamStore + QueueStore>(
        &self,
        store: &S,
        stop: &Stop,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Replayed, Error> {
        let began = Instant::now();
        let mut replayed = Replayed::default();
        let mut reading = Reading { follow: false, ..self.reading.clone() };
        while !stop.is_asked() {
            let left = self.reading.limit.map_or(u64::MAX, |limit| limit - replayed.events);
            let batch = self.rate.map_or(BATCH, |rate| (rate as usize).clamp(1, BATCH));
            reading.limit = Some(left.min(batch as u64));
            let (mut items, mut last) = (Vec::new(), None);
            reading
                .run(store, stop, &mut |event| {
                    items.push(item(event));
                    last = Some((event.version, event.position));
                    Ok(())
                })
                .await?;
            let Some((version, position)) = last else { break };
            replayed.events += items.len() as u64;
            store.enqueue(&self.queue, items).await.map_err(|error| failed(&error))?;
            progress(replayed.events);
            reading.begin = match (&reading.stream, reading.begin, position) {
                (Some(_), None | Some(Begin::Version(_)), _) => Some(Begin::Version(version + 1)),
                (_, _, Some(position)) => Some(Begin::Position(position)),
                (_, begin, None) => begin,
            };
            if let Some(rate) = self.rate {
                let due = Duration::from_secs(replayed.events) / rate.max(1);
                let wait = due.saturating_sub(began.elapsed());
                if !wait.is_zero() && stop.sleep(wait).await {
                    break;
                }
            }
        }
        Ok(replayed)
    }

    /// Has a group read again from where the reading begins.
    ///
    /// # Errors
    ///
    /// There is no such group, or the store fails.
    pub async fn reset_group<S: StreamStore + ConsumerStore>(
        store: &S,
        group: &str,
        reading: &Reading,
    ) -> Result<String, Error> {
        let position = match (reading.begin, reading.since) {
            (Some(Begin::Position(position)), _) => position,
            (_, Some(since)) => store.position_at(since).await.map_err(|error| failed(&error))?,
            _ => pgfleet_events::Position::START,
        };
        store.reset(group, position).await.map_err(|error| failed(&error))?;
        Ok(position.to_string())
    }
}

/// An event as a message; what is said about it stays with it.
fn item(event: &Event) -> NewItem {
    let mut item = NewItem::new(event.kind.clone(), event.data.clone()).key(event.stream.clone());
    item.meta = event.meta.clone();
    item.meta.causation_id.get_or_insert_with(|| event.id.to_string().into());
    item
}
