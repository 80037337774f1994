//! What every transport over a real broker has to get through.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{Subscription, Transport};
use pgfleet_local::testing::Broker;

use crate::support::{Handled, handle_until, message, publish_all, receive_some};

/// The broker is killed and starts again while messages are published: each that was confirmed arrives, in the order of its
/// key, and publisher and subscribers need no help. Killed not before `settled` after the group has subscribed.
pub(crate) async fn the_broker_is_killed(transport: Arc<dyn Transport>, broker: &Broker, settled: Duration) {
    const MESSAGES: u64 = 3_000;
    const KEYS: u64 = 20;
    let mut subscription = Subscription::new("notifications", ["trip.*"]);
    // What was out when the broker ended comes again after it, where the broker counts the time.
    subscription.visibility = Duration::from_secs(5);
    let mut subscriber = transport.subscribe(subscription).await.unwrap();
    let subscribed = std::time::Instant::now();
    let publisher = tokio::spawn({
        let transport = transport.clone();
        async move {
            for batch in 0..MESSAGES / 50 {
                let messages: Vec<_> = (0..50)
                    .map(|at| batch * 50 + at)
                    .map(|number| message("trip.booked", Some(&format!("k{}", number % KEYS)), number))
                    .collect();
                publish_all(&*transport, &messages).await;
            }
        }
    });
    let mut handled = Handled::default();
    handle_until(&mut *subscriber, &mut handled, 300).await;
    tokio::time::sleep(settled.saturating_sub(subscribed.elapsed())).await;
    broker.kill().await;
    // Being asked while there is no broker does no harm.
    assert!(subscriber.receive(10, Duration::ZERO).await.is_ok());
    broker.start().await;
    handle_until(&mut *subscriber, &mut handled, usize::try_from(MESSAGES).unwrap()).await;
    publisher.await.unwrap();
    handled.assert_ordered();
}

/// Two members share a group; one ends with messages in its hands, and the other gets them, in the order of their keys.
pub(crate) async fn a_member_ends(transport: Arc<dyn Transport>) {
    let subscription = || Subscription::new("notifications", ["trip.*"]);
    let mut first = transport.subscribe(subscription()).await.unwrap();
    let messages: Vec<_> =
        (0..400).map(|number| message("trip.booked", Some(&format!("k{}", number % 20)), number)).collect();
    publish_all(&*transport, &messages[..200]).await;
    let mut handled = Handled::default();
    handle_until(&mut *first, &mut handled, 60).await;
    let in_hand = receive_some(&mut *first, 10).await;
    let mut second = transport.subscribe(subscription()).await.unwrap();
    drop(first);
    publish_all(&*transport, &messages[200..]).await;
    handle_until(&mut *second, &mut handled, 400).await;
    assert!(in_hand.iter().all(|delivered| handled.ids.contains(&delivered.message.id)));
    handled.assert_ordered();
}

/// Members share the keys evenly, without being told of each other.
pub(crate) async fn members_share(transport: Arc<dyn Transport>) {
    let subscription = || Subscription::new("notifications", ["trip.*"]);
    let mut first = transport.subscribe(subscription()).await.unwrap();
    let mut second = transport.subscribe(subscription()).await.unwrap();
    let mut handled = Handled::default();
    let mut sent = 0;
    let (mut by_first, mut by_second) = (0, 0);
    let mut rounds = 0;
    // Until a round in which each of them does a fair part.
    while by_first.min(by_second) < 8 {
        rounds += 1;
        assert!(rounds < 100, "{by_first} and {by_second} of 40");
        let batch: Vec<_> = (0..40).map(|at| message("trip.booked", Some(&format!("k{at}")), sent + at)).collect();
        publish_all(&*transport, &batch).await;
        sent += 40;
        (by_first, by_second) = (0, 0);
        let began = std::time::Instant::now();
        while handled.ids.len() < usize::try_from(sent).unwrap() {
            assert!(began.elapsed() < crate::support::LIMIT, "{} of {sent} came", handled.ids.len());
            for (subscriber, count) in [(&mut first, &mut by_first), (&mut second, &mut by_second)] {
                let delivered = subscriber.receive(50, Duration::from_millis(20)).await.unwrap();
                *count += delivered.len();
                for delivered in &delivered {
                    handled.handle(delivered);
                }
                subscriber.acknowledge(&delivered).await.unwrap();
            }
        }
    }
    handled.assert_ordered();
}

/// What is not handled in time goes to another member.
pub(crate) async fn a_member_is_too_slow(transport: Arc<dyn Transport>) {
    let mut subscription = Subscription::new("notifications", ["trip.*"]);
    subscription.visibility = Duration::from_secs(1);
    let mut slow = transport.subscribe(subscription.clone()).await.unwrap();
    let messages =
        [message("trip.booked", Some("k"), 0), message("trip.booked", Some("k"), 1), message("trip.booked", None, 2)];
    publish_all(&*transport, &messages).await;
    let mut stuck = Vec::new();
    while stuck.len() < 3 {
        stuck.extend(receive_some(&mut *slow, 3).await);
        // Of the key only what came at once, and never more than it was given.
        if stuck.iter().any(|d| d.message.id == messages[0].id) && stuck.iter().any(|d| d.message.key.is_none()) {
            break;
        }
    }
    let mut other = transport.subscribe(subscription).await.unwrap();
    let mut handled = Handled::default();
    handle_until(&mut *other, &mut handled, 3).await;
    handled.assert_ordered();
    // Too late, and no harm.
    slow.acknowledge(&stuck).await.unwrap();
}

/// A message that goes back comes again after its time and before later ones of its key; other keys go on.
pub(crate) async fn one_goes_back(transport: Arc<dyn Transport>) {
    let mut subscriber = transport.subscribe(Subscription::new("notifications", ["trip.*"])).await.unwrap();
    publish_all(&*transport, &[message("trip.booked", Some("a"), 0)]).await;
    let first = receive_some(&mut *subscriber, 1).await;
    assert_eq!(first[0].attempt, 1);
    let began = std::time::Instant::now();
    let delay = Duration::from_millis(700);
    subscriber.give_back(&first[0], delay).await.unwrap();
    let later =
        [message("trip.booked", Some("a"), 1), message("trip.booked", Some("b"), 0), message("trip.booked", None, 0)];
    publish_all(&*transport, &later).await;
    let mut keys = Vec::new();
    while keys.len() < 4 {
        let delivered = receive_some(&mut *subscriber, 9).await;
        for delivered in &delivered {
            if delivered.message.id == first[0].message.id {
                assert!(began.elapsed() >= delay, "after {:?}", began.elapsed());
                assert_eq!(delivered.attempt, 2);
            }
            keys.push(delivered.message.id);
        }
        subscriber.acknowledge(&delivered).await.unwrap();
    }
    let place = |id| keys.iter().position(|key| *key == id).unwrap();
    assert!(place(first[0].message.id) < place(later[0].id));
    assert!(place(later[1].id) < place(first[0].message.id), "another key waited");
    assert!(place(later[2].id) < place(first[0].message.id), "one without a key waited");
}

/// Groups get what they subscribed to and nothing else, with all that is said about it, from their subscription on.
pub(crate) async fn groups_get_their_topics(transport: Arc<dyn Transport>) {
    let nobodys = message("trip.booked", None, 0);
    publish_all(&*transport, std::slice::from_ref(&nobodys)).await;
    let mut all = transport.subscribe(Subscription::new("audit", ["*"])).await.unwrap();
    let mut trips = transport.subscribe(Subscription::new("trips", ["trip.bo*", "user.made"])).await.unwrap();
    // Nobody is there when it is published.
    drop(transport.subscribe(Subscription::new("later", ["trip.*"])).await.unwrap());
    let mut booked = message("trip.booked", Some("k"), 1);
    booked.meta.tenant = Some("t_1".into());
    booked.meta.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    booked.meta.headers.insert("colour".to_owned(), "grün".to_owned());
    let messages =
        [booked.clone(), message("trip.ended", Some("k"), 2), message("user.made", None, 3), message("user", None, 4)];
    publish_all(&*transport, &messages).await;
    let mut handled = Handled::default();
    handle_until(&mut *all, &mut handled, 4).await;
    let mut handled = Handled::default();
    handle_until(&mut *trips, &mut handled, 2).await;
    assert!(handled.ids.contains(&messages[0].id) && handled.ids.contains(&messages[2].id));
    let mut later = transport.subscribe(Subscription::new("later", ["trip.*"])).await.unwrap();
    let first = receive_some(&mut *later, 1).await;
    assert_eq!(first[0].message, booked);
    later.acknowledge(&first).await.unwrap();
    drop(later);
    // Forgotten: what was kept for it is gone, and it begins anew.
    transport.unsubscribe("later").await.unwrap();
    let mut later = transport.subscribe(Subscription::new("later", ["trip.*"])).await.unwrap();
    let fresh = message("trip.booked", Some("k"), 5);
    publish_all(&*transport, std::slice::from_ref(&fresh)).await;
    assert_eq!(receive_some(&mut *later, 9).await[0].message.id, fresh.id);
}
