//! NATS JetStream.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_brokers::Nats;
use pgfleet_events::{ErrorKind, Subscription, Transport};
use pgfleet_local::testing::Broker;

use crate::scenarios;
use crate::support::{Handled, handle_until, message, options, publish_all, secret};

async fn own() -> (Broker, Arc<Nats>) {
    let broker = Broker::nats().await;
    let transport = Arc::new(Nats::new(&secret(broker.url()), options()).unwrap());
    (broker, transport)
}

#[tokio::test]
async fn groups_get_their_topics() {
    let (_broker, transport) = own().await;
    scenarios::groups_get_their_topics(transport).await;
}

#[tokio::test]
async fn one_goes_back() {
    let (_broker, transport) = own().await;
    scenarios::one_goes_back(transport).await;
}

#[tokio::test]
async fn members_share() {
    let (_broker, transport) = own().await;
    scenarios::members_share(transport).await;
}

#[tokio::test]
async fn a_member_ends() {
    let (_broker, transport) = own().await;
    scenarios::a_member_ends(transport).await;
}

#[tokio::test]
async fn a_member_is_too_slow() {
    let (_broker, transport) = own().await;
    scenarios::a_member_is_too_slow(transport).await;
}

#[tokio::test]
async fn the_broker_is_killed() {
    let (broker, transport) = own().await;
    scenarios::the_broker_is_killed(transport, &broker, Duration::ZERO).await;
}

#[tokio::test]
async fn a_message_that_is_published_twice_arrives_once() {
    let (_broker, transport) = own().await;
    let mut subscriber = transport.subscribe(Subscription::new("notifications", ["trip.*"])).await.unwrap();
    let once = message("trip.booked", Some("k"), 0);
    publish_all(&*transport, &[once.clone(), once]).await;
    publish_all(&*transport, &[message("trip.booked", Some("k"), 1)]).await;
    let mut handled = Handled::default();
    handle_until(&mut *subscriber, &mut handled, 2).await;
    assert_eq!(handled.duplicates, 0);
}

#[tokio::test]
async fn topics_of_a_group_add_up() {
    let (_broker, transport) = own().await;
    let mut old = transport.subscribe(Subscription::new("notifications", ["trip.booked"])).await.unwrap();
    let new = transport.subscribe(Subscription::new("notifications", ["user.made"])).await.unwrap();
    drop(new);
    publish_all(&*transport, &[message("user.made", None, 0), message("trip.booked", None, 1)]).await;
    publish_all(&*transport, &[message("trip.ended", None, 2), message("user.made", Some("k"), 3)]).await;
    let mut handled = Handled::default();
    handle_until(&mut *old, &mut handled, 3).await;
    assert!(old.receive(9, Duration::from_millis(100)).await.unwrap().is_empty());
}

#[tokio::test]
async fn consumers_that_are_gone_are_made_again() {
    let (_broker, transport) = own().await;
    let mut subscriber = transport.subscribe(Subscription::new("notifications", ["trip.*"])).await.unwrap();
    transport.unsubscribe("notifications").await.unwrap();
    let mut arrived = false;
    for number in 0..200 {
        publish_all(&*transport, &[message("trip.booked", Some("k"), number)]).await;
        let delivered = subscriber.receive(9, Duration::from_millis(100)).await.unwrap();
        subscriber.acknowledge(&delivered).await.unwrap();
        arrived = !delivered.is_empty();
        if arrived {
            break;
        }
    }
    assert!(arrived);
}

#[tokio::test]
async fn what_is_wrong_is_said_without_secrets() {
    let (broker, _) = own().await;
    let wrong = broker.url().replace("pgfleet:", "somebody:");
    let transport = Nats::new(&secret(wrong), options()).unwrap();
    let error = transport.publish(&[message("trip.booked", None, 0)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.hint().unwrap().contains("password"), "{error:?}");
    let password = broker.url().split(['@', ':']).nth(2).unwrap().to_owned();
    assert!(!format!("{error:?} {transport:?}").contains(&password));

    let nobody = Nats::new(&secret("nats://a:b@127.0.0.1:1".to_owned()), options()).unwrap();
    let error = nobody.publish(&[message("trip.booked", None, 0)]).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("127.0.0.1:1"), "{error:?}");

    let error = Nats::new(&secret("amqp://a:hidden@h".to_owned()), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!format!("{error:?}").contains("hidden"));
}

async fn alone() -> (Nats, Broker) {
    let broker = Broker::nats().await;
    (Nats::new(&secret(broker.url()), options()).unwrap(), broker)
}

mod conformance {
    pgfleet_events::transport_conformance!(super::alone);
}
