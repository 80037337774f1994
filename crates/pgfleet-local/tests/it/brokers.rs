//! Brokers of the tests' own.

use std::net::{Ipv4Addr, TcpStream};

use pgfleet_local::testing::Broker;

fn answers(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[tokio::test]
async fn a_broker_is_killed_stopped_and_started_on_its_port() {
    let broker = Broker::nats().await;
    let port = broker.port();
    assert!(answers(port));
    broker.kill().await;
    assert!(!answers(port));
    broker.start().await;
    assert!(answers(port));
    broker.stop().await;
    assert!(!answers(port));
    broker.start().await;
    drop(broker);
    assert!(!answers(port));
}

#[tokio::test]
async fn shared_brokers_are_one_for_all_and_not_those_of_the_machine() {
    for (one, other, usual) in [
        (Broker::rabbitmq_shared().await, Broker::rabbitmq_shared().await, 5672),
        (Broker::nats_shared().await, Broker::nats_shared().await, 4222),
    ] {
        assert_eq!(one.url(), other.url());
        assert_ne!(one.port(), usual);
        drop(one);
        assert!(answers(other.port()));
    }
}
