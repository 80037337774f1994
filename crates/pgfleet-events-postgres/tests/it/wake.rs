//! Readers in one process, of what another one appends.

use std::time::{Duration, Instant};

use pgfleet_events::{Expected, Filter, NewEvent, Position, StreamStore as _};
use pgfleet_events_postgres::{Options, Store};
use serde_json::json;

use crate::place::{Place, open_with, until};
use crate::support::column;

/// Sessions that listen: each holds a lock, shared with the others.
const LISTENERS: &str = "FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted \
                         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

async fn append(store: &Store) {
    store.append("s", Expected::Any, vec![NewEvent::of("Counted", &json!({})).unwrap()]).await.unwrap();
}

/// A reader that hardly ever looks by itself.
fn patient(place: &Place) -> Store {
    open_with(&place.database.url(), Options { poll: Duration::from_hours(1), ..Options::default() })
}

/// Reads and waits until so many events have come behind a position.
async fn read(store: Store, mut after: Position, mut count: usize) -> Position {
    while count > 0 {
        let page = store.read_all(after, 10, &Filter::default()).await.unwrap();
        count -= page.events.len();
        after = page.next;
        if page.at_end && count > 0 {
            store.wait(after, Duration::from_mins(10)).await.unwrap();
        }
    }
    after
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_elsewhere_is_told_though_nobody_reads_here() {
    let place = Place::new().await;
    let reader = patient(&place);
    let connection = place.connect().await;
    let mut after = Position::START;
    // The second time its connection has been cut, and it listens on another one.
    for _ in 0..2 {
        let reading = tokio::spawn(read(reader.clone(), after, 2));
        until("it listens", async || column(&connection, &format!("SELECT count(*) {LISTENERS}")).await == ["1"]).await;
        let began = Instant::now();
        append(&place.store).await;
        append(&place.store).await;
        after = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it is told").unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        column(&connection, &format!("SELECT count(pg_terminate_backend(pid, 5000)) {LISTENERS}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_listens_no_tick_is_made() {
    let place = Place::new().await;
    let connection = place.connect().await;
    let began = Instant::now();
    let mut count = 0_u64;
    while began.elapsed() < Duration::from_millis(1_500) {
        append(&place.store).await;
        count += 1;
    }
    let ticks = "SELECT count(*) FROM event_streaming.ticks";
    assert_eq!(column(&connection, ticks).await, ["1"], "{count} appends");
    let read = place.other().read_all(Position::START, 1_000_000, &Filter::default()).await.unwrap();
    assert_eq!(read.events.len() as u64, count);
    assert_eq!(column(&connection, ticks).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_in_somebodys_transaction_is_told_when_he_says_so() {
    let place = Place::new().await;
    let reader = patient(&place);
    let reading = tokio::spawn(read(reader, Position::START, 1));
    let connection = place.connect().await;
    until("it listens", async || column(&connection, &format!("SELECT count(*) {LISTENERS}")).await == ["1"]).await;
    let pool = crate::place::pool(&place.database.url(), 1);
    let transaction = pool.begin().await.unwrap();
    let append = pgfleet_events::Append {
        stream: "s".into(),
        expected: Expected::Any,
        events: vec![NewEvent::of("Counted", &json!({})).unwrap()],
    };
    place.store.append_in(&transaction, vec![append]).await.unwrap();
    transaction.commit().await.unwrap();
    assert!(!reading.is_finished());
    place.store.wake();
    let after = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it is told").unwrap();
    assert!(after > Position::START);
}
