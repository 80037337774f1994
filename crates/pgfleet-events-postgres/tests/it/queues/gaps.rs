//! Producers that commit late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgfleet_events::QueueStore as _;
use pgfleet_local::testing::TestServer;

use super::place::{LONG, Place, item, numbers, receipts};

/// Sixteen producers put in single messages, packs, and several packs at once. They draw their transaction's number early or late, wait between their messages and their commit, and roll
/// some back; a stranger's transaction is open all the time; the tables rotate meanwhile.
async fn each_comes_once(server: &TestServer) {
    let place = Place::on(server).await;
    let strange = server.database().await;
    let stranger = super::place::open(&strange.url(), false).await.1.begin().await.unwrap();
    stranger.batch("SELECT pg_current_xact_id()").await.unwrap();
    let near = place.pool.begin().await.unwrap();
    near.batch("SELECT pg_current_xact_id()").await.unwrap();

    let next = Arc::new(AtomicUsize::new(0));
    let sent = Arc::new(std::sync::Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let until = Instant::now() + Duration::from_secs(5);
    let producers = (0..16).map(|_| {
        let (store, pool, next, sent) = (place.store.clone(), place.pool.clone(), Arc::clone(&next), Arc::clone(&sent));
        tokio::spawn(async move {
            while Instant::now() < until {
                let transaction = pool.begin().await.unwrap();
                if rand::random_bool(0.3) {
                    transaction.batch("SELECT pg_current_xact_id()").await.unwrap();
                    transaction.batch(&format!("SELECT pg_sleep({})", rand::random_range(0.0..0.02))).await.unwrap();
                }
                let size = match rand::random_range(0..20) {
                    0 => 200,
                    1..10 => rand::random_range(2..20),
                    _ => 1,
                };
                let first = next.fetch_add(size, Ordering::SeqCst);
                store.enqueue_in(&transaction, "q", (first..first + size).map(item).collect()).await.unwrap();
                transaction.batch(&format!("SELECT pg_sleep({})", rand::random_range(0.0..0.05))).await.unwrap();
                if rand::random_bool(0.1) {
                    transaction.rollback().await.unwrap();
                } else {
                    transaction.commit().await.unwrap();
                    sent.lock().unwrap().extend(first..first + size);
                }
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let consumers = (0..4).map(|_| {
        let (store, stop) = (place.store.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut received = Vec::new();
            loop {
                let last = stop.load(Ordering::SeqCst);
                let most = if rand::random_bool(0.8) { 7 } else { 300 };
                let taken = store.dequeue("q", "c", most, LONG).await.unwrap();
                if taken.is_empty() {
                    if last {
                        return received;
                    }
                    tokio::task::yield_now().await;
                } else {
                    assert_eq!(store.acknowledge(&receipts(&taken)).await.unwrap().done, taken.len());
                    received.extend(numbers(&taken));
                }
            }
        })
    });
    let consumers: Vec<_> = consumers.collect();
    let rotator = {
        let (store, stop) = (place.store.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut rotations = 0;
            while !stop.load(Ordering::SeqCst) {
                rotations += usize::from(store.rotate_queues(1).await.unwrap());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            rotations
        })
    };
    for producer in producers {
        producer.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let mut received = Vec::new();
    for consumer in consumers {
        received.extend(consumer.await.unwrap());
    }
    let rotations = rotator.await.unwrap();
    let mut sent = sent.lock().unwrap().clone();
    sent.sort_unstable();
    received.sort_unstable();
    assert_eq!(received, sent);
    assert!(sent.len() > 200 && rotations >= 4, "{} messages, {rotations} rotations", sent.len());
    near.rollback().await.unwrap();
    stranger.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_late_producers_comes_once() {
    each_comes_once(&TestServer::shared().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_late_producers_comes_once_on_18() {
    each_comes_once(&TestServer::shared_version(18).await).await;
}
