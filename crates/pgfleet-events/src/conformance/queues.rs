//! What a [`QueueStore`] must keep.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{LONG, PATIENCE, SHORT, eventually, full_meta, item, number, same, unique};
use crate::config::{ConfigStore, StreamConfig, StreamKind};
use crate::error::ErrorKind;
use crate::json::Json;
use crate::moment::Moment;
use crate::queue::{Delivery, Enqueued, Nack, NewItem, QueueStore, Receipt, Redrive, Settled};

/// Makes a `#[test]` of each rule for queues.
///
/// The argument is an async function that returns a [`QueueStore`](crate::QueueStore), which must be a
/// [`ConfigStore`](crate::ConfigStore) too, and what must live as long.
#[macro_export]
macro_rules! queue_conformance {
    ($make:expr) => {
        $crate::conformance_rules!($make, queues:
            each_message_goes_to_one_consumer
            everything_of_a_message_is_kept
            messages_of_a_key_are_handled_in_order
            the_next_of_a_key_waits_for_the_one_before
            a_message_comes_again_after_its_deadline
            who_is_too_late_changes_nothing
            a_delivery_is_ended_once
            extending_gives_a_new_receipt
            a_message_goes_back_with_a_reason
            a_message_goes_back_for_a_time
            a_message_is_delivered_so_often_and_no_more
            a_dead_letter_parks_its_key_and_is_redriven_in_order
            a_dead_letter_does_not_hold_its_key_where_that_is_configured
            redriven_messages_begin_anew
            dead_letters_are_redriven_by_id
            a_delayed_message_waits
            higher_priorities_go_first
            a_dedup_id_comes_once
            purging_leaves_what_is_handed_out
            only_dead_letters_are_purged_when_asked
            messages_are_counted_and_listed
            peeking_hands_nothing_out
            a_queue_that_is_full_or_closed_refuses
            waiting_ends_when_something_is_put_in
            what_does_not_exist_is_empty);
    };
}

async fn put(store: &dyn QueueStore, queue: &str, items: Vec<NewItem>) -> Vec<Enqueued> {
    store.enqueue(queue, items).await.unwrap()
}

/// Waits until a message is handed out, and takes up to `max`.
async fn take(store: &dyn QueueStore, queue: &str, max: usize, visibility: Duration) -> Vec<Delivery> {
    eventually("a message is handed out", || async {
        let taken = store.dequeue(queue, "taker", max, visibility).await.unwrap();
        if taken.is_empty() {
            store.sweep().await.unwrap();
        }
        (!taken.is_empty()).then_some(taken)
    })
    .await
}

/// Takes exactly so many messages, however many come at a time.
async fn take_all(store: &dyn QueueStore, queue: &str, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(take(store, queue, count - all.len(), LONG).await);
    }
    all
}

/// Asserts that nothing is handed out now.
async fn nothing(store: &dyn QueueStore, queue: &str) {
    store.sweep().await.unwrap();
    let taken = store.dequeue(queue, "nobody", 10, LONG).await.unwrap();
    assert!(taken.is_empty(), "{taken:?} was handed out");
}

async fn done(store: &dyn QueueStore, delivery: &Delivery) {
    let settled = store.acknowledge(std::slice::from_ref(&delivery.receipt)).await.unwrap();
    assert_eq!(settled, Settled { done: 1, fenced: 0 });
}

async fn back(store: &dyn QueueStore, delivery: &Delivery, nack: &Nack) {
    let settled = store.negative_acknowledge(std::slice::from_ref(&delivery.receipt), nack).await.unwrap();
    assert_eq!(settled, Settled { done: 1, fenced: 0 });
}

fn config(queue: &str) -> StreamConfig {
    StreamConfig::new(queue, StreamKind::Queue)
}

/// Many consumers get each message once between them, and nothing is lost.
pub async fn each_message_goes_to_one_consumer<S: QueueStore + 'static>(store: Arc<S>) {
    let queue: Arc<str> = unique("each").into();
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..4 {
        let (store, queue) = (Arc::clone(&store), Arc::clone(&queue));
        producers.spawn(async move {
            for batch in 0..10 {
                put(&*store, &queue, (0..10).map(|n| item(producer * 100 + batch * 10 + n)).collect()).await;
            }
        });
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut consumers = tokio::task::JoinSet::new();
    for consumer in 0..6 {
        let (store, queue, seen) = (Arc::clone(&store), Arc::clone(&queue), Arc::clone(&seen));
        consumers.spawn(async move {
            let end = tokio::time::Instant::now() + PATIENCE;
            while seen.lock().unwrap().len() < 400 {
                assert!(tokio::time::Instant::now() < end, "only {} came", seen.lock().unwrap().len());
                let taken = store.dequeue(&queue, &format!("c{consumer}"), 7, LONG).await.unwrap();
                assert!(taken.len() <= 7);
                seen.lock().unwrap().extend(taken.iter().map(|one| number(&one.data)));
                let receipts: Vec<_> = taken.iter().map(|one| one.receipt.clone()).collect();
                let settled = store.acknowledge(&receipts).await.unwrap();
                assert_eq!(settled, Settled { done: receipts.len(), fenced: 0 });
                if taken.is_empty() {
                    store.wait(&queue, Duration::from_millis(50)).await.unwrap();
                }
            }
        });
    }
    producers.join_all().await;
    consumers.join_all().await;
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
    nothing(&*store, &queue).await;
}

/// What was said of a message is there when it is handed out.
pub async fn everything_of_a_message_is_kept<S: QueueStore>(store: Arc<S>) {
    let queue = unique("kept ä'\"");
    let data = Json::parse(r#"{"text":"ä € 😀 \"\\ \n","list":[1,2.5,null,true,{}]}"#).unwrap();
    let mut new = NewItem::new("Kept.Whole", data).key("key ä'").priority(-3);
    new.meta = full_meta();
    let before = Moment::now();
    let ids = put(&*store, &queue, vec![new.clone()]).await;
    let one = take(&*store, &queue, 1, LONG).await.remove(0);
    assert_eq!(ids, [Enqueued::New(one.id)]);
    assert_eq!((&*one.queue, &*one.kind, one.key.clone(), one.priority), (&*queue, "Kept.Whole", new.key, -3));
    assert_eq!((one.attempt, &one.meta), (1, &new.meta));
    assert!(same(&one.data, &new.data));
    assert!(one.enqueued_at.until(before) < Duration::from_mins(1) && one.deadline > one.enqueued_at);
}

/// However many consume, messages of a key are handled one after the other, as they were put in.
pub async fn messages_of_a_key_are_handled_in_order<S: QueueStore + 'static>(store: Arc<S>) {
    let queue: Arc<str> = unique("keys").into();
    for turn in 0..20 {
        put(&*store, &queue, (0..5).map(|key| item(turn).key(format!("key-{key}"))).collect()).await;
    }
    let handled: Arc<Mutex<HashMap<Arc<str>, Vec<usize>>>> = Arc::default();
    let mut consumers = tokio::task::JoinSet::new();
    for consumer in 0..5 {
        let (store, queue, handled) = (Arc::clone(&store), Arc::clone(&queue), Arc::clone(&handled));
        consumers.spawn(async move {
            let end = tokio::time::Instant::now() + PATIENCE;
            while handled.lock().unwrap().values().map(Vec::len).sum::<usize>() < 100 {
                assert!(tokio::time::Instant::now() < end, "only {:?} came", handled.lock().unwrap());
                let taken = store.dequeue(&queue, &format!("c{consumer}"), 4, LONG).await.unwrap();
                for one in &taken {
                    // Written down before it is done: the next one of the key must not have come yet.
                    let key = one.key.clone().unwrap();
                    handled.lock().unwrap().entry(key).or_default().push(number(&one.data));
                    done(&*store, one).await;
                }
                if taken.is_empty() {
                    store.wait(&queue, Duration::from_millis(50)).await.unwrap();
                }
            }
        });
    }
    consumers.join_all().await;
    for (key, numbers) in handled.lock().unwrap().iter() {
        assert_eq!(*numbers, (0..20).collect::<Vec<_>>(), "{key}");
    }
}

/// While a message of a key is out, delayed or goes back, those behind it wait; other keys do not.
pub async fn the_next_of_a_key_waits_for_the_one_before<S: QueueStore>(store: Arc<S>) {
    let queue = unique("behind");
    put(&*store, &queue, vec![item(1).key("a"), item(2).key("a"), item(3).key("b")]).await;
    let taken = take_all(&*store, &queue, 2).await;
    let mut numbers: Vec<_> = taken.iter().map(|one| number(&one.data)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 3]);
    nothing(&*store, &queue).await;
    let first = taken.iter().find(|one| number(&one.data) == 1).unwrap();
    back(&*store, first, &Nack::requeue("once more")).await;
    let again = take(&*store, &queue, 10, LONG).await;
    assert_eq!(again.iter().map(|one| number(&one.data)).collect::<Vec<_>>(), [1]);
    done(&*store, &again[0]).await;
    assert_eq!(number(&take(&*store, &queue, 10, LONG).await[0].data), 2);
}

/// A message that nobody ended is handed out again after its deadline, as the next attempt.
pub async fn a_message_comes_again_after_its_deadline<S: QueueStore>(store: Arc<S>) {
    let queue = unique("deadline");
    put(&*store, &queue, vec![item(1)]).await;
    let first = take(&*store, &queue, 1, SHORT).await.remove(0);
    let second = take(&*store, &queue, 1, LONG).await.remove(0);
    assert_eq!((second.id, second.attempt, number(&second.data)), (first.id, 2, 1));
    assert_ne!(second.receipt, first.receipt);
    done(&*store, &second).await;
    nothing(&*store, &queue).await;
    assert_eq!(store.info(&queue).await.unwrap().unwrap().redelivered, 1);
}

/// A consumer that was paused past its deadline can end and extend nothing; the one that has the message can.
pub async fn who_is_too_late_changes_nothing<S: QueueStore>(store: Arc<S>) {
    let queue = unique("late");
    put(&*store, &queue, vec![item(1)]).await;
    let late = take(&*store, &queue, 1, SHORT).await.remove(0);
    let now = take(&*store, &queue, 1, LONG).await.remove(0);
    let receipts = [late.receipt.clone()];
    let fenced = Settled { done: 0, fenced: 1 };
    assert_eq!(store.acknowledge(&receipts).await.unwrap(), fenced);
    assert_eq!(store.negative_acknowledge(&receipts, &Nack::dead("late")).await.unwrap(), fenced);
    assert_eq!(store.negative_acknowledge(&receipts, &Nack::requeue("late")).await.unwrap(), fenced);
    assert!(store.extend(&late.receipt, LONG).await.unwrap_err().is_fenced());
    assert_eq!(store.info(&queue).await.unwrap().unwrap().in_flight, 1);
    assert!(store.dead_letters(&queue, 10).await.unwrap().is_empty());
    let both = [late.receipt, now.receipt];
    assert_eq!(store.acknowledge(&both).await.unwrap(), Settled { done: 1, fenced: 1 });
    nothing(&*store, &queue).await;
}

/// What was ended is not ended again.
pub async fn a_delivery_is_ended_once<S: QueueStore>(store: Arc<S>) {
    let queue = unique("once");
    put(&*store, &queue, vec![item(1), item(2)]).await;
    let taken = take_all(&*store, &queue, 2).await;
    done(&*store, &taken[0]).await;
    let receipts: Vec<_> = taken.iter().map(|one| one.receipt.clone()).collect();
    assert_eq!(store.acknowledge(&receipts).await.unwrap(), Settled { done: 1, fenced: 1 });
    let nack = Nack::requeue("again");
    assert_eq!(store.negative_acknowledge(&receipts, &nack).await.unwrap(), Settled { done: 0, fenced: 2 });
    nothing(&*store, &queue).await;
}

/// An extended delivery has a later deadline and a new receipt, and the old one is worth nothing.
pub async fn extending_gives_a_new_receipt<S: QueueStore>(store: Arc<S>) {
    let queue = unique("extend");
    put(&*store, &queue, vec![item(1)]).await;
    let one = take(&*store, &queue, 1, Duration::from_mins(2)).await.remove(0);
    let receipt = store.extend(&one.receipt, LONG).await.unwrap();
    assert_ne!(receipt, one.receipt);
    let flight = store.in_flight(&queue, 10).await.unwrap();
    assert!(flight.len() == 1 && flight[0].deadline > one.deadline, "{flight:?}");
    assert_eq!(flight[0].attempt, 1);
    assert_eq!(store.acknowledge(std::slice::from_ref(&one.receipt)).await.unwrap(), Settled { done: 0, fenced: 1 });
    assert!(store.extend(&one.receipt, LONG).await.unwrap_err().is_fenced());
    let shorter = store.extend(&receipt, SHORT).await.unwrap();
    let again = take(&*store, &queue, 1, LONG).await.remove(0);
    assert_eq!((again.id, again.attempt), (one.id, 2));
    assert_eq!(store.acknowledge(&[shorter]).await.unwrap(), Settled { done: 0, fenced: 1 });
    done(&*store, &again).await;
}

/// A message is handed out again, or becomes a dead letter with its reason.
pub async fn a_message_goes_back_with_a_reason<S: QueueStore>(store: Arc<S>) {
    let queue = unique("back");
    let mut new = item(1).key("k");
    new.meta = full_meta();
    put(&*store, &queue, vec![new.clone()]).await;
    let first = take(&*store, &queue, 1, LONG).await.remove(0);
    back(&*store, &first, &Nack::requeue("busy")).await;
    let second = take(&*store, &queue, 1, LONG).await.remove(0);
    assert_eq!((second.id, second.attempt), (first.id, 2));
    back(&*store, &second, &Nack::dead("the card was refused: 'ä'")).await;
    nothing(&*store, &queue).await;
    let dead = store.dead_letters(&queue, 10).await.unwrap().remove(0);
    assert_eq!((dead.id, &*dead.reason, dead.attempts), (first.id, "the card was refused: 'ä'", 2));
    assert_eq!((dead.key, dead.meta, dead.kind), (new.key, new.meta, new.kind));
    assert!(same(&dead.data, &new.data) && dead.dead_at >= dead.enqueued_at);
}

/// A message that goes back for a time comes again after it, not before.
pub async fn a_message_goes_back_for_a_time<S: QueueStore>(store: Arc<S>) {
    let queue = unique("later");
    put(&*store, &queue, vec![item(1), item(2)]).await;
    let taken = take_all(&*store, &queue, 2).await;
    back(&*store, &taken[0], &Nack::later(LONG, "much later")).await;
    nothing(&*store, &queue).await;
    assert_eq!(store.info(&queue).await.unwrap().unwrap().delayed, 1);
    back(&*store, &taken[1], &Nack::later(SHORT, "soon")).await;
    let again = take(&*store, &queue, 10, LONG).await;
    assert_eq!(again.iter().map(|one| one.id).collect::<Vec<_>>(), [taken[1].id]);
}

/// The last attempt that fails, by its consumer or by its deadline, makes a dead letter.
pub async fn a_message_is_delivered_so_often_and_no_more<S: QueueStore + ConfigStore>(store: Arc<S>) {
    let queue = unique("often");
    store.configure(&StreamConfig { max_attempts: 2, ..config(&queue) }).await.unwrap();
    put(&*store, &queue, vec![item(1)]).await;
    for attempt in 1..=2 {
        let one = take(&*store, &queue, 1, LONG).await.remove(0);
        assert_eq!(one.attempt, attempt);
        back(&*store, &one, &Nack::requeue(format!("failure {attempt}"))).await;
    }
    nothing(&*store, &queue).await;
    let dead = store.dead_letters(&queue, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].attempts, &*dead[0].reason), (1, 2, "failure 2"));
    put(&*store, &queue, vec![item(2)]).await;
    take(&*store, &queue, 1, SHORT).await;
    assert_eq!(take(&*store, &queue, 1, SHORT).await[0].attempt, 2);
    let dead = eventually("the second message is dead", || async {
        store.sweep().await.unwrap();
        assert!(store.dequeue(&queue, "late", 1, LONG).await.unwrap().is_empty(), "it came a third time");
        let dead = store.dead_letters(&queue, 10).await.unwrap();
        (dead.len() == 2).then_some(dead)
    })
    .await;
    assert_eq!(dead.iter().map(|one| number(&one.data)).collect::<Vec<_>>(), [1, 2], "the oldest first");
    assert!(!dead[1].reason.is_empty());
}

/// A dead letter holds back those behind it, of its key only; redriven, all come as they were put in.
pub async fn a_dead_letter_parks_its_key_and_is_redriven_in_order<S: QueueStore>(store: Arc<S>) {
    let queue = unique("park");
    let key = |n: usize| item(n).key("poisoned");
    put(&*store, &queue, vec![key(1), key(2), item(3).key("other")]).await;
    let taken = take_all(&*store, &queue, 2).await;
    let poison = taken.iter().find(|one| number(&one.data) == 1).unwrap();
    back(&*store, poison, &Nack::dead("poison")).await;
    for other in taken.iter().filter(|one| number(&one.data) == 3) {
        done(&*store, other).await;
    }
    put(&*store, &queue, vec![key(4), item(5).key("other"), item(6)]).await;
    let free = take_all(&*store, &queue, 2).await;
    assert_eq!(free.iter().map(|one| number(&one.data)).collect::<HashSet<_>>(), HashSet::from([5, 6]));
    nothing(&*store, &queue).await;
    assert_eq!(store.redrive(&queue, &Redrive::Key("other".into())).await.unwrap(), 0);
    assert_eq!(store.redrive(&queue, &Redrive::Key("poisoned".into())).await.unwrap(), 1);
    for wanted in [1, 2, 4] {
        let one = take(&*store, &queue, 10, LONG).await;
        assert_eq!(one.iter().map(|one| number(&one.data)).collect::<Vec<_>>(), [wanted]);
        done(&*store, &one[0]).await;
    }
    nothing(&*store, &queue).await;
}

/// Where keys are not parked, those behind a dead letter go on.
pub async fn a_dead_letter_does_not_hold_its_key_where_that_is_configured<S: QueueStore + ConfigStore>(store: Arc<S>) {
    let queue = unique("unparked");
    store.configure(&StreamConfig { park_keys: false, ..config(&queue) }).await.unwrap();
    put(&*store, &queue, (1..=4).map(|n| item(n).key("k")).collect()).await;
    for wanted in 1..=4 {
        let one = take(&*store, &queue, 10, LONG).await.remove(0);
        assert_eq!(number(&one.data), wanted);
        if wanted % 2 == 1 {
            back(&*store, &one, &Nack::dead("odd")).await;
        } else {
            done(&*store, &one).await;
        }
    }
    assert_eq!(store.redrive(&queue, &Redrive::All).await.unwrap(), 2);
    for wanted in [1, 3] {
        let one = take(&*store, &queue, 10, LONG).await;
        assert_eq!(one.iter().map(|one| number(&one.data)).collect::<Vec<_>>(), [wanted]);
        done(&*store, &one[0]).await;
    }
}

/// A dead letter that is put back has no attempts behind it, and is no dead letter any more.
pub async fn redriven_messages_begin_anew<S: QueueStore + ConfigStore>(store: Arc<S>) {
    let queue = unique("anew");
    store.configure(&StreamConfig { max_attempts: 2, ..config(&queue) }).await.unwrap();
    put(&*store, &queue, vec![item(1)]).await;
    for _ in 0..2 {
        let mut id = None;
        for attempt in 1..=2 {
            let one = take(&*store, &queue, 1, LONG).await.remove(0);
            assert_eq!(one.attempt, attempt);
            assert_eq!(*id.get_or_insert(one.id), one.id);
            back(&*store, &one, &Nack::requeue("no")).await;
        }
        assert_eq!(store.redrive(&queue, &Redrive::All).await.unwrap(), 1);
        assert!(store.dead_letters(&queue, 10).await.unwrap().is_empty());
    }
    done(&*store, &take(&*store, &queue, 1, LONG).await[0]).await;
    assert_eq!(store.redrive(&queue, &Redrive::All).await.unwrap(), 0);
}

/// Only the dead letters that are named go back.
pub async fn dead_letters_are_redriven_by_id<S: QueueStore>(store: Arc<S>) {
    let queue = unique("by-id");
    put(&*store, &queue, (1..=3).map(item).collect()).await;
    for one in take_all(&*store, &queue, 3).await {
        back(&*store, &one, &Nack::dead("no")).await;
    }
    let dead = store.dead_letters(&queue, 10).await.unwrap();
    let chosen = dead.iter().find(|one| number(&one.data) == 2).unwrap().id;
    let ids = Redrive::Ids(vec![chosen, uuid::Uuid::now_v7()]);
    assert_eq!(store.redrive(&queue, &ids).await.unwrap(), 1);
    let one = take(&*store, &queue, 10, LONG).await;
    assert_eq!(one.iter().map(|one| one.id).collect::<Vec<_>>(), [chosen]);
    assert_eq!(store.dead_letters(&queue, 1).await.unwrap().len(), 1);
    assert_eq!(store.dead_letters(&queue, 10).await.unwrap().len(), 2);
}

/// A message with a delay is handed out after it, and later ones of its key wait for it.
pub async fn a_delayed_message_waits<S: QueueStore>(store: Arc<S>) {
    let queue = unique("delay");
    let start = Moment::now();
    put(&*store, &queue, vec![item(1).delay(LONG), item(2).delay(SHORT).key("k"), item(3).key("k"), item(4)]).await;
    let first = take(&*store, &queue, 10, LONG).await;
    assert_eq!(first.iter().map(|one| number(&one.data)).collect::<Vec<_>>(), [4]);
    let second = take(&*store, &queue, 10, LONG).await;
    assert_eq!(second.iter().map(|one| number(&one.data)).collect::<Vec<_>>(), [2]);
    assert!(start.until(Moment::now()) >= SHORT, "it came before its time");
    done(&*store, &second[0]).await;
    assert_eq!(number(&take(&*store, &queue, 10, LONG).await[0].data), 3);
    nothing(&*store, &queue).await;
    assert_eq!(store.info(&queue).await.unwrap().unwrap().delayed, 1);
}

/// Of messages that are ready those of a higher priority go first.
pub async fn higher_priorities_go_first<S: QueueStore>(store: Arc<S>) {
    let queue = unique("priority");
    put(&*store, &queue, vec![item(3).priority(-1), item(2), item(1).priority(7)]).await;
    for wanted in 1..=3 {
        assert_eq!(number(&take(&*store, &queue, 1, LONG).await[0].data), wanted);
    }
}

/// A second message of a dedup id is not put in, whether the first is in the queue still or done.
pub async fn a_dedup_id_comes_once<S: QueueStore>(store: Arc<S>) {
    let queue = unique("dedup");
    let answers = put(&*store, &queue, vec![item(1).dedup_id("a"), item(2).dedup_id("a"), item(3)]).await;
    assert!(matches!(answers[..], [Enqueued::New(_), Enqueued::Duplicate, Enqueued::New(_)]), "{answers:?}");
    let answers = put(&*store, &queue, vec![item(4).dedup_id("b"), item(5).dedup_id("a")]).await;
    assert!(matches!(answers[..], [Enqueued::New(_), Enqueued::Duplicate]), "{answers:?}");
    let taken = take_all(&*store, &queue, 3).await;
    let numbers: HashSet<_> = taken.iter().map(|one| number(&one.data)).collect();
    assert_eq!(numbers, HashSet::from([1, 3, 4]));
    for one in &taken {
        done(&*store, one).await;
    }
    assert_eq!(put(&*store, &queue, vec![item(6).dedup_id("a")]).await, [Enqueued::Duplicate]);
    assert!(matches!(put(&*store, &unique("dedup"), vec![item(7).dedup_id("a")]).await[..], [Enqueued::New(_)]));
    nothing(&*store, &queue).await;
}

/// Purging removes what waits and what is dead; what is out stays with its consumer.
pub async fn purging_leaves_what_is_handed_out<S: QueueStore>(store: Arc<S>) {
    let queue = unique("purge");
    put(&*store, &queue, (1..=2).map(item).collect()).await;
    let taken = take_all(&*store, &queue, 2).await;
    back(&*store, &taken[0], &Nack::dead("no")).await;
    put(&*store, &queue, vec![item(3), item(4).delay(LONG), item(5).key("k"), item(6).key("k")]).await;
    assert_eq!(store.purge(&queue, false).await.unwrap(), 5);
    nothing(&*store, &queue).await;
    let info = store.info(&queue).await.unwrap().unwrap();
    assert_eq!((info.ready, info.delayed, info.in_flight, info.dead), (0, 0, 1, 0));
    done(&*store, &taken[1]).await;
    put(&*store, &queue, vec![item(7).key("k")]).await;
    assert_eq!(number(&take(&*store, &queue, 10, LONG).await[0].data), 7);
}

/// Only dead letters go when only they are meant; their keys go on then.
pub async fn only_dead_letters_are_purged_when_asked<S: QueueStore>(store: Arc<S>) {
    let queue = unique("purge-dead");
    put(&*store, &queue, vec![item(1).key("k"), item(2).key("k")]).await;
    back(&*store, &take(&*store, &queue, 10, LONG).await[0], &Nack::dead("no")).await;
    nothing(&*store, &queue).await;
    assert_eq!(store.purge(&queue, true).await.unwrap(), 1);
    assert!(store.dead_letters(&queue, 10).await.unwrap().is_empty());
    assert_eq!(number(&take(&*store, &queue, 10, LONG).await[0].data), 2);
}

/// A queue says how many messages are in which state, and who has which.
pub async fn messages_are_counted_and_listed<S: QueueStore>(store: Arc<S>) {
    let queue = unique("counted");
    put(&*store, &queue, (1..=4).map(item).collect()).await;
    let dead = take(&*store, &queue, 1, LONG).await.remove(0);
    back(&*store, &dead, &Nack::dead("no")).await;
    let out = store.dequeue(&queue, "alice", 1, LONG).await.unwrap().remove(0);
    put(&*store, &queue, vec![item(5).delay(LONG)]).await;
    let info = store.info(&queue).await.unwrap().unwrap();
    assert_eq!((info.ready, info.delayed, info.in_flight, info.dead), (2, 1, 1, 1));
    assert_eq!((&*info.queue, info.redelivered), (&*queue, 0));
    assert!(info.oldest.is_some());
    assert!(store.list().await.unwrap().contains(&info));
    let flight = store.in_flight(&queue, 10).await.unwrap();
    assert_eq!(flight.len(), 1);
    assert_eq!((flight[0].id, &*flight[0].consumer, flight[0].attempt), (out.id, "alice", 1));
    assert_eq!(flight[0].deadline, out.deadline);
    assert!(flight[0].since < flight[0].deadline);
}

/// Looking at messages leaves them where they are.
pub async fn peeking_hands_nothing_out<S: QueueStore>(store: Arc<S>) {
    let queue = unique("peek");
    put(&*store, &queue, vec![item(1), item(2).delay(LONG)]).await;
    for _ in 0..2 {
        let seen = store.peek(&queue, 10).await.unwrap();
        assert_eq!(seen.iter().map(|one| number(&one.data)).collect::<Vec<_>>(), [1]);
    }
    assert_eq!(store.info(&queue).await.unwrap().unwrap().in_flight, 0);
    let one = take(&*store, &queue, 10, LONG).await.remove(0);
    assert_eq!((one.attempt, number(&one.data)), (1, 1));
    assert!(store.peek(&queue, 10).await.unwrap().is_empty());
}

/// A queue takes no more than it may hold, all or nothing, and nothing when it is closed.
pub async fn a_queue_that_is_full_or_closed_refuses<S: QueueStore + ConfigStore>(store: Arc<S>) {
    let queue = unique("full");
    store.configure(&StreamConfig { max_length: 3, ..config(&queue) }).await.unwrap();
    put(&*store, &queue, (1..=2).map(item).collect()).await;
    let error = store.enqueue(&queue, (3..=4).map(item).collect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.is_retryable(), "there may be room later");
    assert_eq!(store.info(&queue).await.unwrap().unwrap().ready, 2);
    put(&*store, &queue, vec![item(3)]).await;
    done(&*store, &take(&*store, &queue, 1, LONG).await[0]).await;
    put(&*store, &queue, vec![item(4)]).await;
    store.configure(&StreamConfig { closed: true, ..config(&queue) }).await.unwrap();
    let error = store.enqueue(&queue, vec![item(5)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(take_all(&*store, &queue, 3).await.len(), 3);
}

/// Who waits is woken by what is put in, and by what becomes due.
pub async fn waiting_ends_when_something_is_put_in<S: QueueStore + 'static>(store: Arc<S>) {
    let queue = unique("wait");
    tokio::time::timeout(PATIENCE, store.wait(&queue, Duration::from_millis(20))).await.expect("it ends").unwrap();
    for delay in [Duration::ZERO, SHORT] {
        let waiter = tokio::spawn({
            let (store, queue) = (Arc::clone(&store), queue.clone());
            async move {
                loop {
                    store.wait(&queue, PATIENCE).await.unwrap();
                    let taken = store.dequeue(&queue, "waiter", 1, LONG).await.unwrap();
                    if let Some(one) = taken.first() {
                        return one.clone();
                    }
                }
            }
        });
        tokio::task::yield_now().await;
        put(&*store, &queue, vec![item(1).delay(delay)]).await;
        let one = tokio::time::timeout(PATIENCE / 2, waiter).await.expect("the waiter is woken").unwrap();
        done(&*store, &one).await;
    }
}

/// A queue that nobody has put anything into is empty, and a receipt that nobody has given is worth nothing.
pub async fn what_does_not_exist_is_empty<S: QueueStore>(store: Arc<S>) {
    let queue = unique("none");
    nothing(&*store, &queue).await;
    assert!(store.info(&queue).await.unwrap().is_none());
    assert!(store.peek(&queue, 1).await.unwrap().is_empty());
    assert!(store.in_flight(&queue, 1).await.unwrap().is_empty());
    assert!(store.dead_letters(&queue, 1).await.unwrap().is_empty());
    assert_eq!(store.redrive(&queue, &Redrive::All).await.unwrap(), 0);
    assert_eq!(store.purge(&queue, false).await.unwrap(), 0);
    assert_eq!(store.acknowledge(&[]).await.unwrap(), Settled::default());
    let forged = [Receipt("no receipt".into()), Receipt("".into())];
    assert_eq!(store.acknowledge(&forged).await.unwrap(), Settled { done: 0, fenced: 2 });
    assert!(store.extend(&forged[0], LONG).await.unwrap_err().is_fenced());
}
