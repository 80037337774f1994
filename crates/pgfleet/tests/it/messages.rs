//! From one service's transaction to another's handler, over each transport.

use std::sync::Arc;
use std::time::Duration;

use pgfleet::messages::{Failure, Handle, Message, MessageBody};
use pgfleet::{Module, Service, Tx};
use pgfleet_brokers::{Options, connect};
use pgfleet_events::{InProcess, Transport};
use pgfleet_local::testing::Broker;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::support::database;

#[derive(Serialize, Deserialize)]
struct Booked {
    number: u64,
}

impl MessageBody for Booked {
    const KIND: &'static str = "Booked";
}

struct Hear(mpsc::UnboundedSender<u64>);

impl Handle<Booked> for Hear {
    async fn handle(&self, _: &mut Tx, booked: Booked, _: &Message) -> Result<(), Failure> {
        self.0.send(booked.number)?;
        Ok(())
    }
}

fn over(broker: &str, url: String) -> Arc<dyn Transport> {
    let options = Options { name: "shop".to_owned(), ..Options::default() };
    connect(broker.parse().unwrap(), &url.into(), options).unwrap()
}

/// Both services are in this process, and share the transport.
async fn one_after_the_other(transport: Arc<dyn Transport>) {
    let (from, to) = (database().await, database().await);
    let (said, mut heard) = mpsc::unbounded_channel();
    let second = Service::builder("second").module(Module::inbox()).handle(Hear(said));
    let second = second.url(to.url()).migrator_url(to.url()).transport(transport.clone()).start().await.unwrap();
    let first = Service::builder("first").module(Module::outbox());
    let first = first.url(from.url()).migrator_url(from.url()).transport(transport).start().await.unwrap();
    for number in 0..20 {
        let mut tx = first.begin().await.unwrap();
        first.outbox().publish(&mut tx, &Booked { number }).await.unwrap();
        tx.commit().await.unwrap();
        let got = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await;
        assert_eq!(got.expect("it comes"), Some(number));
    }
    first.shutdown().await;
    second.shutdown().await;
    assert!(heard.try_recv().is_err(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_over_a_bus() {
    let bus = database().await;
    pgfleet_brokers::postgres::migrate(&pgfleet_postgres::Address::parse(&bus.url()).unwrap()).await.unwrap();
    one_after_the_other(over("postgres", bus.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_over_rabbitmq() {
    let broker = Broker::rabbitmq().await;
    one_after_the_other(over("rabbitmq", broker.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_over_nats() {
    let broker = Broker::nats().await;
    one_after_the_other(over("nats", broker.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_carried_at_its_commit_however_late_that_is() {
    let (from, to) = (database().await, database().await);
    let transport: Arc<dyn Transport> = Arc::new(InProcess::new());
    let (said, mut heard) = mpsc::unbounded_channel();
    let second = Service::builder("second").module(Module::inbox()).handle(Hear(said));
    let second = second.url(to.url()).migrator_url(to.url()).transport(transport.clone()).start().await.unwrap();
    // It does not look by itself.
    let first = Service::builder("first").module(Module::outbox()).relay(|relay| relay.poll = Duration::from_hours(1));
    let first = first.url(from.url()).migrator_url(from.url()).transport(transport).start().await.unwrap();
    let mut late = first.begin().await.unwrap();
    first.outbox().publish(&mut late, &Booked { number: 2 }).await.unwrap();
    let mut soon = first.begin().await.unwrap();
    first.outbox().publish(&mut soon, &Booked { number: 1 }).await.unwrap();
    soon.commit().await.unwrap();
    let mut next = async || tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.expect("it comes");
    assert_eq!(next().await, Some(1));
    // Longer than anybody looks who is not told.
    late.execute("SELECT pg_sleep(1.5)", &[]).await.unwrap();
    late.commit().await.unwrap();
    assert_eq!(next().await, Some(2));
    first.shutdown().await;
    second.shutdown().await;
}
