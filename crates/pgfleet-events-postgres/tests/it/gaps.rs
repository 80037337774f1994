//! Nothing is lost, nothing comes twice, nobody waits, and the order is the same for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pgfleet_local::testing::TestServer;

use crate::load::{Load, Reader, check, limit, peak_memory, same, wanted};
use crate::place::{Place, pool};

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
    let began = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let live: Vec<_> = [1, 1_000, 1_000_000]
        .into_iter()
        .map(|batch| {
            let (mut reader, done) = (Reader::new(place.other(), batch), Arc::clone(&done));
            let reading = tokio::spawn(async move {
                reader.follow(&done).await;
                (reader.seen, began.elapsed())
            });
            (batch, reading)
        })
        .collect();
    let load = Load::start(&place.store, &place.database.url());
    load.reaches(wanted).await;
    let committed = load.stop().await;
    let written = began.elapsed();
    done.store(true, Ordering::Release);
    let mut orders = Vec::new();
    for (batch, reading) in live {
        // The strangers are there to the end: whoever waited for one of them would never be done.
        let (seen, ended) = tokio::time::timeout(limit(wanted), reading).await.expect("nobody waits").unwrap();
        check(&seen, committed, &format!("live, {batch} at once"));
        eprintln!("live, {batch} at once: {:.1?} after the last was written", ended.saturating_sub(written));
        orders.push(seen);
    }
    for batch in [1_000, 1_000_000, 7] {
        let later = Instant::now();
        let mut reader = Reader::new(place.other(), batch);
        tokio::time::timeout(limit(wanted), reader.read_to_the_end()).await.expect("nobody waits");
        eprintln!("later, {batch} at once: {:.1?}", later.elapsed());
        check(&reader.seen, committed, &format!("later, {batch} at once"));
        orders.push(reader.seen);
    }
    for other in &orders[1..] {
        same(&orders[0], other, "two readers");
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
    eprintln!(
        "{committed} events, {late} of them late: written in {written:.1?}, all in {:.1?}, {} MB",
        began.elapsed(),
        peak_memory()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_sees_each_event_once_in_the_same_order() {
    every_reader_sees_the_same(&TestServer::shared().await, wanted(20_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_sees_each_event_once_on_version_18() {
    every_reader_sees_the_same(&TestServer::shared_version(18).await, wanted(5_000).min(5_000)).await;
}
