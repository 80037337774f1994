//! Tenants follow their services over brokers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgfleet_brokers::{BrokerKind, Options, connect};
use pgfleet_control::Solution;
use pgfleet_control::chain::{BrokerTransport, ChainOptions, Received, Transport as _, Until};
use pgfleet_control::tenants::Choices;
use pgfleet_events::{Answer, Delivered, InProcess, Message, Published, Subscriber, Subscription, Transport};
use pgfleet_local::testing::Broker;
use pgfleet_migrate::options::Stop;

use crate::chain::{Chained, Log, apply};
use crate::support::{Admin, Town};
use crate::tenants::{silent, string};

const PATIENCE: Duration = Duration::from_secs(30);

/// A broker of which nobody would want to depend: it delivers each message twice, and loses what it is told to.
#[derive(Debug, Default)]
struct Careless {
    queue: Arc<Mutex<VecDeque<Message>>>,
    loses: Arc<Mutex<bool>>,
}

impl Transport for Careless {
    fn name(&self) -> &'static str {
        "careless"
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>> {
        Box::pin(async move {
            if !*self.loses.lock().unwrap() {
                self.queue
                    .lock()
                    .unwrap()
                    .extend(messages.iter().flat_map(|message| [message.clone(), message.clone()]));
            }
            Ok(messages.iter().map(|_| Ok(())).collect())
        })
    }

    fn subscribe(&self, _: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        let subscriber: Box<dyn Subscriber> =
            Box::new(Careless { queue: self.queue.clone(), loses: self.loses.clone() });
        Box::pin(async move { Ok(subscriber) })
    }

    fn unsubscribe<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Subscriber for Careless {
    fn receive(&mut self, max: usize, _: Duration) -> Answer<'_, Vec<Delivered>> {
        let mut queue = self.queue.lock().unwrap();
        let count = max.min(queue.len());
        let messages = queue.drain(..count).map(|message| Delivered { receipt: "".into(), attempt: 1, message });
        let messages: Vec<Delivered> = messages.collect();
        Box::pin(async move { Ok(messages) })
    }

    fn acknowledge<'a>(&'a mut self, _: &'a [Delivered]) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn give_back<'a>(&'a mut self, delivered: &'a Delivered, _: Duration) -> Answer<'a, ()> {
        self.queue.lock().unwrap().push_front(delivered.message.clone());
        Box::pin(async { Ok(()) })
    }
}

/// Receives what is due, whoever of them gets it; returns who did.
async fn next<'a>(transports: &[&'a BrokerTransport], count: usize) -> Vec<(&'a BrokerTransport, Received)> {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < deadline, "only {all:?}");
        for transport in transports {
            let received = transport.receive(10).await.unwrap();
            all.extend(received.into_iter().map(|received| (*transport, received)));
        }
    }
    all.sort_by_key(|(_, received)| received.receipt);
    all
}

fn ids(received: &[(&BrokerTransport, Received)]) -> Vec<String> {
    received.iter().map(|(_, received)| received.id.clone()).collect()
}

/// What the chain expects of whatever carries its messages.
async fn keeps_its_promises(broker: Arc<dyn Transport>) {
    let chained = Chained::new().await;
    let solution = chained.town.open().await;
    let (one, two) = (BrokerTransport::of(&solution, broker.clone()), BrokerTransport::of(&solution, broker));
    let both = [&one, &two];
    let drafts = [apply("1", "acme"), apply("2", "acme"), apply("3", "globex"), apply("1", "other")];
    one.publish(&drafts).await.unwrap();
    one.publish(&drafts).await.unwrap();
    let first = next(&both, 2).await;
    assert_eq!(ids(&first), ["1", "3"], "one of a target's, and one of a cause");
    assert_eq!((&first[0].1.message, first[0].1.attempt), (&drafts[0].message, 1));
    for transport in both {
        assert!(transport.receive(10).await.unwrap().is_empty());
    }
    // One that failed keeps those behind it waiting, for its time.
    let (holder, received) = &first[0];
    assert!(holder.retry(received, Duration::from_mins(10), "no").await.unwrap());
    for transport in both {
        assert!(transport.receive(10).await.unwrap().is_empty());
    }
    chained.control().await.execute_all("update control.messages set not_before = now()").await.unwrap();
    let again = next(&both, 1).await;
    assert_eq!((ids(&again), again[0].1.attempt), (vec!["1".to_owned()], 2));
    // Who has not got it any more changes nothing.
    assert!(again[0].0.give_back(&again[0].1).await.unwrap());
    assert!(!again[0].0.fail(&again[0].1, "late").await.unwrap());
    let again = next(&both, 1).await;
    assert_eq!((ids(&again), again[0].1.attempt), (vec!["1".to_owned()], 2));
    // What follows comes with the end of it, once.
    let following = [apply("4", "acme"), apply("3", "globex")];
    assert!(again[0].0.ack(&again[0].1, &following, "done").await.unwrap());
    assert!(!again[0].0.ack(&again[0].1, &[apply("5", "acme")], "done").await.unwrap());
    let second = next(&both, 1).await;
    assert_eq!(ids(&second), ["2"]);
    // Set aside it waits for somebody, and nobody behind it does.
    assert!(second[0].0.fail(&second[0].1, "no").await.unwrap());
    let fourth = next(&both, 1).await;
    assert_eq!(ids(&fourth), ["4"]);
    assert!(fourth[0].0.ack(&fourth[0].1, &[], "done").await.unwrap());
    assert_eq!(solution.start_failed_messages(None).await.unwrap(), 1);
    let started = next(&both, 1).await;
    assert_eq!((ids(&started), started[0].1.attempt), (vec!["2".to_owned()], 1));
    // Who has 3 dies, and 2 goes on with whoever is left.
    let (dead, alive) = if std::ptr::eq(first[1].0, &raw const one) { (&one, &two) } else { (&two, &one) };
    dead.stop().await.unwrap();
    let left = next(&[alive], if std::ptr::eq(started[0].0, alive) { 1 } else { 2 }).await;
    assert_eq!(left.last().unwrap().1.id, "3");
    assert!(!dead.ack(&first[1].1, &[], "late").await.unwrap());
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

async fn run_over(chained: &Chained, solution: &Solution, broker: &Arc<dyn Transport>) -> Vec<String> {
    let transport = Arc::new(BrokerTransport::of(solution, broker.clone()));
    let options = ChainOptions { transport: Some(transport), ..ChainOptions::of(solution, Until::Idle) };
    solution.run_chain(&options, &Stop::default(), &chained.log, &silent()).await.unwrap();
    chained.log.take()
}

/// A host's migration reaches its tenants; so do a new tenant's database, and one that failed and was started by hand.
async fn brings_tenants_along(broker: Arc<dyn Transport>) {
    let chained = Chained::new().await;
    for tenant in ["acme", "globex", "initech"] {
        chained.tenant(tenant).await;
    }
    let solution = chained.town.open().await;
    let until = async |what: &str, holds: &dyn Fn(&[Vec<String>]) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            said.extend(run_over(&chained, &solution, &broker).await);
            let mut versions = Vec::new();
            for tenant in ["acme", "globex", "initech"] {
                versions.push(chained.versions(tenant).await);
            }
            if holds(&versions) {
                return said;
            }
            assert!(Instant::now() < deadline, "{what}: {versions:?} {said:?}");
        }
    };
    until("made", &|versions| versions.iter().all(|versions| versions == &["1"])).await;
    chained.file("migrations/2_more.sql", "alter table things add column more int;");
    // In one of them it fails until somebody mends it.
    let acme = chained.town.superuser(&chained.town.service("acme")).await;
    acme.execute_all("alter table things add column more int").await.unwrap();
    chained.migrate().await;
    let said = until("followed", &|versions| versions[1..].iter().all(|versions| versions == &["1", "2"])).await;
    let mut said = said.join("\n");
    let deadline = Instant::now() + PATIENCE;
    while solution.failed_messages().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{said}");
        said.push_str(&run_over(&chained, &solution, &broker).await.join("\n"));
    }
    assert_eq!(said.matches("try 1 of 3").count(), 1, "{said}");
    assert_eq!(said.matches("failed for the last time").count(), 1, "{said}");
    acme.execute_all("alter table things drop column more").await.unwrap();
    assert_eq!(solution.start_failed_messages(Some("acme")).await.unwrap(), 1);
    until("mended", &|versions| versions.iter().all(|versions| versions == &["1", "2"])).await;
    assert!(solution.failed_messages().await.unwrap().is_empty());
    let left = "select count(*) from control.messages where state <> 'done'";
    assert_eq!(chained.control_column(left).await, ["0"]);
}

#[tokio::test]
async fn a_broker_that_repeats_messages_changes_nothing() {
    Box::pin(keeps_its_promises(Arc::new(Careless::default()))).await;
    brings_tenants_along(Arc::new(Careless::default())).await;
}

fn over(kind: BrokerKind, broker: &Broker, name: &str) -> Arc<dyn Transport> {
    let options = Options { name: name.to_owned(), ..Options::default() };
    connect(kind, &broker.url().into(), options).unwrap()
}

/// The name of nobody else's messages on a broker that tests share.
fn name() -> String {
    format!("chain-{}", rand::random::<u32>())
}

#[tokio::test]
async fn rabbitmq_carries_the_messages() {
    let broker = Broker::rabbitmq_shared().await;
    Box::pin(keeps_its_promises(over(BrokerKind::RabbitMq, &broker, &name()))).await;
    brings_tenants_along(over(BrokerKind::RabbitMq, &broker, &name())).await;
}

#[tokio::test]
async fn nats_carries_the_messages() {
    let broker = Broker::nats_shared().await;
    Box::pin(keeps_its_promises(over(BrokerKind::Nats, &broker, &name()))).await;
    brings_tenants_along(over(BrokerKind::Nats, &broker, &name())).await;
}

#[tokio::test]
async fn the_bus_carries_the_messages() {
    let server = pgfleet_local::testing::TestServer::shared().await;
    let bus = server.database().await;
    pgfleet_brokers::postgres::migrate(&pgfleet_postgres::Address::parse(&bus.url()).unwrap()).await.unwrap();
    let over = |name: String| {
        connect(BrokerKind::Postgres, &bus.url().into(), Options { name, ..Options::default() }).unwrap()
    };
    Box::pin(keeps_its_promises(over(name()))).await;
    brings_tenants_along(over(name())).await;
}

#[tokio::test]
async fn one_process_carries_the_messages() {
    Box::pin(keeps_its_promises(Arc::new(InProcess::new()))).await;
    brings_tenants_along(Arc::new(InProcess::new())).await;
}

/// By the manifest alone, as the roles that provisioning made.
#[tokio::test]
async fn the_broker_of_the_manifest_is_used() {
    for broker in ["postgres", "in-process"] {
        let town = Town::new(15, Admin::Superuser).await;
        town.write_whole_manifest(
            "",
            &format!(
                "[events]\nbroker = \"{broker}\"\nchain = \"broker\"\n{}[services.{{}}_trip]\ntenants = \"own\"\n\
                 modules = [\"outbox\"]\n",
                if broker == "postgres" { "database = \"{}_bus\"\n" } else { "" }
            ),
        );
        town.provision().await;
        town.migrate().await;
        let solution = town.open().await;
        let text = format!("dbname={}", town.service("acme"));
        let unseen = Choices { check: false, shared: false };
        solution.create_tenant("acme", None, &[string("", text)], unseen, &silent()).await.unwrap();
        let log = Log::default();
        let deadline = Instant::now() + PATIENCE;
        let control = town.superuser(&town.service("control")).await;
        let done = "select count(*) = 0 from control.messages where state <> 'done'";
        loop {
            let options = ChainOptions::of(&solution, Until::Idle);
            solution.run_chain(&options, &Stop::default(), &log, &silent()).await.unwrap();
            if control.simple(done).await.unwrap()[0].get(0) == Some("t") {
                break;
            }
            assert!(Instant::now() < deadline, "{broker}: {:?}", log.take());
        }
        let carried = "select count(*) from control.messages where published_at is null";
        assert_eq!(control.simple(carried).await.unwrap()[0].get(0), Some("0"), "{broker}");
        let acme = town.superuser(&town.service("acme")).await;
        acme.execute_all("select from outbox_messages").await.unwrap();
    }
}

#[tokio::test]
async fn what_a_broker_lost_is_published_again() {
    let chained = Chained::new().await;
    let solution = chained.town.open().await;
    let broker = Careless::default();
    let loses = broker.loses.clone();
    let transport = BrokerTransport::of(&solution, Arc::new(broker));
    transport.publish(&[apply("1", "acme")]).await.unwrap();
    *loses.lock().unwrap() = true;
    assert!(transport.receive(10).await.unwrap().is_empty());
    *loses.lock().unwrap() = false;
    assert!(transport.receive(10).await.unwrap().is_empty(), "it may be on its way still");
    let later = "update control.messages set published_at = published_at - interval '2 minutes'";
    chained.control().await.execute_all(later).await.unwrap();
    assert_eq!(ids(&next(&[&transport], 1).await), ["1"]);
    transport.stop().await.unwrap();
}
