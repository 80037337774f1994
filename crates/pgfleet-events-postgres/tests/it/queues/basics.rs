//! What a queue does.

use std::collections::BTreeMap;
use std::time::Duration;

use pgfleet_events::{Delivery, Enqueued, ErrorKind, Json, Meta, Nack, NewItem, QueueStore as _, Redrive, Settled};
use pgfleet_local::testing::TestServer;
use uuid::Uuid;

use super::place::{LONG, Place, item, number, numbers, receipts, take};

#[tokio::test]
async fn a_message_is_handed_out_once_and_is_gone_when_done() {
    for server in [TestServer::shared().await, TestServer::shared_version(18).await] {
        let place = Place::on(&server).await;
        let store = &place.store;
        let meta = Meta {
            correlation_id: Some("c".into()),
            causation_id: Some("d".into()),
            traceparent: Some("00-1-2-01".into()),
            tracestate: Some("a=b".into()),
            tenant: Some("t_1".into()),
            headers: BTreeMap::from([("h".to_owned(), "1".to_owned())]),
        };
        let mut told = item(1);
        told.meta = meta.clone();
        let put = store.enqueue("q", vec![told]).await.unwrap();
        let put = [put, store.enqueue("q", vec![item(2)]).await.unwrap()].concat();
        assert_eq!(numbers(&store.peek("q", 10).await.unwrap()).len(), 2);
        let mut taken = store.dequeue("q", "c1", 10, LONG).await.unwrap();
        assert!(store.dequeue("q", "c2", 10, LONG).await.unwrap().is_empty());
        taken.sort_by_key(number);
        assert_eq!(numbers(&taken), [1, 2]);
        assert_eq!(put, [Enqueued::New(taken[0].id), Enqueued::New(taken[1].id)]);
        assert_eq!((&taken[0].meta, taken[0].attempt, &*taken[0].kind), (&meta, 1, "Numbered"));
        let held = store.in_flight("q", 10).await.unwrap();
        assert_eq!((held.len(), &*held[0].consumer), (2, "c1"));
        let info = store.info("q").await.unwrap().unwrap();
        assert_eq!((info.ready, info.in_flight, info.dead), (0, 2, 0));
        let settled = store.acknowledge(&receipts(&taken)).await.unwrap();
        assert_eq!(settled, Settled { done: 2, fenced: 0 });
        let settled = store.acknowledge(&receipts(&taken)).await.unwrap();
        assert_eq!(settled, Settled { done: 0, fenced: 2 });
        assert!(store.in_flight("q", 10).await.unwrap().is_empty());
        assert_eq!(store.list().await.unwrap().len(), 1);
        assert!(store.info("other").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_batch_can_be_done_in_parts_and_the_rest_comes_again() {
    let place = Place::new().await;
    let store = &place.store;
    store.enqueue("q", (0..10).map(item).collect()).await.unwrap();
    let taken = store.dequeue("q", "c", 10, Duration::from_millis(1500)).await.unwrap();
    assert_eq!(numbers(&taken), (0..10).collect::<Vec<_>>());
    let all = receipts(&taken);
    assert_eq!(store.acknowledge(&all[..3]).await.unwrap().done, 3);
    assert_eq!(store.acknowledge(&all[2..5]).await.unwrap(), Settled { done: 2, fenced: 1 });
    assert_eq!(store.negative_acknowledge(&all[5..6], &Nack::dead("no")).await.unwrap().done, 1);
    let extended = store.extend(&all[6], LONG).await.unwrap();
    assert!(store.extend(&all[6], LONG).await.unwrap_err().is_fenced());
    assert_eq!(store.acknowledge(&all[..7]).await.unwrap(), Settled { done: 0, fenced: 7 });
    // 7, 8 and 9 come again, and only those.
    let mut again = Vec::new();
    while again.len() < 3 {
        let taken = take(store, "q", 10, LONG).await;
        assert!(taken.iter().all(|delivery| delivery.attempt == 2));
        again.extend(numbers(&taken));
    }
    again.sort_unstable();
    assert_eq!(again, [7, 8, 9]);
    // Too late.
    assert_eq!(store.acknowledge(&all[7..]).await.unwrap(), Settled { done: 0, fenced: 3 });
    assert_eq!(store.negative_acknowledge(&all[7..], &Nack::requeue("x")).await.unwrap().done, 0);
    assert_eq!(store.in_flight("q", 10).await.unwrap().len(), 4);
    assert_eq!(store.acknowledge(&[extended]).await.unwrap().done, 1);
    assert_eq!(store.info("q").await.unwrap().unwrap().redelivered, 3);
    assert_eq!(&*store.dead_letters("q", 10).await.unwrap()[0].reason, "no");
}

#[tokio::test]
async fn a_whole_acknowledgement_after_a_part_ends_the_rest() {
    let place = Place::new().await;
    let store = &place.store;
    store.enqueue("q", (0..3).map(item).collect()).await.unwrap();
    let all = receipts(&store.dequeue("q", "c", 10, LONG).await.unwrap());
    assert_eq!(store.acknowledge(&all[..1]).await.unwrap().done, 1);
    assert_eq!(store.acknowledge(&all).await.unwrap(), Settled { done: 2, fenced: 1 });
    assert!(store.in_flight("q", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_fails_as_often_as_allowed_is_a_dead_letter_and_can_be_put_back() {
    let place = Place::new().await;
    let store = &place.store;
    place.configure("q", 2, true, 0).await;
    store.enqueue("q", vec![item(1)]).await.unwrap();
    for attempt in 1..=2 {
        let taken = take(store, "q", 10, LONG).await;
        assert_eq!(taken[0].attempt, attempt);
        assert_eq!(store.negative_acknowledge(&receipts(&taken), &Nack::requeue("broken")).await.unwrap().done, 1);
    }
    assert!(store.dequeue("q", "c", 1, LONG).await.unwrap().is_empty());
    let dead = store.dead_letters("q", 10).await.unwrap();
    assert_eq!((&*dead[0].reason, dead[0].attempts), ("broken", 2));
    assert_eq!(store.redrive("q", &Redrive::Ids(vec![dead[0].id])).await.unwrap(), 1);
    let taken = take(store, "q", 10, LONG).await;
    assert_eq!((taken[0].attempt, taken[0].id), (1, dead[0].id));
    store.negative_acknowledge(&receipts(&taken), &Nack::dead("again")).await.unwrap();
    assert_eq!(store.purge("q", true).await.unwrap(), 1);
    assert_eq!(store.info("q").await.unwrap().unwrap().dead, 0);
}

#[tokio::test]
async fn delays_priorities_dedup_and_limits_hold() {
    let place = Place::new().await;
    let store = &place.store;
    let delay = Duration::from_millis(300);
    let began = std::time::Instant::now();
    store.enqueue("q", vec![item(1).delay(delay), item(2), item(3).priority(5), item(4).priority(-1)]).await.unwrap();
    assert_eq!(numbers(&store.dequeue("q", "c", 10, LONG).await.unwrap()), [3, 2, 4]);
    assert_eq!(store.info("q").await.unwrap().unwrap().delayed, 1);
    assert_eq!(numbers(&take(store, "q", 10, LONG).await), [1]);
    assert!(began.elapsed() >= delay);

    let twice = || item(1).dedup_id("a");
    let put = store.enqueue("d", vec![twice(), twice(), item(2)]).await.unwrap();
    assert!(matches!(put[..], [Enqueued::New(_), Enqueued::Duplicate, Enqueued::New(_)]));
    let tries = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.enqueue("d", vec![item(9).dedup_id("b")]).await.unwrap()[0] })
    });
    let mut new = 0;
    for task in tries.collect::<Vec<_>>() {
        new += usize::from(task.await.unwrap() != Enqueued::Duplicate);
    }
    assert_eq!(new, 1, "of those who put in the same id at once one did");

    place.configure("full", 5, true, 2).await;
    store.enqueue("full", vec![item(1), item(2)]).await.unwrap();
    let refused = store.enqueue("full", vec![item(3)]).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Refused && refused.is_retryable());
    let taken = take(store, "full", 10, LONG).await;
    store.negative_acknowledge(&receipts(&taken), &Nack::later(LONG, "later")).await.unwrap();
    assert_eq!(store.info("full").await.unwrap().unwrap().delayed, 2);
    assert_eq!(store.purge("full", false).await.unwrap(), 2);
    store.enqueue("full", vec![item(3), item(4)]).await.unwrap();
    assert_eq!(store.purge("full", false).await.unwrap(), 2);
    assert!(store.dequeue("full", "c", 10, LONG).await.unwrap().is_empty());
}

#[tokio::test]
async fn batches_of_any_size_keep_their_order_and_are_purged_whole() {
    let place = Place::new().await;
    let store = &place.store;
    // A number is drawn for up to 1,024 messages of a statement; what is more takes another way.
    for count in [1_024, 1_025, 3] {
        let put = store.enqueue("q", (0..count).map(item).collect()).await.unwrap();
        assert_eq!(put.len(), count);
        let taken = take(store, "q", 2_000, LONG).await;
        assert_eq!(numbers(&taken), (0..count).collect::<Vec<_>>());
        assert_eq!(store.acknowledge(&receipts(&taken)).await.unwrap().done, taken.len());
    }
    for count in [1_024_usize, 1] {
        store.enqueue("q", (0..).map(item).take(count).collect()).await.unwrap();
        assert_eq!(store.purge("q", false).await.unwrap(), count as u64);
        assert!(store.dequeue("q", "c", 2_000, LONG).await.unwrap().is_empty(), "{count} were purged");
    }
    store.enqueue("q", vec![item(7)]).await.unwrap();
    assert_eq!(numbers(&take(store, "q", 10, LONG).await), [7]);
}

#[tokio::test]
async fn messages_that_were_put_in_together_are_each_by_itself() {
    let place = Place::new().await;
    let store = &place.store;
    place.configure("q", 2, true, 0).await;
    let text = |n: usize| format!(r#"{{"n": {n}, "text": "{}"}}"#, "ß".repeat(n));
    let items = (0..200).map(|n| NewItem::new(format!("type {}", n % 3), Json::trusted(text(n)))).collect();
    let put = store.enqueue("q", items).await.unwrap();
    let ids: Vec<_> = put
        .iter()
        .map(|put| match put {
            Enqueued::New(id) => *id,
            Enqueued::Duplicate => panic!("each is new"),
        })
        .collect();
    // Which of them it is, where it is what was put in.
    let which = |id: Uuid, kind: &str, data: &Json| {
        let n = ids.iter().position(|one| *one == id).unwrap();
        assert_eq!((kind, data.as_str()), (&*format!("type {}", n % 3), &*text(n)));
        n
    };
    let all = |taken: &[Delivery]| taken.iter().map(|one| which(one.id, &one.kind, &one.data)).collect::<Vec<_>>();
    assert_eq!(all(&store.peek("q", 1_000).await.unwrap()), (0..200).collect::<Vec<_>>());

    // From the middle of the first pack into the second one.
    assert_eq!(all(&take(store, "q", 100, LONG).await), (0..100).collect::<Vec<_>>());
    let taken = take(store, "q", 50, LONG).await;
    assert_eq!(all(&taken), (100..150).collect::<Vec<_>>());
    assert_eq!(store.info("q").await.unwrap().unwrap().ready, 50);
    assert_eq!(all(&store.peek("q", 1_000).await.unwrap()), (150..200).collect::<Vec<_>>());
    let mut held: Vec<_> = store.in_flight("q", 1_000).await.unwrap().iter().map(|one| one.id).collect();
    held.sort_unstable();
    assert_eq!(held, ids[..150]);

    // What is given back is itself, also with the tables emptied under it, and so is a dead letter.
    store.rotate_queues(1).await.unwrap();
    store.negative_acknowledge(&receipts(&taken[20..40]), &Nack::requeue("again")).await.unwrap();
    store.rotate_queues(1).await.unwrap();
    let mut rest = take(store, "q", 1_000, LONG).await;
    rest.extend(take(store, "q", 1_000, LONG).await);
    let mut came = all(&rest);
    came.sort_unstable();
    assert_eq!(came, (120..140).chain(150..200).collect::<Vec<_>>());
    assert_eq!(rest.iter().filter(|one| one.attempt == 2).count(), 20);
    store.negative_acknowledge(&receipts(&rest), &Nack::dead("poison")).await.unwrap();
    let dead = store.dead_letters("q", 100).await.unwrap();
    let mut dead: Vec<_> = dead.iter().map(|one| which(one.id, &one.kind, &one.data)).collect();
    dead.sort_unstable();
    assert_eq!(dead, came);

    // What is long is a row by itself: it is worth to be compressed.
    let long = format!(r#""{}""#, "a".repeat(100_000));
    store.enqueue("long", vec![NewItem::new("long", Json::trusted(&*long)), item(1)]).await.unwrap();
    let taken = take(store, "long", 2, LONG).await;
    assert_eq!((taken[0].data.as_str(), taken[1].data.as_str()), (&*long, "1"));
    let sql = "SELECT (SELECT max(messages) FROM event_streaming.queue_events WHERE data::text LIKE '%aaa%'), \
               (SELECT count(*) FROM event_streaming.queue_events WHERE messages = 128)";
    let row = place.pool.get().await.unwrap().query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i64>(1)), (1, 1));
}

#[tokio::test]
async fn a_message_is_there_when_the_callers_transaction_has_committed() {
    let place = Place::new().await;
    let store = &place.store;
    let transaction = place.pool.begin().await.unwrap();
    store.enqueue_in(&transaction, "q", vec![item(1)]).await.unwrap();
    assert!(store.dequeue("q", "c", 10, LONG).await.unwrap().is_empty());
    transaction.commit().await.unwrap();
    assert_eq!(numbers(&take(store, "q", 10, LONG).await), [1]);
    let transaction = place.pool.begin().await.unwrap();
    store.enqueue_in(&transaction, "q", vec![item(2)]).await.unwrap();
    transaction.rollback().await.unwrap();
    store.enqueue("q", vec![item(3)]).await.unwrap();
    assert_eq!(numbers(&take(store, "q", 10, LONG).await), [3]);
}
