//! Ticks that are put together: whoever reads sees what he saw.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgfleet_events::{
    Append, ConsumerStore as _, Direction, Event, Expected, Filter, Moment, Position, StreamStore as _,
};
use pgfleet_events_postgres::{KeeperOptions, Store};
use pgfleet_local::testing::OwnServer;
use pgfleet_postgres::{Address, Connection, Purpose, connect};
use rand::RngExt as _;

use super::{events, fill, quick};
use crate::place::{Place, key, migrate, open, pool, until};
use crate::support::column;

type Key = (Position, Arc<str>, u64);

fn keys(events: &[Event]) -> Vec<Key> {
    events.iter().map(key).collect()
}

async fn read(store: &Store, mut after: Position, batch: usize) -> Vec<Event> {
    let mut read = Vec::new();
    loop {
        let page = store.read_all(after, batch, &Filter::default()).await.unwrap();
        read.extend(page.events);
        after = page.next;
        if page.at_end {
            return read;
        }
    }
}

/// Appends in small transactions, some of which are committed late, with a reader in between who makes ticks.
async fn history(store: &Store, url: &str, count: usize) -> Vec<Event> {
    let transactions = pool(url, 8);
    let mut open = Vec::new();
    let (mut all, mut after) = (Vec::new(), Position::START);
    let mut last = None;
    while all.len() < count {
        let (way, stream, many, batch) = {
            let mut random = rand::rng();
            (
                random.random_range(0..20),
                random.random_range(0..12),
                random.random_range(1..4),
                random.random_range(1..30),
            )
        };
        if way == 0 && open.len() < 4 {
            let transaction = transactions.begin().await.unwrap();
            // It has its number, and perhaps its place, long before it is committed.
            transaction.query("SELECT pg_current_xact_id()", &[]).await.unwrap();
            let append = Append {
                stream: format!("late-{}", uuid::Uuid::now_v7()).into(),
                expected: Expected::Any,
                events: events(many),
            };
            store.append_in(&transaction, vec![append]).await.unwrap();
            open.push(transaction);
        } else if way == 1 && !open.is_empty() {
            open.remove(0).commit().await.unwrap();
            store.wake();
        } else {
            fill(store, &format!("s-{stream}"), many).await;
        }
        let page = store.read_all(after, batch, &Filter::default()).await.unwrap();
        after = page.next;
        last = page.events.last().map(key).or(last);
        all.extend(page.events);
    }
    for transaction in open {
        transaction.rollback().await.unwrap();
    }
    all.extend(read(store, after, 100).await);
    all
}

async fn merge(connection: &Connection, length: usize, rows: usize) -> u64 {
    let sql = format!("SELECT merged, more FROM event_streaming.merge_ticks('0', {length}, {rows})");
    let mut merged = 0;
    loop {
        let rows = connection.simple(&sql).await.unwrap();
        merged += rows[0].get(0).unwrap().parse::<u64>().unwrap();
        if rows[0].get(1) == Some("f") {
            return merged;
        }
    }
}

/// Looks whether all that can be asked is answered as before.
async fn check(store: &Store, all: &[Event], kept: impl Fn(&Event) -> bool, pages: &[usize]) {
    let expected: Vec<Key> = all.iter().filter(|event| kept(event)).map(key).collect();
    for batch in [1, 7, 1_000] {
        assert_eq!(keys(&read(store, Position::START, batch).await), expected, "{batch} at once");
    }
    let filter = Filter { stream_prefix: Some("late".into()), ..Filter::default() };
    let late = store.read_all(Position::START, 1_000_000, &filter).await.unwrap();
    let of_late: Vec<Key> = expected.iter().filter(|one| one.1.starts_with("late")).cloned().collect();
    assert_eq!(keys(&late.events), of_late);
    // From each position that somebody may have kept, also of an event that is gone.
    for (index, event) in all.iter().enumerate() {
        let after = event.position.unwrap();
        let rest: Vec<Key> = all[index + 1..].iter().filter(|event| kept(event)).map(key).collect();
        for batch in pages {
            let page = store.read_all(after, *batch, &Filter::default()).await.unwrap();
            assert_eq!(keys(&page.events), rest[..rest.len().min(*batch)], "behind {after:?}, {batch} at once");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_that_are_put_together_are_read_as_before() {
    for (length, rows) in [(2, 50), (7, 20), (1_000, 5_000)] {
        let place = Place::new().await;
        let connection = place.connect().await;
        let all = history(&place.store, &place.database.url(), 300).await;
        let store = &place.store;
        let mut asked = Vec::new();
        for event in all.iter().step_by(17) {
            let time = Moment::from_micros(event.at.micros());
            asked.push((time, store.position_at(time).await.unwrap()));
        }
        let dense = "SELECT event_streaming.dense_position(t.tick, s) FROM event_streaming.ticks t, \
                     generate_series(0, (SELECT max(hi_seq) FROM event_streaming.ticks), 13) s ORDER BY 1";
        let dense = column(&connection, &format!("CREATE TABLE asked AS SELECT t.tick, s, event_streaming.dense_position(t.tick, s) AS was \
            FROM event_streaming.ticks t, generate_series(0, (SELECT max(hi_seq) FROM event_streaming.ticks), 13) s; {dense}")).await.len();
        assert!(dense > 0);
        let late = column(&connection, "SELECT sum(cardinality(late)) FROM event_streaming.ticks").await;
        assert_ne!(late, ["0"], "some were committed late");
        let merged = merge(&connection, length, rows).await;
        let ticks = column(&connection, "SELECT sum(run_length) - count(*) FROM event_streaming.ticks").await;
        assert_eq!(ticks, [merged.to_string()]);
        assert!(merged > 20, "{merged} rows less");
        assert_eq!(merge(&connection, length, rows).await, 0, "there is nothing more to do");
        // One who has kept ticks as they were, and one who has not.
        check(store, &all, |_| true, &[1]).await;
        let other = place.other();
        check(&other, &all, |_| true, &[1, 7, 1_000]).await;
        for (time, position) in asked {
            assert_eq!(other.position_at(time).await.unwrap(), position);
        }
        let differ = "SELECT count(*) FROM asked WHERE was <> event_streaming.dense_position(tick, s)";
        assert_eq!(column(&connection, differ).await, ["0"]);
        // A stream's own reader is told the same positions.
        let streams: HashSet<_> = all.iter().map(|event| Arc::clone(&event.stream)).collect();
        for stream in streams {
            let read = other.read(&stream, 0, Direction::Forward, 1_000).await.unwrap();
            let of_all: Vec<Key> = all.iter().filter(|event| event.stream == stream).map(key).collect();
            assert_eq!(keys(&read), of_all);
        }
        // It goes on behind them.
        fill(&other, "more", 3).await;
        let more = read(&other, all.last().unwrap().position.unwrap(), 2).await;
        assert_eq!(more.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_whose_events_are_gone_go_with_them() {
    let place = Place::new().await;
    let connection = place.connect().await;
    let all = history(&place.store, &place.database.url(), 250).await;
    let store = &place.store;
    let middle = all[all.len() / 2].position.unwrap();
    store.lease("group", "m", 1, middle, Duration::from_mins(1)).await.unwrap();
    merge(&connection, 5, 5_000).await;
    for stream in 0..12 {
        // Of most streams all, of some the first half.
        let stream = format!("s-{stream}");
        let Some(info) = store.info(&stream).await.unwrap() else { continue };
        let before = if stream.ends_with('3') { info.last / 2 } else { u64::MAX };
        store.truncate(&stream, before).await.unwrap();
    }
    let mut left = HashSet::new();
    for event in read(&place.other(), Position::START, 1_000).await {
        left.insert((event.stream, event.version));
    }
    let before: u64 = column(&connection, "SELECT count(*) FROM event_streaming.ticks").await[0].parse().unwrap();
    let keeper = store.keep(KeeperOptions { merge_ticks: None, ..quick() });
    until("empty ticks are gone", async || keeper.stats().rounds > 1).await;
    let dropped = keeper.stop().await.dropped_ticks;
    assert!(dropped > 10 && dropped < before, "{dropped} of {before}");
    let kept = |event: &Event| left.contains(&(Arc::clone(&event.stream), event.version));
    check(store, &all, kept, &[3]).await;
    check(&place.other(), &all, kept, &[1, 7, 1_000]).await;
    // What is left behind a position is never more than what was there.
    let lag = place.other().offsets(Some("group")).await.unwrap()[0].lag.unwrap();
    let behind = all.iter().filter(|event| event.position.unwrap() > middle).count() as u64;
    let rest = all.iter().filter(|event| event.position.unwrap() > middle && kept(event)).count() as u64;
    assert!(lag <= behind && lag >= rest, "{rest} <= {lag} <= {behind}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_read_meanwhile_see_each_event_once_in_one_order() {
    let place = Place::new().await;
    let connection = place.connect().await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [1, 7, 1_000]
        .into_iter()
        .map(|batch| {
            let (store, done) = (place.other(), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut read, mut after) = (Vec::new(), Position::START);
                loop {
                    let was_done = done.load(Ordering::Acquire);
                    let page = store.read_all(after, batch, &Filter::default()).await.unwrap();
                    read.extend(page.events.iter().map(key));
                    after = page.next;
                    if page.at_end && was_done {
                        return read;
                    }
                    if page.at_end {
                        store.wait(after, Duration::from_millis(20)).await.unwrap();
                    }
                }
            })
        })
        .collect();
    let merging = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut merged = 0;
            while !done.load(Ordering::Acquire) {
                merged += merge(&connection, 9, 40).await;
                tokio::task::yield_now().await;
            }
            merged
        }
    });
    let all = history(&place.store, &place.database.url(), 800).await;
    done.store(true, Ordering::Release);
    assert!(merging.await.unwrap() > 50);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), keys(&all));
    }
    check(&place.other(), &all, |_| true, &[7]).await;
}

#[tokio::test]
async fn a_keeper_puts_together_what_is_old_enough() {
    let place = Place::new().await;
    let store = &place.store;
    for _ in 0..1_100 {
        fill(store, "s", 1).await;
        store.head().await.unwrap();
    }
    let before = keys(&read(store, Position::START, 1_000).await);
    let rows = "SELECT count(*) FROM event_streaming.ticks";
    let connection = place.connect().await;
    let patient = store.keep(quick());
    until("it has worked", async || patient.stats().rounds > 2).await;
    assert_eq!(patient.stop().await.merged_ticks, 0, "nothing is old");
    assert_eq!(column(&connection, rows).await, ["1101"]);
    let keeper = store.keep(KeeperOptions { merge_ticks: Some(Duration::ZERO), ..quick() });
    until("they are put together", async || keeper.stats().merged_ticks > 0).await;
    until("it has looked again", async || keeper.stats().rounds > 3).await;
    // A thousand are one; those behind them wait until they are as many.
    assert_eq!(keeper.stop().await.merged_ticks, 999);
    assert_eq!(column(&connection, rows).await, ["102"]);
    assert_eq!(keys(&read(&place.other(), Position::START, 1_000).await), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_that_were_put_together_outlive_a_move_to_another_cluster() {
    let (old, new) = tokio::join!(OwnServer::start(|_| {}), OwnServer::start(|_| {}));
    let (old, new) = (old.unwrap(), new.unwrap());
    let url = old.superuser_url("postgres");
    migrate(&url, "event_streaming").await;
    // Numbers of transactions that the new cluster is far from.
    let burn = pool(&url, 1);
    for _ in 0..500 {
        burn.get().await.unwrap().query("SELECT pg_current_xact_id()", &[]).await.unwrap();
    }
    let mut all = history(&open(&url), &url, 150).await;
    let session = connect(&Address::parse(&url).unwrap(), &Purpose::new("test")).await.unwrap();
    assert!(merge(&session, 6, 5_000).await > 10);
    // What no tick has yet.
    fill(&open(&url), "untold", 5).await;
    let bin = &old.running().bin_dir;
    let dump = tempfile::NamedTempFile::new().unwrap();
    assert!(Command::new(bin.join("pg_dump")).arg(&url).arg("-f").arg(dump.path()).status().unwrap().success());
    let moved = new.superuser_url("postgres");
    let mut restore = Command::new(bin.join("psql"));
    restore.args(["-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(dump.path()).arg(&moved);
    assert!(restore.status().unwrap().success());
    let store = open(&moved);
    // Somebody appends before anybody reads.
    fill(&store, "first", 4).await;
    all.extend(read(&store, all.last().unwrap().position.unwrap(), 3).await);
    for _ in 0..20 {
        fill(&store, "after", 2).await;
        all.extend(read(&store, all.last().unwrap().position.unwrap(), 3).await);
    }
    check(&open(&moved), &all, |_| true, &[7]).await;
    // What was left of the old ticks, and those of the new cluster.
    let session = connect(&Address::parse(&moved).unwrap(), &Purpose::new("test")).await.unwrap();
    session.execute_all("UPDATE event_streaming.keepers SET merged_upto = 0").await.unwrap();
    assert!(merge(&session, 6, 5_000).await > 10);
    check(&open(&moved), &all, |_| true, &[1, 7, 1_000]).await;
}
