//! A server that is stopped at once, and a database that was moved.

use std::collections::HashSet;
use std::time::Duration;

use pgfleet_events::QueueStore as _;
use pgfleet_local::StopMode;
use pgfleet_local::testing::OwnServer;

use super::place::{LONG, Place, item, number, numbers, open, receipts, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_at_once_loses_nothing_that_was_put_in() {
    let mut server = OwnServer::start(|options| options.durable = true).await.unwrap();
    let url = server.superuser_url("postgres");
    let (store, _) = open(&url, true).await;
    let producer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut sent = HashSet::new();
            let mut next = 0;
            while store.enqueue("q", (next..next + 5).map(item).collect()).await.is_ok() {
                sent.extend(next..next + 5);
                next += 5;
            }
            sent
        }
    });
    let consumer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut done = HashSet::new();
            while let Ok(taken) = store.dequeue("q", "c", 10, Duration::from_secs(1)).await {
                match store.acknowledge(&receipts(&taken)).await {
                    Ok(settled) => {
                        assert_eq!(settled.done, taken.len());
                        done.extend(taken.iter().map(number));
                    }
                    Err(_) => break,
                }
            }
            done
        }
    });
    super::place::until("some are sent", async || {
        let db = open(&url, false).await.0.info("q").await.unwrap();
        db.is_some_and(|info| info.ready + info.in_flight > 0)
    })
    .await;
    tokio::time::timeout(Duration::from_millis(1500), futures_util::future::pending::<()>()).await.unwrap_err();
    server.stop(StopMode::Immediate).unwrap();
    let sent = producer.await.unwrap();
    let done = consumer.await.unwrap();
    server.ensure_running().unwrap();
    let (store, _) = open(&server.superuser_url("postgres"), false).await;
    let mut again = HashSet::new();
    super::place::until("all has come", async || {
        for delivery in store.dequeue("q", "c", 100, LONG).await.unwrap() {
            assert!(again.insert(number(&delivery)), "twice after the crash");
            assert_eq!(store.acknowledge(&[delivery.receipt]).await.unwrap().done, 1);
        }
        store.sweep().await.unwrap();
        sent.iter().all(|n| done.contains(n) || again.contains(n)) && store.in_flight("q", 1).await.unwrap().is_empty()
    })
    .await;
    assert!(sent.len() > 50, "{} sent", sent.len());
}

#[tokio::test]
async fn after_a_move_to_another_cluster_what_is_not_done_comes_in_order() {
    let place = Place::new().await;
    let store = &place.store;
    store.enqueue("q", (0..20).map(item).collect()).await.unwrap();
    let taken = take(store, "q", 5, LONG).await;
    store.acknowledge(&receipts(&taken[..3])).await.unwrap();
    store.enqueue("keys", (0..4).map(|n| item(n).key("a")).collect()).await.unwrap();
    let first = take(store, "keys", 5, LONG).await;
    assert_eq!(numbers(&first), [0]);
    // As a dump leaves it in a cluster whose numbers are far behind.
    let sql = "UPDATE event_streaming.queue_cluster SET system_identifier = 1; \
               UPDATE event_streaming.queue_events SET xid = (xid::text::bigint + 1000000)::text::xid8; \
               UPDATE event_streaming.in_flight_events SET \
               lo = CASE WHEN lo::text = '3:3:' THEN lo ELSE ((pg_snapshot_xmax(lo)::text::bigint + 1000000) || ':' \
               || (pg_snapshot_xmax(lo)::text::bigint + 1000000) || ':')::pg_snapshot END, \
               hi = ((pg_snapshot_xmax(hi)::text::bigint + 1000000) || ':' \
               || (pg_snapshot_xmax(hi)::text::bigint + 1000000) || ':')::pg_snapshot WHERE lo IS NOT NULL";
    place.pool.get().await.unwrap().batch(sql).await.unwrap();
    let (moved, _) = open(&place.database.url(), false).await;
    let mut rest = Vec::new();
    while rest.len() < 17 {
        rest.extend(numbers(&take(&moved, "q", 100, LONG).await));
    }
    assert_eq!(rest, (3..20).collect::<Vec<_>>());
    for expected in 0..4 {
        let taken = take(&moved, "keys", 10, LONG).await;
        assert_eq!(numbers(&taken), [expected]);
        moved.acknowledge(&receipts(&taken)).await.unwrap();
    }
    // What was handed out before is nobody's any more.
    assert_eq!(moved.acknowledge(&receipts(&first)).await.unwrap().done, 0);
}
