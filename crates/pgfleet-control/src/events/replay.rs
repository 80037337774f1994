//! Having events handled again.

use std::sync::Arc;

use pgfleet_events::replay::{self, Progress, ReplayHandle, Start, Target};
use pgfleet_events::{ConsumerStore, QueueStore, StreamStore};
use pgfleet_migrate::options::Stop;
use serde::Serialize;

use super::failed::failed;
use super::read::Reading;
use crate::error::Error;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// How many events.
    pub events: u64,
    /// From where another replay goes on: a version of the stream, or a position of all; none where nothing was read.
    pub next: Option<String>,
}

impl Replay {
    /// Puts the events that there are when it begins into the queue, in their order, with their stream as the key;
    /// `progress` is told how far it is, each time that it has gone on.
    ///
    /// One that is stopped ends behind what it was putting in. A store that is away for a while is waited for, once it was
    /// there.
    ///
    /// # Errors
    ///
    /// What cannot be read so; what the store fails with, or the queue refuses.
    pub async fn run<S: StreamStore + QueueStore + 'static>(
        &self,
        store: &Arc<S>,
        stop: &Stop,
        progress: &(dyn Fn(&Progress) + Send + Sync),
    ) -> Result<Replayed, Error> {
        // A store that cannot be reached at all is an error, and not waited for.
        store.head().await.map_err(|error| failed(&error))?;
        let target = Target::Queue { store: store.clone(), queue: self.queue.as_str().into() };
        let mut replay = replay::Replay::new(store.clone(), self.reading.source(), self.reading.start(), target)
            .limit(self.reading.limit.unwrap_or(u64::MAX));
        if let Some(rate) = self.rate {
            replay = replay.rate(rate);
        }
        let handle = replay.handle();
        let (mut running, mut cancelled) = (std::pin::pin!(replay.run()), false);
        let mut watching = std::pin::pin!(watch(&handle, progress));
        let done = loop {
            tokio::select! {
                biased;
                () = stop.asked(), if !cancelled => {
                    cancelled = true;
                    handle.cancel();
                }
                () = &mut watching => {}
                done = &mut running => break done.map_err(|error| failed(&error))?,
            }
        };
        let next = match done.place {
            Start::Version(version) => Some(version.to_string()),
            Start::Position(position) => Some(position.to_string()),
            Start::Beginning | Start::End | Start::Time(_) => None,
        };
        Ok(Replayed { events: done.events, next })
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
        let position = reading.start().position(store).await.map_err(|error| failed(&error))?;
        store.reset(group, position).await.map_err(|error| failed(&error))?;
        Ok(position.to_string())
    }
}

/// Tells of each step that a replay has taken, and never ends.
async fn watch(handle: &ReplayHandle, progress: &(dyn Fn(&Progress) + Send + Sync)) {
    let mut told = 0;
    loop {
        let now = handle.until(|progress| progress.events > told).await;
        if now.events == told {
            // The replay is gone.
            return std::future::pending().await;
        }
        told = now.events;
        progress(&now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use pgfleet_events::{Clock, Expected, Json, Memory, NewEvent};

    use super::super::read::Begin;
    use super::*;

    async fn filled(clock: &Clock, events: usize) -> Arc<Memory> {
        let store = Arc::new(Memory::with_clock(clock.clone()));
        for number in 0..events {
            let stream = if number % 2 == 0 { "a" } else { "b" };
            store.append(stream, Expected::Any, vec![NewEvent::new("Made", Json::trusted("{}"))]).await.unwrap();
            clock.advance(Duration::from_secs(1));
        }
        store
    }

    fn replay(reading: Reading) -> Replay {
        Replay { reading, queue: "again".to_owned(), rate: None }
    }

    #[tokio::test]
    async fn a_replay_begins_at_a_version_a_position_or_a_time_and_says_where_to_go_on() {
        let clock = Clock::still();
        let store = filled(&clock, 10).await;
        let run = async |reading: Reading| {
            let replayed = replay(reading).run(&store, &Stop::default(), &|_| ()).await.unwrap();
            assert_eq!(store.purge("again", false).await.unwrap(), replayed.events);
            replayed
        };
        let of_a = || Reading { stream: Some("a".to_owned()), ..Reading::default() };
        assert_eq!(run(of_a()).await, Replayed { events: 5, next: Some("6".to_owned()) });
        let from = Reading { begin: Some(Begin::Version(3)), limit: Some(2), ..of_a() };
        assert_eq!(run(from).await, Replayed { events: 2, next: Some("5".to_owned()) });
        let some = run(Reading { limit: Some(4), ..Reading::default() }).await;
        let behind = some.next.unwrap().parse().unwrap();
        assert_eq!(run(Reading { begin: Some(Begin::Position(behind)), ..Reading::default() }).await.events, 6);
        let since = pgfleet_events::Moment::from_micros(clock.now().micros() - 2_500_000);
        assert_eq!(run(Reading { since: Some(since), ..Reading::default() }).await.events, 2);
        assert_eq!(run(Reading { kinds: vec!["None".to_owned()], ..Reading::default() }).await.events, 0);
    }

    #[tokio::test]
    async fn the_rate_is_kept_progress_is_told_and_who_stops_it_goes_on_from_there() {
        let store = filled(&Clock::still(), 40).await;
        let (stop, steps) = (Stop::default(), Mutex::new(Vec::new()));
        let slow = Replay { rate: Some(20), ..replay(Reading { stream: Some("a".to_owned()), ..Reading::default() }) };
        let began = std::time::Instant::now();
        let told = |progress: &Progress| {
            steps.lock().unwrap().push((progress.events, progress.total));
            if progress.events >= 10 {
                stop.ask();
            }
        };
        let part = slow.run(&store, &stop, &told).await.unwrap();
        assert!(part.events >= 10 && part.events < 20, "{part:?}");
        assert!(began.elapsed() >= Duration::from_millis(350), "twenty a second: {:?}", began.elapsed());
        let steps = steps.into_inner().unwrap();
        assert!(steps.len() > 1 && steps.iter().all(|(_, total)| *total == Some(20)), "{steps:?}");
        let next = part.next.unwrap().parse().unwrap();
        let rest = Reading { begin: Some(Begin::Version(next)), ..slow.reading.clone() };
        let rest = replay(rest).run(&store, &Stop::default(), &|_| ()).await.unwrap();
        assert_eq!(part.events + rest.events, 20);
        assert_eq!(store.purge("again", false).await.unwrap(), 20, "each once");
    }
}
