//! The order outlives the server: crashes, a dump in another cluster, a replica that takes over.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgfleet_events::{Append, Event, Expected, Filter, NewEvent, Position, StreamStore as _};
use pgfleet_events_postgres::Store;
use pgfleet_local::StopMode;
use pgfleet_local::testing::OwnServer;
use serde_json::json;

use crate::load::{Load, Reader, check, limit, peak_memory, same, wanted};
use crate::place::{self, key, migrate, open, pool};

fn events(count: u64) -> Vec<NewEvent> {
    (0..count).map(|number| NewEvent::of("Counted", &json!({ "number": number })).unwrap()).collect()
}

async fn read_from(store: &Store, mut after: Position) -> (Vec<Event>, Position) {
    let mut read = Vec::new();
    loop {
        let page = store.read_all(after, 100, &Filter::default()).await.unwrap();
        read.extend(page.events);
        after = page.next;
        if page.at_end {
            return (read, after);
        }
    }
}

async fn fill(store: &Store, rounds: u64) {
    for round in 0..rounds {
        store.append(&format!("s-{}", round % 7), Expected::Any, events(3)).await.unwrap();
    }
}

fn keys(events: &[Event]) -> Vec<(Position, Arc<str>, u64)> {
    events.iter().map(key).collect()
}

/// Dumps a database and restores it in another one.
fn copy(bin: &Path, from: &str, to: &str) {
    let dump = tempfile::NamedTempFile::new().unwrap();
    let done = Command::new(bin.join("pg_dump")).arg(from).arg("-f").arg(dump.path()).status().unwrap();
    assert!(done.success());
    let done = Command::new(bin.join("psql"))
        .args(["-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"])
        .arg(dump.path())
        .arg(to)
        .status()
        .unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn a_reader_reads_on_after_dump_and_restore_into_another_cluster() {
    let (old, new) = tokio::join!(OwnServer::start(|_| {}), OwnServer::start(|_| {}));
    let (old, new) = (old.unwrap(), new.unwrap());
    let url = old.superuser_url("postgres");
    migrate(&url, "event_streaming").await;
    let store = open(&url);
    // Numbers of transactions that the new cluster is far from.
    let burn = pool(&url, 1);
    for _ in 0..500 {
        burn.get().await.unwrap().query("SELECT pg_current_xact_id()", &[]).await.unwrap();
    }
    let mut before = Vec::new();
    let mut after = Position::START;
    for _ in 0..5 {
        fill(&store, 8).await;
        let (read, next) = read_from(&store, after).await;
        before.extend(read);
        after = next;
    }
    // What is open while the dump is made, and what no tick has.
    let open_one = pool(&url, 1).begin().await.unwrap();
    let late = Append { stream: "late".into(), expected: Expected::Any, events: events(2) };
    store.append_in(&open_one, vec![late]).await.unwrap();
    fill(&store, 4).await;
    let (read, after_mid) = read_from(&store, after).await;
    before.extend(read);
    open_one.commit().await.unwrap();
    fill(&store, 4).await;

    let moved = new.superuser_url("postgres");
    copy(&old.running().bin_dir, &url, &moved);

    let store = open(&moved);
    // Somebody appends before anybody reads.
    fill(&store, 5).await;
    let (whole, _) = read_from(&store, Position::START).await;
    assert_eq!(keys(&whole)[..before.len()], keys(&before)[..], "the old part is as it was");
    let (rest, end) = read_from(&store, after_mid).await;
    assert_eq!(keys(&rest), keys(&whole)[before.len()..], "a stored position goes on exactly");
    assert_eq!(rest.len(), 2 + 4 * 3 + 5 * 3);
    fill(&store, 9).await;
    let (more, _) = read_from(&store, end).await;
    assert_eq!(more.len(), 27);
    let (again, _) = read_from(&open(&moved), Position::START).await;
    assert_eq!(keys(&again), [keys(&whole), keys(&more)].concat());
    let mut versions = std::collections::HashMap::new();
    for event in &again {
        let version = versions.entry(Arc::clone(&event.stream)).or_insert(0);
        assert_eq!(event.version, *version + 1);
        *version += 1;
    }
}

#[tokio::test]
async fn a_reader_reads_on_when_a_replica_takes_over() {
    let primary = OwnServer::start(|_| {}).await.unwrap();
    let url = primary.superuser_url("postgres");
    migrate(&url, "event_streaming").await;
    let store = open(&url);
    fill(&store, 10).await;
    let (before, after) = read_from(&store, Position::START).await;
    let replica = primary.replica().await.unwrap();
    fill(&store, 10).await;
    let (read, at_failover) = read_from(&store, after).await;
    replica.caught_up().await.unwrap();
    let there = open(&replica.superuser_url("postgres"));
    let (standby, _) = read_from(&there, Position::START).await;
    assert_eq!(keys(&standby), [keys(&before), keys(&read)].concat(), "a replica is read, up to its last tick");
    fill(&store, 5).await;
    replica.caught_up().await.unwrap();
    primary.stop(StopMode::Immediate).unwrap();
    replica.promote().await.unwrap();
    let store = open(&replica.superuser_url("postgres"));
    fill(&store, 5).await;
    let (more, _) = read_from(&store, at_failover).await;
    assert_eq!(more.len(), 30);
    let (whole, _) = read_from(&store, Position::START).await;
    assert_eq!(keys(&whole), [keys(&before), keys(&read), keys(&more)].concat());
    // What the lost primary may have given out beside is not given out again.
    assert!(more[0].position.unwrap().tick > at_failover.tick + 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let mut server = OwnServer::start(|options| options.durable = true).await.unwrap();
    let url = server.superuser_url("postgres");
    migrate(&url, "event_streaming").await;
    let store = open(&url);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let stream = format!("w-{writer}");
                let mut acknowledged = 0;
                while !stop.load(Ordering::Acquire) {
                    match store.append(&stream, Expected::Exact(acknowledged), events(2)).await {
                        Ok(appended) => acknowledged = appended.last,
                        Err(_) => break,
                    }
                }
                (stream, acknowledged)
            })
        })
        .collect();
    place::until("the writers are at work", async || {
        store.info("w-3").await.unwrap().is_some_and(|info| info.last > 40)
    })
    .await;
    server.stop(StopMode::Immediate).unwrap();
    stop.store(true, Ordering::Release);
    server.ensure_running().unwrap();
    let store = open(&server.superuser_url("postgres"));
    let mut total = 0;
    for writer in writers {
        let (stream, acknowledged) = writer.await.unwrap();
        let last = store.info(&stream).await.unwrap().map_or(0, |info| info.last);
        // One more may be there whose answer was lost.
        assert!(
            last == acknowledged || last == acknowledged + 2,
            "{stream}: {acknowledged} acknowledged, {last} there"
        );
        total += last;
    }
    let (read, _) = read_from(&store, Position::START).await;
    assert_eq!(read.len() as u64, total);
}

/// What a reader that has seen `before` sees afterwards, by itself and from the start, while others write.
async fn goes_on(before: &Reader, url: &str, more: u64, what: &str) {
    let stored = place::count(url).await;
    assert!(stored >= before.seen.len() as u64, "{stored} events are there, {} were read", before.seen.len());
    let store = open(url);
    let mut rest = Reader::from(before.next, open(url), 1_000);
    let load = Load::start(&store, url);
    // It goes on while others write.
    tokio::time::timeout(limit(stored), rest.read(stored - before.seen.len() as u64)).await.expect("nobody waits");
    load.reaches(more).await;
    let all = stored + load.stop().await;
    rest.read_to_the_end().await;
    for batch in [1_000, 100_000] {
        let mut whole = Reader::new(open(url), batch);
        tokio::time::timeout(limit(all), whole.read_to_the_end()).await.expect("nobody waits");
        check(&whole.seen, all, what);
        same(before.seen.iter().chain(&rest.seen), &whole.seen, what);
    }
    eprintln!("{what}: {} events read before, {} afterwards, {} MB", before.seen.len(), rest.seen.len(), peak_memory());
}

/// A reader in the middle of what is being written, which is told to stop there.
async fn in_the_middle(url: &str, wanted: u64) -> (Load, Reader) {
    migrate(url, "event_streaming").await;
    let load = Load::start(&open(url), url);
    let mut reader = Reader::new(open(url), 1_000);
    tokio::time::timeout(limit(wanted), reader.read(wanted / 2)).await.expect("nobody waits");
    (load, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_made_while_others_write_goes_on_elsewhere() {
    let wanted = wanted(4_000);
    let (old, new) = tokio::join!(OwnServer::start(|_| {}), OwnServer::start(|_| {}));
    let (old, new) = (old.unwrap(), new.unwrap());
    let (url, moved) = (old.superuser_url("postgres"), new.superuser_url("postgres"));
    let (load, reader) = in_the_middle(&url, wanted).await;
    load.reaches(wanted).await;
    let bin = old.running().bin_dir.clone();
    tokio::task::spawn_blocking({
        let moved = moved.clone();
        move || copy(&bin, &url, &moved)
    })
    .await
    .unwrap();
    load.stop().await;
    goes_on(&reader, &moved, wanted / 10, "dump and restore").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_while_others_write_goes_on() {
    let wanted = wanted(4_000);
    let primary = OwnServer::start(|_| {}).await.unwrap();
    let replica = primary.replica().await.unwrap();
    let (load, reader) = in_the_middle(&primary.superuser_url("postgres"), wanted).await;
    // What was read is on the replica; of what is written from now on the last may not be.
    replica.caught_up().await.unwrap();
    load.reaches(wanted).await;
    primary.kill().unwrap();
    load.give_up().await;
    replica.promote().await.unwrap();
    goes_on(&reader, &replica.superuser_url("postgres"), wanted / 10, "failover").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_while_others_write_goes_on() {
    let wanted = wanted(4_000);
    let mut server = OwnServer::start(|options| options.durable = true).await.unwrap();
    let (load, mut reader) = in_the_middle(&server.superuser_url("postgres"), wanted).await;
    load.reaches(wanted).await;
    // It is near the end when it happens: the last tick that it saw must not be forgotten.
    reader.read(wanted).await;
    server.kill().unwrap();
    load.give_up().await;
    server.ensure_running().unwrap();
    goes_on(&reader, &server.superuser_url("postgres"), wanted / 10, "crash").await;
}
