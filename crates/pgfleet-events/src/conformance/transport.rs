//! What a [`Transport`] must keep.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use super::{LONG, PATIENCE, full_meta, number, unique};
use crate::json::Json;
use crate::message::Message;
use crate::moment::Moment;
use crate::transport::{Delivered, Subscriber, Subscription, Transport};

/// Makes a `#[test]` of each rule for transports.
///
/// The argument is an async function that returns a [`Transport`](crate::Transport) and what must live as long.
#[macro_export]
macro_rules! transport_conformance {
    ($make:expr) => {
        $crate::conformance_rules!($make, transport:
            the_envelope_arrives_as_it_was_sent
            each_group_gets_every_message
            members_of_a_group_share_its_messages
            a_group_gets_its_topics_and_no_others
            messages_of_a_key_arrive_in_order
            a_message_given_back_comes_before_later_ones_of_its_key
            a_message_given_back_waits_for_its_time
            what_was_out_comes_again_when_its_subscriber_is_dropped
            what_is_not_acknowledged_comes_again_after_its_visibility
            messages_are_kept_while_nobody_receives
            what_was_acknowledged_does_not_come_again
            many_messages_arrive
            an_unsubscribed_group_is_forgotten
            receiving_ends_when_its_time_is_over);
    };
}

/// How long a receiver waits at a time.
const TURN: Duration = Duration::from_millis(500);

fn message(topic: &str, n: usize) -> Message {
    Message {
        id: Uuid::now_v7(),
        topic: topic.into(),
        kind: "Counted".into(),
        source: "conformance".into(),
        time: Moment::now(),
        key: None,
        data: Json::trusted(format!(r#"{{"number":{n}}}"#)),
        meta: crate::Meta::default(),
    }
}

fn keyed(topic: &str, key: &str, n: usize) -> Message {
    Message { key: Some(key.into()), ..message(topic, n) }
}

/// Publishes, and tries again what could not be confirmed.
async fn publish<T: Transport>(transport: &T, messages: &[Message]) {
    for answer in transport.publish(messages).await.unwrap() {
        answer.unwrap();
    }
}

fn wants(group: &str, topics: &[&str]) -> Subscription {
    Subscription { visibility: LONG, ..Subscription::new(group, topics.iter().copied()) }
}

async fn subscribe<T: Transport>(transport: &T, group: &str, topics: &[&str]) -> Box<dyn Subscriber> {
    transport.subscribe(wants(group, topics)).await.unwrap()
}

/// Receives until something comes.
async fn receive(subscriber: &mut dyn Subscriber, max: usize) -> Vec<Delivered> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let received = subscriber.receive(max, TURN).await.unwrap();
        assert!(received.len() <= max, "no more than {max} were asked for");
        if !received.is_empty() {
            return received;
        }
        assert!(tokio::time::Instant::now() < end, "nothing came");
    }
}

/// Receives and acknowledges until all of so many different messages came; returns them as they came first.
async fn drain(subscriber: &mut dyn Subscriber, count: usize) -> Vec<Message> {
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    while all.len() < count {
        let received = receive(subscriber, 100).await;
        subscriber.acknowledge(&received).await.unwrap();
        all.extend(received.into_iter().map(|one| one.message).filter(|message| seen.insert(message.id)));
    }
    all
}

fn numbers(messages: &[Message]) -> BTreeSet<usize> {
    messages.iter().map(|message| number(&message.data)).collect()
}

/// Everything of a message arrives as it was sent, data byte for byte.
pub async fn the_envelope_arrives_as_it_was_sent<T: Transport>(transport: Arc<T>) {
    let topic = unique("envelope");
    let mut subscriber = subscribe(&*transport, &unique("group"), &[&topic]).await;
    let full = Message {
        id: Uuid::now_v7(),
        topic: topic.as_str().into(),
        kind: "Kept.Whole".into(),
        source: "masar/trip".into(),
        time: Moment::from_micros(1_709_210_096_123_456),
        key: Some("trip-1 ä/☃".into()),
        data: Json::trusted(r#"{ "b":1,"a" : [1.50, 1e3, null, "ä € 😀 \u00e4"],  "big":12345678901234567890 }"#),
        meta: full_meta(),
    };
    let empty = Message { data: Json::trusted("null"), ..message(&topic, 0) };
    publish(&*transport, &[full.clone(), empty.clone()]).await;
    let mut arrived = drain(&mut *subscriber, 2).await;
    arrived.sort_by_key(|message| message.id != full.id);
    assert_eq!(arrived, [full, empty]);
}

/// Each group gets all messages, whatever the others do.
pub async fn each_group_gets_every_message<T: Transport>(transport: Arc<T>) {
    let topic = unique("each");
    let mut first = subscribe(&*transport, &unique("first"), &[&topic]).await;
    let mut second = subscribe(&*transport, &unique("second"), &[&topic]).await;
    publish(&*transport, &(0..50).map(|n| message(&topic, n)).collect::<Vec<_>>()).await;
    assert_eq!(numbers(&drain(&mut *first, 50).await), (0..50).collect());
    assert_eq!(numbers(&drain(&mut *second, 50).await), (0..50).collect());
}

/// What one member of a group has, another one does not get.
pub async fn members_of_a_group_share_its_messages<T: Transport>(transport: Arc<T>) {
    let (topic, group) = (unique("share"), unique("group"));
    let one = |n| Subscription { prefetch: n, ..wants(&group, &[&topic]) };
    let mut a = transport.subscribe(one(5)).await.unwrap();
    let mut b = transport.subscribe(one(5)).await.unwrap();
    publish(&*transport, &(0..40).map(|n| message(&topic, n)).collect::<Vec<_>>()).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    let (mut of_a, mut of_b) = (HashSet::new(), HashSet::new());
    while of_a.len() + of_b.len() < 40 {
        assert!(tokio::time::Instant::now() < end, "only {} and {} came", of_a.len(), of_b.len());
        for (subscriber, seen) in [(&mut a, &mut of_a), (&mut b, &mut of_b)] {
            let received = subscriber.receive(5, Duration::from_millis(50)).await.unwrap();
            assert!(received.len() <= 5);
            seen.extend(received.iter().map(|one| one.message.id));
            subscriber.acknowledge(&received).await.unwrap();
        }
    }
    assert!(of_a.is_disjoint(&of_b), "a message went to both");
    assert!(!of_a.is_empty() && !of_b.is_empty(), "one member got everything");
}

/// Topics are whole names, or beginnings with a `*` behind them.
pub async fn a_group_gets_its_topics_and_no_others<T: Transport>(transport: Arc<T>) {
    let name = unique("topics");
    let topic = |suffix: &str| format!("{name}.{suffix}");
    let mut exact = subscribe(&*transport, &unique("exact"), &[&topic("a"), &topic("b")]).await;
    let mut star = subscribe(&*transport, &unique("star"), &[&topic("a*")]).await;
    let mut all = subscribe(&*transport, &unique("all"), &[&format!("{name}*")]).await;
    let suffixes = ["a", "b", "ab", "a.c", "c"];
    let messages: Vec<_> = suffixes.iter().enumerate().map(|(n, suffix)| message(&topic(suffix), n)).collect();
    publish(&*transport, &messages).await;
    publish(&*transport, &[message(&unique("topics-of-others"), 9)]).await;
    assert_eq!(numbers(&drain(&mut *exact, 2).await), BTreeSet::from([0, 1]));
    assert_eq!(numbers(&drain(&mut *star, 3).await), BTreeSet::from([0, 2, 3]));
    assert_eq!(numbers(&drain(&mut *all, 5).await), (0..5).collect());
    for subscriber in [&mut exact, &mut star, &mut all] {
        let more = subscriber.receive(10, TURN).await.unwrap();
        let more: Vec<_> = more.iter().filter(|one| number(&one.message.data) == 9).collect();
        assert!(more.is_empty(), "{more:?} was not wanted");
    }
}

/// Messages of a key come one batch after the other, in the order of publishing, also to several members.
pub async fn messages_of_a_key_arrive_in_order<T: Transport>(transport: Arc<T>) {
    let (topic, group) = (unique("order"), unique("group"));
    let mut members = Vec::new();
    for _ in 0..2 {
        members.push(subscribe(&*transport, &group, &[&topic]).await);
    }
    for batch in 0..10 {
        let messages: Vec<_> = (0..20).map(|n| keyed(&topic, &format!("key-{}", n % 4), batch * 5 + n / 4)).collect();
        publish(&*transport, &messages).await;
    }
    let handled: Mutex<HashMap<Arc<str>, Vec<usize>>> = Mutex::default();
    let total = || handled.lock().unwrap().values().map(Vec::len).sum::<usize>();
    let receivers = members.into_iter().map(|mut member| {
        let (handled, total) = (&handled, &total);
        async move {
            let end = tokio::time::Instant::now() + PATIENCE;
            while total() < 200 {
                assert!(tokio::time::Instant::now() < end, "only {} came", total());
                let received = member.receive(7, Duration::from_millis(100)).await.unwrap();
                for one in &received {
                    let mut handled = handled.lock().unwrap();
                    let numbers = handled.entry(one.message.key.clone().unwrap()).or_default();
                    let n = number(&one.message.data);
                    // It may come twice; the first time counts.
                    if !numbers.contains(&n) {
                        numbers.push(n);
                    }
                }
                member.acknowledge(&received).await.unwrap();
            }
        }
    });
    let mut receivers: Vec<_> = receivers.map(Box::pin).collect();
    let (second, first) = (receivers.pop().unwrap(), receivers.pop().unwrap());
    tokio::join!(first, second);
    for (key, numbers) in handled.lock().unwrap().iter() {
        assert_eq!(*numbers, (0..50).collect::<Vec<_>>(), "{key}");
    }
}

/// Receives until so many messages were acknowledged, giving back the first of its key a few times.
///
/// A message that was given back is handled before later ones of its key.
pub async fn a_message_given_back_comes_before_later_ones_of_its_key<T: Transport>(transport: Arc<T>) {
    let topic = unique("back");
    let mut subscriber = subscribe(&*transport, &unique("group"), &[&topic]).await;
    publish(&*transport, &(0..5).map(|n| keyed(&topic, "k", n)).collect::<Vec<_>>()).await;
    publish(&*transport, &[keyed(&topic, "other", 9)]).await;
    let (mut given_back, mut handled, mut other) = (0, Vec::new(), false);
    while handled.len() < 5 || !other {
        let mut blocked = false;
        for one in receive(&mut *subscriber, 10).await {
            let n = number(&one.message.data);
            if n == 9 {
                other = true;
                subscriber.acknowledge(&[one]).await.unwrap();
            } else if blocked || (n == 1 && given_back < 3) {
                // What came with it and is of the same key goes back too, as a consumer in order does.
                given_back += usize::from(n == 1);
                blocked = true;
                subscriber.give_back(&one, Duration::ZERO).await.unwrap();
            } else {
                if !handled.contains(&n) {
                    handled.push(n);
                }
                subscriber.acknowledge(&[one]).await.unwrap();
            }
        }
    }
    assert_eq!(handled, [0, 1, 2, 3, 4]);
    assert_eq!(given_back, 3);
}

/// A message that was given back for a time does not come before it.
pub async fn a_message_given_back_waits_for_its_time<T: Transport>(transport: Arc<T>) {
    let topic = unique("later");
    let mut subscriber = subscribe(&*transport, &unique("group"), &[&topic]).await;
    publish(&*transport, &[message(&topic, 1)]).await;
    let one = receive(&mut *subscriber, 10).await.remove(0);
    let start = tokio::time::Instant::now();
    subscriber.give_back(&one, Duration::from_millis(700)).await.unwrap();
    let again = receive(&mut *subscriber, 10).await.remove(0);
    assert_eq!(again.message, one.message);
    assert!(start.elapsed() >= Duration::from_millis(600), "it came after {:?}", start.elapsed());
    subscriber.acknowledge(&[again]).await.unwrap();
}

/// What a subscriber had and did not acknowledge goes to another one when it is dropped, in order per key.
pub async fn what_was_out_comes_again_when_its_subscriber_is_dropped<T: Transport>(transport: Arc<T>) {
    let (topic, group) = (unique("dropped"), unique("group"));
    let mut first = subscribe(&*transport, &group, &[&topic]).await;
    publish(&*transport, &(0..6).map(|n| keyed(&topic, &format!("k{}", n % 2), n)).collect::<Vec<_>>()).await;
    let received = receive(&mut *first, 1).await;
    let done = number(&received[0].message.data);
    first.acknowledge(&received).await.unwrap();
    receive(&mut *first, 10).await;
    drop(first);
    let mut second = subscribe(&*transport, &group, &[&topic]).await;
    let mut rest: Vec<usize> = drain(&mut *second, 5).await.iter().map(|message| number(&message.data)).collect();
    // The acknowledgement may have been lost with the subscriber: at least once.
    rest.retain(|n| *n != done);
    while rest.len() < 5 {
        rest.extend(drain(&mut *second, 1).await.iter().map(|message| number(&message.data)).filter(|n| *n != done));
    }
    for key in 0..2 {
        let of_key: Vec<_> = rest.iter().copied().filter(|n| n % 2 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    assert_eq!(rest.iter().copied().collect::<BTreeSet<_>>(), (0..6).filter(|n| *n != done).collect());
}

/// What somebody has for longer than its visibility goes to another member.
pub async fn what_is_not_acknowledged_comes_again_after_its_visibility<T: Transport>(transport: Arc<T>) {
    let (topic, group) = (unique("visible"), unique("group"));
    let short = Subscription { visibility: Duration::from_secs(1), ..wants(&group, &[&topic]) };
    let mut holds = transport.subscribe(short.clone()).await.unwrap();
    publish(&*transport, &[message(&topic, 1)]).await;
    let held = receive(&mut *holds, 10).await.remove(0);
    let mut other = transport.subscribe(short).await.unwrap();
    let again = receive(&mut *other, 10).await.remove(0);
    assert_eq!(again.message, held.message);
    other.acknowledge(&[again]).await.unwrap();
    // What comes too late is no error.
    holds.acknowledge(&[held]).await.unwrap();
}

/// Once a group has subscribed, its messages are kept for it.
pub async fn messages_are_kept_while_nobody_receives<T: Transport>(transport: Arc<T>) {
    let (topic, group) = (unique("absent"), unique("group"));
    drop(subscribe(&*transport, &group, &[&topic]).await);
    publish(&*transport, &(0..10).map(|n| message(&topic, n)).collect::<Vec<_>>()).await;
    let mut subscriber = subscribe(&*transport, &group, &[&topic]).await;
    assert_eq!(numbers(&drain(&mut *subscriber, 10).await), (0..10).collect());
}

/// What was acknowledged is gone for the group.
pub async fn what_was_acknowledged_does_not_come_again<T: Transport>(transport: Arc<T>) {
    let (topic, group) = (unique("gone"), unique("group"));
    let mut first = subscribe(&*transport, &group, &[&topic]).await;
    publish(&*transport, &(0..5).map(|n| message(&topic, n)).collect::<Vec<_>>()).await;
    drain(&mut *first, 5).await;
    assert!(first.receive(10, TURN).await.unwrap().is_empty());
    publish(&*transport, &[message(&topic, 5)]).await;
    assert_eq!(numbers(&drain(&mut *first, 1).await), BTreeSet::from([5]));
}

/// Thousands of messages arrive, none missing.
pub async fn many_messages_arrive<T: Transport>(transport: Arc<T>) {
    let topic = unique("many");
    let mut subscriber = subscribe(&*transport, &unique("group"), &[&topic]).await;
    for batch in 0..10 {
        let messages: Vec<_> = (0..300).map(|n| keyed(&topic, &format!("k{}", n % 64), batch * 300 + n)).collect();
        publish(&*transport, &messages).await;
    }
    assert_eq!(numbers(&drain(&mut *subscriber, 3_000).await), (0..3_000).collect());
}

/// For a group that was forgotten nothing is kept.
pub async fn an_unsubscribed_group_is_forgotten<T: Transport>(transport: Arc<T>) {
    let (topic, group) = (unique("forgotten"), unique("group"));
    drop(subscribe(&*transport, &group, &[&topic]).await);
    publish(&*transport, &[message(&topic, 1)]).await;
    transport.unsubscribe(&group).await.unwrap();
    publish(&*transport, &[message(&topic, 2)]).await;
    let mut subscriber = subscribe(&*transport, &group, &[&topic]).await;
    publish(&*transport, &[message(&topic, 3)]).await;
    assert_eq!(numbers(&drain(&mut *subscriber, 1).await), BTreeSet::from([3]));
    drop(subscriber);
    transport.unsubscribe(&group).await.unwrap();
    transport.unsubscribe(&unique("never")).await.unwrap();
}

/// Who receives and gets nothing is let go when his time is over.
pub async fn receiving_ends_when_its_time_is_over<T: Transport>(transport: Arc<T>) {
    let mut subscriber = subscribe(&*transport, &unique("group"), &[&unique("silent")]).await;
    let received = tokio::time::timeout(PATIENCE, subscriber.receive(10, Duration::from_millis(50))).await;
    assert!(received.expect("it ends").unwrap().is_empty());
}
