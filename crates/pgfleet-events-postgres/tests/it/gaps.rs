//! Nothing is lost, nothing comes twice, nobody waits, and the order is the same for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgfleet_events::{Append, Event, Expected, Filter, NewEvent, Position, StreamStore as _};
use pgfleet_events_postgres::Store;
use pgfleet_local::testing::TestServer;
use pgfleet_postgres::pool::Pool;
use rand::RngExt as _;
use serde_json::json;

use crate::place::{Place, key, pool};

const WRITERS: u64 = 32;
const STREAMS: u64 = 100;

fn events(count: u64) -> Vec<NewEvent> {
    (0..count).map(|number| NewEvent::of("Counted", &json!({ "number": number })).unwrap()).collect()
}

/// How many events a run has; a long run is asked for by the environment.
fn wanted() -> u64 {
    std::env::var("PGFLEET_GAP_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000)
}

/// One append, in one of the ways in which transactions come about. Returns how many events were committed.
async fn write(store: &Store, pool: &Pool) -> u64 {
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
        return store.append(&stream, Expected::Any, events(count)).await.map_or(0, |_| count);
    }
    let transaction = pool.begin().await.unwrap();
    if way < 7 {
        // The transaction has its id long before it draws a seq.
        transaction.query("SELECT pg_current_xact_id()", &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(early)).await;
    }
    if way == 5 {
        transaction.batch("SAVEPOINT a").await.unwrap();
    }
    let append = Append { stream: stream.into(), expected: Expected::Any, events: events(count) };
    store.append_in(&transaction, vec![append]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(late)).await;
    match way {
        5 => transaction.batch("RELEASE a").await.unwrap(),
        9 => {
            transaction.rollback().await.unwrap();
            return 0;
        }
        _ => {}
    }
    transaction.commit().await.unwrap();
    store.wake();
    count
}

/// Reads to the end in steps of so many; goes on until `done` and there is nothing more.
async fn read(store: Store, batch: usize, done: Arc<AtomicBool>) -> Vec<Event> {
    let (mut read, mut after) = (Vec::new(), Position::START);
    loop {
        let was_done = done.load(Ordering::Acquire);
        let page = store.read_all(after, batch, &Filter::default()).await.unwrap();
        assert!(page.events.len() <= batch);
        assert!(page.events.iter().all(|event| event.position.unwrap() <= page.next), "before the next position");
        read.extend(page.events);
        after = page.next;
        if page.at_end {
            if was_done {
                return read;
            }
            store.wait(after, Duration::from_millis(500)).await.unwrap();
        }
    }
}

fn check(read: &[Event], committed: u64, reader: &str) {
    assert_eq!(read.len() as u64, committed, "{reader}: each event once");
    let mut versions: HashMap<&str, u64> = HashMap::new();
    for event in read {
        let version = versions.entry(&event.stream).or_default();
        assert_eq!(event.version, *version + 1, "{reader}: stream {} in order", event.stream);
        *version = event.version;
    }
    assert!(read.windows(2).all(|pair| pair[0].position < pair[1].position), "{reader}: positions grow");
}

async fn every_reader_sees_the_same(server: &TestServer, wanted: u64) {
    let place = Place::on(server).await;
    let elsewhere = server.database().await;
    // Strangers: transactions that have an id and do nothing for as long as the test takes, here and in another database.
    let here = pool(&place.database.url(), 2);
    let there = pool(&elsewhere.url(), 2);
    let strangers = [here.begin().await.unwrap(), there.begin().await.unwrap()];
    for stranger in &strangers {
        stranger.query("SELECT pg_current_xact_id()", &[]).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let live: Vec<_> = [1, 1_000, 1_000_000]
        .into_iter()
        .map(|batch| (batch, tokio::spawn(read(place.other(), batch, Arc::clone(&done)))))
        .collect();
    let committed = Arc::new(AtomicU64::new(0));
    let writing = pool(&place.database.url(), 32);
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (store, pool, committed) = (place.store.clone(), writing.clone(), Arc::clone(&committed));
            tokio::spawn(async move {
                while committed.load(Ordering::Acquire) < wanted {
                    let count = write(&store, &pool).await;
                    committed.fetch_add(count, Ordering::AcqRel);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Release);
    let committed = committed.load(Ordering::Acquire);
    let mut orders = Vec::new();
    for (batch, reader) in live {
        let read = tokio::time::timeout(Duration::from_mins(1), reader).await.expect("nobody waits").unwrap();
        check(&read, committed, &format!("live, {batch} at once"));
        orders.push(read);
    }
    let began = Instant::now();
    for batch in [1_000, 1_000_000, 7] {
        let read = read(place.other(), batch, Arc::clone(&done)).await;
        check(&read, committed, &format!("later, {batch} at once"));
        orders.push(read);
    }
    assert!(began.elapsed() < Duration::from_mins(1), "reading later takes no longer than that");
    let first: Vec<_> = orders[0].iter().map(key).collect();
    for other in &orders[1..] {
        assert!(other.iter().map(key).eq(first.iter().cloned()), "all read in the same order");
    }
    // The load was one that matters: what was committed late is there.
    let late: i64 = place
        .connect()
        .await
        .query("SELECT coalesce(sum(cardinality(late)), 0)::bigint FROM event_streaming.ticks", &[])
        .await
        .unwrap()[0]
        .get(0);
    assert!(late > 0, "some events were committed late");
    for stranger in strangers {
        stranger.rollback().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_sees_each_event_once_in_the_same_order() {
    every_reader_sees_the_same(&TestServer::shared().await, wanted()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_sees_each_event_once_on_version_18() {
    every_reader_sees_the_same(&TestServer::shared_version(18).await, wanted().min(5_000)).await;
}
