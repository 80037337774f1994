//! What goes beyond the limits goes, and nothing else.

use std::time::Duration;

use pgfleet_events::{
    ConfigStore as _, Enqueued, Json, NewItem, QueueStore as _, Retention, RetentionPolicy, StreamConfig, StreamKind,
};
use pgfleet_events_postgres::{KeeperOptions, Store};

use super::{fill, quick, versions};
use crate::place::{Place, pool, until};

fn item(number: usize) -> NewItem {
    NewItem::new("Numbered", Json::trusted(number.to_string()))
}

fn counted(count: u64) -> Retention {
    Retention { max_count: Some(count), ..Retention::default() }
}

fn aged(age: Duration) -> Retention {
    Retention { max_age: Some(age), ..Retention::default() }
}

fn sized(bytes: u64) -> Retention {
    Retention { max_bytes: Some(bytes), ..Retention::default() }
}

async fn limit(store: &Store, name: &str, kind: StreamKind, retention: Retention) {
    store.configure(&StreamConfig { retention, ..StreamConfig::new(name, kind) }).await.unwrap();
}

async fn ready(store: &Store, queue: &str) -> Vec<usize> {
    let waiting = store.peek(queue, 1_000).await.unwrap();
    let mut numbers: Vec<usize> = waiting.iter().map(|one| one.data.as_str().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

async fn older(place: &Place, table: &str, condition: &str) {
    let column = if table == "events" { "at" } else { "enqueued_at" };
    let sql = format!("UPDATE event_streaming.{table} SET {column} = {column} - interval '1 day' WHERE {condition}");
    place.connect().await.execute_all(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_kept_within_their_limits() {
    let place = Place::new().await;
    let store = &place.store;
    for stream in ["age", "count", "bytes", "gone", "kept", "within"] {
        fill(store, stream, 50).await;
    }
    older(&place, "events", "stream IN ('age', 'kept') AND version <= 20").await;
    older(&place, "events", "stream = 'gone'").await;
    let hour = Duration::from_hours(1);
    limit(store, "age", StreamKind::Stream, aged(hour)).await;
    limit(store, "gone", StreamKind::Stream, aged(hour)).await;
    limit(store, "bytes", StreamKind::Stream, sized(14 * 10)).await;
    limit(
        store,
        "within",
        StreamKind::Stream,
        Retention { max_count: Some(50), max_bytes: Some(1 << 20), max_age: Some(hour) },
    )
    .await;
    let policy = RetentionPolicy { name: "few".into(), streams: "cou*".into(), retention: counted(12), enabled: true };
    store.set_policy(&policy).await.unwrap();
    // Of 7 in a step.
    let keeper = store.keep(quick());
    until("all limits are kept", async || {
        versions(store, "age").await.len() == 30
            && versions(store, "count").await.len() == 12
            && versions(store, "gone").await.is_empty()
            && versions(store, "bytes").await.len() <= 10
    })
    .await;
    let rounds = keeper.stats().rounds;
    until("it has looked again", async || keeper.stats().rounds > rounds + 2).await;
    assert_eq!(versions(store, "age").await, (21..=50).collect::<Vec<_>>());
    assert_eq!(versions(store, "count").await, (39..=50).collect::<Vec<_>>());
    assert_eq!(versions(store, "bytes").await.last(), Some(&50));
    assert!(versions(store, "bytes").await.len() >= 8);
    for stream in ["kept", "within"] {
        assert_eq!(versions(store, stream).await.len(), 50, "nothing is removed that a policy keeps");
    }
    let bytes = 50 - versions(store, "bytes").await.len() as u64;
    assert_eq!(keeper.stop().await.events, 20 + 38 + 50 + bytes);
    // Versions go on.
    fill(store, "gone", 1).await;
    assert_eq!(versions(store, "gone").await, [51]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_kept_within_their_limits() {
    let place = Place::new().await;
    let store = &place.store;
    for queue in ["age", "count", "bytes", "kept", "within"] {
        // Packs, of which the first is removed in a step and the second is not.
        for numbers in [10..15, 15..30, 30..60] {
            store.enqueue(queue, numbers.map(item).collect()).await.unwrap();
        }
    }
    let late = (60..70).map(|n| item(n).delay(Duration::from_hours(1))).collect();
    store.enqueue("age", late).await.unwrap();
    older(
        &place,
        "queue_events",
        "datas[1]::text::int < 30 AND queue_id IN (SELECT queue_id FROM event_streaming.queues \
          WHERE name IN ('age', 'kept'))",
    )
    .await;
    older(&place, "queue_delayed", "data::text::int < 65").await;
    limit(store, "age", StreamKind::Queue, aged(Duration::from_hours(1))).await;
    limit(store, "count", StreamKind::Queue, counted(12)).await;
    limit(store, "bytes", StreamKind::Queue, sized(2 * 15)).await;
    limit(
        store,
        "within",
        StreamKind::Queue,
        Retention { max_count: Some(50), max_bytes: Some(100), max_age: Some(Duration::from_hours(1)) },
    )
    .await;
    let keeper = store.keep(quick());
    until("all limits are kept", async || {
        ready(store, "age").await.len() == 30
            && ready(store, "count").await.len() == 12
            && ready(store, "bytes").await.len() == 15
    })
    .await;
    until("nothing is left to do", async || keeper.stats().messages >= 20 + 5 + 38 + 35).await;
    let rounds = keeper.stats().rounds;
    until("it has looked again", async || keeper.stats().rounds > rounds + 2).await;
    assert_eq!(ready(store, "age").await, (30..60).collect::<Vec<_>>());
    assert_eq!(ready(store, "count").await, (48..60).collect::<Vec<_>>());
    assert_eq!(ready(store, "bytes").await, (45..60).collect::<Vec<_>>());
    for queue in ["kept", "within"] {
        assert_eq!(ready(store, queue).await.len(), 50, "nothing is removed that is to be kept");
    }
    assert_eq!(keeper.stop().await.messages, 20 + 5 + 38 + 35);
    let info = store.info("age").await.unwrap().unwrap();
    assert_eq!((info.ready, info.delayed), (30, 5));
}

#[tokio::test]
async fn what_somebody_has_or_waits_for_stays() {
    let place = Place::new().await;
    let store = &place.store;
    let minute = Duration::from_mins(1);
    store.enqueue("q", (0..20).map(item).collect()).await.unwrap();
    let mut held = Vec::new();
    until("ten are taken", async || {
        held.extend(store.dequeue("q", "c", 10 - held.len(), minute).await.unwrap());
        held.len() == 10
    })
    .await;
    store.enqueue("keys", (0..6).map(|n| item(n).key("a")).collect()).await.unwrap();
    let first = store.dequeue("keys", "c", 10, minute).await.unwrap();
    assert_eq!(first.len(), 1);
    for queue in ["q", "keys"] {
        limit(store, queue, StreamKind::Queue, counted(0)).await;
    }
    store.apply_retention().await.unwrap();
    assert!(ready(store, "q").await.is_empty());
    let receipts: Vec<_> = held.iter().map(|one| one.receipt.clone()).collect();
    assert_eq!(store.acknowledge(&receipts).await.unwrap().done, 10, "what was taken is whose it was");
    // Those behind the first of their key come in order.
    let mut taken = first;
    let mut order = Vec::new();
    while let [one] = &taken[..] {
        order.push(one.data.as_str().parse::<usize>().unwrap());
        assert_eq!(store.acknowledge(std::slice::from_ref(&one.receipt)).await.unwrap().done, 1);
        taken = store.dequeue("keys", "c", 10, minute).await.unwrap();
    }
    assert_eq!(order, (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_came_late_is_handed_out_though_the_first_of_it_is_removed() {
    let place = Place::new().await;
    let store = &place.store;
    // Of one lane, so that what comes late is behind its cursor.
    let one_lane =
        "SELECT event_streaming.queue_open('q', true, '{0}', false); UPDATE event_streaming.queues SET lanes = 1";
    place.connect().await.execute_all(one_lane).await.unwrap();
    let long = |n: usize| NewItem::new("n", Json::trusted(format!("{n:<5000}")));
    for (put, removed) in [((0..300).map(item).collect::<Vec<_>>(), 100), ((0..30).map(long).collect(), 10)] {
        let count = put.len();
        let late = pool(&place.database.url(), 1).begin().await.unwrap();
        store.enqueue_in(&late, "q", put).await.unwrap();
        store.enqueue("q", vec![item(1_000)]).await.unwrap();
        let passed = store.dequeue("q", "c", 10, Duration::from_mins(1)).await.unwrap();
        assert_eq!(passed.len(), 1, "what is late is not there yet");
        late.commit().await.unwrap();
        limit(store, "q", StreamKind::Queue, counted((count - removed) as u64)).await;
        store.apply_retention().await.unwrap();
        let mut came = Vec::new();
        until("the rest has come", async || {
            let taken = store.dequeue("q", "c", 1_000, Duration::from_mins(1)).await.unwrap();
            came.extend(taken.iter().map(|one| one.data.as_str().trim().parse::<usize>().unwrap()));
            came.len() >= count - removed
        })
        .await;
        assert_eq!(came, (removed..count).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn nothing_is_taken_away_while_messages_are_handed_out() {
    let place = Place::new().await;
    let store = &place.store;
    limit(store, "q", StreamKind::Queue, counted(30)).await;
    // A step may take a third of the lease, and this machine may have other things to do.
    let keeper =
        store.keep(KeeperOptions { interval: Duration::from_millis(5), lease: Duration::from_secs(30), ..quick() });
    let (mut done, mut sent) = (std::collections::HashSet::new(), 0);
    while keeper.stats().messages < 100 {
        store.enqueue("q", (sent..sent + 40).map(item).collect()).await.unwrap();
        sent += 40;
        let taken = store.dequeue("q", "c", 10, Duration::from_mins(1)).await.unwrap();
        let receipts: Vec<_> = taken.iter().map(|one| one.receipt.clone()).collect();
        assert_eq!(store.acknowledge(&receipts).await.unwrap().done, taken.len());
        for one in &taken {
            assert!(done.insert(one.data.as_str().to_owned()), "each once");
        }
    }
    until("the queue is short", async || ready(store, "q").await.len() <= 30).await;
    let left = ready(store, "q").await;
    let removed = keeper.stop().await.messages;
    assert_eq!(
        sent,
        done.len() + left.len() + usize::try_from(removed).unwrap(),
        "each was handed out, is there, or was removed"
    );
    assert_eq!(left.len(), 30);
    assert!(left.contains(&(sent - 1)), "the newest stay");
}

#[tokio::test]
async fn ids_come_again_when_their_time_is_over() {
    let place = Place::new().await;
    let store = &place.store;
    let put = async |id: &str| store.enqueue("q", vec![item(1).dedup_id(id)]).await.unwrap()[0] != Enqueued::Duplicate;
    assert!(put("a").await && put("b").await && !put("a").await);
    let older = "UPDATE event_streaming.queue_dedup SET at = at - interval '25 hours' WHERE dedup_id = 'a'";
    place.connect().await.execute_all(older).await.unwrap();
    let keeper = store.keep(quick());
    until("one is forgotten", async || keeper.stats().expired == 1).await;
    assert!(put("a").await && !put("b").await);
    assert_eq!(keeper.stop().await.expired, 1);
}
