//! Tables that are emptied in turn.

use std::time::Duration;

use pgfleet_events::{Nack, NewItem, QueueStore as _, Settled};
use pgfleet_postgres::pool::{Isolation, TransactionOptions};

use super::place::{LONG, Place, item, numbers, receipts, take};

async fn size(place: &Place) -> (i64, i64) {
    let sql = "SELECT sum(pg_total_relation_size(c.oid))::bigint, sum(pg_stat_get_dead_tuples(c.oid))::bigint \
               FROM pg_class c WHERE c.relnamespace = 'event_streaming'::regnamespace AND c.relkind = 'r' \
               AND c.relname ~ '^(queue_events|in_flight_events|queue_closures)_'";
    let row = place.pool.get().await.unwrap().query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn what_is_not_done_is_carried_over() {
    let place = Place::new().await;
    let store = &place.store;
    store.enqueue("idle", (0..50).map(item).collect()).await.unwrap();
    store.enqueue("q", (0..10).map(item).collect()).await.unwrap();
    store.enqueue("keys", (0..5).map(|n| item(n).key("a")).collect()).await.unwrap();
    let held = receipts(&store.dequeue("q", "c", 10, LONG).await.unwrap());
    assert_eq!(store.acknowledge(&held[..4]).await.unwrap().done, 4);
    let first = store.dequeue("keys", "c", 10, LONG).await.unwrap();
    store.negative_acknowledge(&receipts(&first), &Nack::requeue("x")).await.unwrap();
    for _ in 0..6 {
        assert!(store.rotate_queues(1).await.unwrap());
    }
    assert_eq!(store.acknowledge(&held[..5]).await.unwrap(), Settled { done: 1, fenced: 4 });
    assert_eq!(store.in_flight("q", 100).await.unwrap().len(), 5);
    assert!(store.rotate_queues(1).await.unwrap());
    assert_eq!(store.acknowledge(&held[5..]).await.unwrap().done, 5);
    assert!(store.dequeue("q", "c", 10, LONG).await.unwrap().is_empty());
    assert_eq!(numbers(&take(store, "idle", 100, LONG).await), (0..50).collect::<Vec<_>>());
    for expected in 0..5 {
        let taken = take(store, "keys", 10, LONG).await;
        assert_eq!(numbers(&taken), [expected]);
        store.acknowledge(&receipts(&taken)).await.unwrap();
        store.rotate_queues(1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_holds_back_old_rows_does_not_make_the_tables_grow() {
    let place = Place::new().await;
    let store = &place.store;
    let options = TransactionOptions { isolation: Some(Isolation::RepeatableRead), read_only: true };
    let pinned = place.pool.get().await.unwrap().begin(options).await.unwrap();
    pinned.batch("SELECT count(*) FROM pg_class").await.unwrap();
    let mut most = 0;
    for round in 0..40 {
        for _ in 0..5 {
            let items: Vec<NewItem> = (0..200).map(|n| item(round * 1_000 + n)).collect();
            store.enqueue("q", items).await.unwrap();
        }
        let mut left = 1_000;
        while left > 0 {
            let taken = take(store, "q", 200, LONG).await;
            left -= store.acknowledge(&receipts(&taken)).await.unwrap().done;
        }
        // The worker does so for larger tables.
        store.rotate_queues(256 << 10).await.unwrap();
        most = most.max(size(&place).await.0);
    }
    let (_, dead) = size(&place).await;
    assert_eq!(dead, 0);
    // 40,000 messages are more than 6 MB.
    assert!(most < 3 << 20, "{most} bytes");
    pinned.rollback().await.unwrap();
}

#[tokio::test]
async fn a_reader_of_the_tables_delays_rotation_and_nobody_else() {
    let place = Place::new().await;
    let store = &place.store;
    store.enqueue("q", vec![item(1)]).await.unwrap();
    assert!(store.rotate_queues(1).await.unwrap());
    let reader = place.pool.begin().await.unwrap();
    reader.batch("SELECT count(*) FROM event_streaming.queue_events").await.unwrap();
    let rotating = tokio::spawn({
        let store = store.clone();
        async move { store.rotate_queues(1).await }
    });
    let mut longest = Duration::ZERO;
    while !rotating.is_finished() {
        let began = std::time::Instant::now();
        store.enqueue("q", vec![item(2)]).await.unwrap();
        let taken = store.dequeue("q", "c", 10, LONG).await.unwrap();
        store.acknowledge(&receipts(&taken)).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    rotating.await.unwrap().unwrap();
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    reader.rollback().await.unwrap();
    assert!(store.rotate_queues(1).await.unwrap());
}
