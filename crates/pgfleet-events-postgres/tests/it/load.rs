//! Writers whose transactions commit in another order than they number their events in, and what readers made of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgfleet_events::{Append, Expected, Filter, NewEvent, Position, StreamStore as _};
use pgfleet_events_postgres::Store;
use pgfleet_postgres::pool::Pool;
use rand::RngExt as _;
use serde_json::json;
use tokio::task::JoinSet;

use crate::place::{key, pool};

const WRITERS: usize = 32;
const STREAMS: u64 = 100;

/// How many events a run has; a long run is asked for by the environment (`cargo xtask soak`).
pub(crate) fn wanted(short: u64) -> u64 {
    std::env::var("PGFLEET_GAP_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(short)
}

/// How long so many events may take to be written or read, also on a machine that compiles meanwhile.
pub(crate) fn limit(events: u64) -> Duration {
    Duration::from_mins(1) + Duration::from_millis(3) * u32::try_from(events).unwrap()
}

/// An event and its place: what is compared. A million of them are held several times over.
pub(crate) type Seen = (Position, Arc<str>, u64);

fn events(count: u64) -> Vec<NewEvent> {
    (0..count).map(|number| NewEvent::of("Counted", &json!({ "number": number })).unwrap()).collect()
}

/// One append, in one of the ways in which transactions come about. Returns how many events were committed.
async fn write(store: &Store, pool: &Pool) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let (way, stream, count, early, late) = {
        let mut random = rand::rng();
        (
            random.random_range(0..10),
            format!("s-{}", random.random_range(0..STREAMS)),
            random.random_range(1..=8),
            random.random_range(0..4_u64),
            random.random_range(0..6_u64),
        )
    };
    if way < 3 {
        store.append(&stream, Expected::Any, events(count)).await?;
        return Ok(count);
    }
    let transaction = pool.begin().await?;
    if way < 7 {
        // The transaction has its id long before it draws a seq.
        transaction.query("SELECT pg_current_xact_id()", &[]).await?;
        tokio::time::sleep(Duration::from_millis(early)).await;
    }
    if way == 5 {
        transaction.batch("SAVEPOINT a").await?;
    }
    let append = Append { stream: stream.into(), expected: Expected::Any, events: events(count) };
    store.append_in(&transaction, vec![append]).await?;
    tokio::time::sleep(Duration::from_millis(late)).await;
    match way {
        5 => transaction.batch("RELEASE a").await?,
        9 => {
            transaction.rollback().await?;
            return Ok(0);
        }
        _ => {}
    }
    transaction.commit().await?;
    store.wake();
    Ok(count)
}

/// Writers at work until they are told to stop.
pub(crate) struct Load {
    writers: JoinSet<Result<(), String>>,
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn start(store: &Store, url: &str) -> Self {
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let pool = pool(url, WRITERS);
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (store, pool, written, stop) = (store.clone(), pool.clone(), Arc::clone(&written), Arc::clone(&stop));
            writers.spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    let count = write(&store, &pool).await.map_err(|error| format!("{error}: {error:?}"))?;
                    written.fetch_add(count, Ordering::AcqRel);
                }
                Ok(())
            });
        }
        Self { writers, written, stop }
    }

    /// Waits until so many events are committed.
    pub(crate) async fn reaches(&self, events: u64) {
        let began = Instant::now();
        while self.written.load(Ordering::Acquire) < events {
            assert!(
                began.elapsed() < limit(events),
                "{} of {events} are written",
                self.written.load(Ordering::Acquire)
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends the writers, each after its transaction. Returns how many events were committed.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        for ended in self.writers.join_all().await {
            ended.unwrap();
        }
        self.written.load(Ordering::Acquire)
    }

    /// Ends writers whose server is gone.
    pub(crate) async fn give_up(mut self) {
        self.writers.shutdown().await;
    }
}

/// A reader that goes on from where it is.
pub(crate) struct Reader {
    store: Store,
    batch: usize,
    names: HashSet<Arc<str>>,
    pub(crate) next: Position,
    pub(crate) seen: Vec<Seen>,
}

impl Reader {
    pub(crate) fn new(store: Store, batch: usize) -> Self {
        Self::from(Position::START, store, batch)
    }

    pub(crate) fn from(next: Position, store: Store, batch: usize) -> Self {
        Self { store, batch, names: HashSet::new(), next, seen: Vec::new() }
    }

    /// Reads once; says whether it is at the end.
    async fn step(&mut self) -> bool {
        let page = self.store.read_all(self.next, self.batch, &Filter::default()).await.unwrap();
        assert!(page.events.len() <= self.batch);
        assert!(page.events.iter().all(|event| event.position.unwrap() <= page.next), "before the next position");
        for event in &page.events {
            let (position, stream, version) = key(event);
            let name = self.names.get(&stream).cloned().unwrap_or_else(|| {
                self.names.insert(Arc::clone(&stream));
                stream
            });
            self.seen.push((position, name, version));
        }
        self.next = page.next;
        page.at_end
    }

    /// Reads to the end; goes on until `done` and there is nothing more.
    pub(crate) async fn follow(&mut self, done: &AtomicBool) {
        loop {
            let was_done = done.load(Ordering::Acquire);
            if self.step().await {
                if was_done {
                    return;
                }
                self.store.wait(self.next, Duration::from_millis(500)).await.unwrap();
            }
        }
    }

    /// Reads until it has seen so many.
    pub(crate) async fn read(&mut self, events: u64) {
        while (self.seen.len() as u64) < events {
            if self.step().await {
                self.store.wait(self.next, Duration::from_millis(500)).await.unwrap();
            }
        }
    }

    pub(crate) async fn read_to_the_end(&mut self) {
        while !self.step().await {}
    }
}

/// Each event once, in order.
pub(crate) fn check(seen: &[Seen], committed: u64, reader: &str) {
    let mut versions: HashMap<&str, u64> = HashMap::new();
    for (_, stream, version) in seen {
        let last = versions.entry(stream).or_default();
        assert_eq!(*version, *last + 1, "{reader}: stream {stream} in order");
        *last = *version;
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "{reader}: positions grow");
    assert_eq!(seen.len() as u64, committed, "{reader}: each event once");
}

/// That two readers saw the same, without printing a million events when they did not.
pub(crate) fn same<'a>(
    first: impl IntoIterator<Item = &'a Seen>,
    second: impl IntoIterator<Item = &'a Seen>,
    readers: &str,
) {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    for place in 0.. {
        let pair = (first.next(), second.next());
        assert_eq!(pair.0, pair.1, "{readers}: at place {place}");
        if pair.0.is_none() {
            return;
        }
    }
}

/// The largest that this process has been, in megabytes; 0 where the system does not say, since it is only shown.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1_000
}
