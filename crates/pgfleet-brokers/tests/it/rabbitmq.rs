//! RabbitMQ.

use std::sync::Arc;

use pgfleet_brokers::{Options, RabbitMq};
use pgfleet_events::{ErrorKind, Subscription, Transport};
use pgfleet_local::testing::Broker;

use crate::scenarios;
use crate::support::{Handled, handle_until, message, options, publish_all, secret};

async fn shared() -> Arc<RabbitMq> {
    let broker = Broker::rabbitmq_shared().await;
    Arc::new(RabbitMq::new(&secret(broker.url()), options()).unwrap())
}

/// Removes what a test made on the shared broker.
async fn swept(transport: Arc<RabbitMq>, groups: &[&str]) {
    for group in groups {
        transport.unsubscribe(group).await.unwrap();
    }
}

#[tokio::test]
async fn groups_get_their_topics() {
    let transport = shared().await;
    scenarios::groups_get_their_topics(transport.clone()).await;
    assert_eq!(transport.unrouted(), 1);
    swept(transport, &["audit", "trips", "later"]).await;
}

#[tokio::test]
async fn one_goes_back() {
    let transport = shared().await;
    scenarios::one_goes_back(transport.clone()).await;
    swept(transport, &["notifications"]).await;
}

#[tokio::test]
async fn members_share() {
    let transport = shared().await;
    scenarios::members_share(transport.clone()).await;
    swept(transport, &["notifications"]).await;
}

#[tokio::test]
async fn a_member_ends() {
    let transport = shared().await;
    scenarios::a_member_ends(transport.clone()).await;
    swept(transport, &["notifications"]).await;
}

#[tokio::test]
async fn a_member_is_too_slow() {
    let transport = shared().await;
    scenarios::a_member_is_too_slow(transport.clone()).await;
    swept(transport, &["notifications"]).await;
}

#[tokio::test]
async fn the_broker_is_killed() {
    let broker = Broker::rabbitmq().await;
    let transport = RabbitMq::new(&secret(broker.url()), options()).unwrap();
    // It notes the name of a new quorum queue's log half a second later; killed before that, RabbitMQ 3.10 comes back with
    // a queue that never has a leader.
    scenarios::the_broker_is_killed(Arc::new(transport), &broker, std::time::Duration::from_secs(2)).await;
}

#[tokio::test]
async fn classic_queues_do_as_well() {
    let broker = Broker::rabbitmq_shared().await;
    let options = Options { quorum: false, ..options() };
    let transport = Arc::new(RabbitMq::new(&secret(broker.url()), options).unwrap());
    scenarios::a_member_ends(transport.clone()).await;
    swept(transport, &["notifications"]).await;
}

#[tokio::test]
async fn queues_that_are_gone_are_made_again() {
    let transport = shared().await;
    let mut subscriber = transport.subscribe(Subscription::new("notifications", ["trip.*"])).await.unwrap();
    transport.unsubscribe("notifications").await.unwrap();
    let mut handled = Handled::default();
    // What is published before the member has made them again has no queue to go to.
    for number in 0..200 {
        publish_all(&*transport, &[message("trip.booked", Some("k"), number)]).await;
        let delivered = subscriber.receive(9, std::time::Duration::from_millis(100)).await.unwrap();
        for delivered in &delivered {
            handled.handle(delivered);
        }
        subscriber.acknowledge(&delivered).await.unwrap();
        if !delivered.is_empty() {
            break;
        }
    }
    assert!(!handled.ids.is_empty());
    publish_all(&*transport, &[message("trip.booked", Some("k"), 999)]).await;
    let count = handled.ids.len() + 1;
    handle_until(&mut *subscriber, &mut handled, count).await;
    drop(subscriber);
    swept(transport, &["notifications"]).await;
}

#[tokio::test]
async fn what_is_wrong_is_said_without_secrets() {
    let broker = Broker::rabbitmq_shared().await;
    let wrong = broker.url_by(broker.port()).replace("pgfleet:", "somebody:");
    let transport = RabbitMq::new(&secret(wrong), options()).unwrap();
    let error = transport.publish(&[message("trip.booked", None, 0)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.hint().unwrap().contains("password"), "{error:?}");
    let password = broker.url().split(['@', ':']).nth(2).unwrap().to_owned();
    assert!(!format!("{error:?} {transport:?}").contains(&password));

    let nobody = RabbitMq::new(&secret("amqp://a:b@127.0.0.1:1".to_owned()), options()).unwrap();
    let error = nobody.publish(&[message("trip.booked", None, 0)]).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("127.0.0.1:1"), "{error:?}");

    let error = RabbitMq::new(&secret("nats://a:hidden@h".to_owned()), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!format!("{error:?}").contains("hidden"));
}

/// A system of its own on the shared broker.
async fn alone() -> (RabbitMq, ()) {
    let broker = Broker::rabbitmq_shared().await;
    (RabbitMq::new(&secret(broker.url()), options()).unwrap(), ())
}

mod conformance {
    pgfleet_events::transport_conformance!(super::alone);
}
