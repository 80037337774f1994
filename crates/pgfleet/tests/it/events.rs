//! Streams and queues of a service, and its keeper.

use std::sync::Arc;
use std::time::Duration;

use pgfleet::embed::Folder;
use pgfleet::events::projection::Handled;
use pgfleet::events::subscription::{Source, Start};
use pgfleet::events::{
    Append, ConfigStore as _, Direction, Event, Expected, Filter, Json, MEMORY, NewEvent, NewItem, POSTGRES, Project,
    Projection, QueueStore as _, Retention, RetentionPolicy, Routing, Store, StreamConfig, StreamKind, StreamStore,
    StreamSubscription, Transaction, failed,
};
use pgfleet::{Builder, ErrorKind, Module, Service};
use pgfleet_local::testing::TestDatabase;

use crate::support::{column, database, service, until};

const ORDERS: Folder = Folder::new(
    "m",
    "pgfleet",
    &[("1_orders.sql", "CREATE TABLE orders (id text PRIMARY KEY); CREATE TABLE sums (kind text, number bigint);")],
);

fn streaming(database: &TestDatabase) -> Builder {
    service(database, ORDERS).module(Module::event_streaming())
}

fn event(kind: &'static str) -> NewEvent {
    NewEvent::new(kind, Json::trusted("{}"))
}

async fn append(service: &Service, stream: &str, events: Vec<NewEvent>) {
    service.events().unwrap().append(stream, Expected::Any, events).await.unwrap();
}

#[tokio::test]
async fn streams_and_queues_are_where_the_routing_says() {
    let database = database().await;
    let routed = || streaming(&database).streams(Routing::new(POSTGRES).route("presence-*", MEMORY)).without_keeper();
    let service = routed().start().await.unwrap();
    append(&service, "order-1", vec![event("Placed"), event("Paid")]).await;
    append(&service, "presence-1", vec![event("Came")]).await;
    let events = service.events().unwrap();
    events.enqueue("mails", vec![NewItem::new("Mail", Json::trusted("{}"))]).await.unwrap();
    events.enqueue("presence-hints", vec![NewItem::new("Hint", Json::trusted("{}"))]).await.unwrap();
    let streams = "select distinct stream from event_streaming.events order by 1";
    assert_eq!(column(&database, streams).await, ["order-1"]);
    // Made once: the memory is the same in every clone of the service, and not another process's.
    let again = service.clone();
    let came = again.events().unwrap().read("presence-1", 1, Direction::Forward, 10).await.unwrap();
    assert_eq!(came.len(), 1);
    let other = routed().start().await.unwrap();
    let other = other.events().unwrap();
    assert_eq!(other.read("presence-1", 1, Direction::Forward, 10).await.unwrap().len(), 0);
    assert_eq!(other.peek("presence-hints", 10).await.unwrap().len(), 0);
    assert_eq!(other.peek("mails", 10).await.unwrap().len(), 1);
    let mut followed = StreamSubscription::new(Arc::new(other.clone()), Source::stream("order-1"), Start::Beginning);
    let batch = followed.next().await.unwrap();
    assert_eq!(batch.events.iter().map(|event| &*event.kind).collect::<Vec<_>>(), ["Placed", "Paid"]);
}

#[tokio::test]
async fn a_schema_of_another_name_is_the_one_that_is_used() {
    let database = database().await;
    let service = service(&database, ORDERS).module(Module::event_streaming().schema("es")).event_store(|options| {
        options.read_batch = 7;
        options.schema = "nowhere".to_owned();
    });
    let service = service.start().await.unwrap();
    append(&service, "order-1", vec![event("Placed")]).await;
    assert_eq!(column(&database, "select count(*) from es.events").await, ["1"]);
    assert_eq!(column(&database, "select count(*) > 0 from es.schema_version").await, ["t"]);
    service.shutdown().await;
}

#[tokio::test]
async fn events_of_the_service_s_own_transaction_are_there_with_its_rows_or_not_at_all() {
    let database = database().await;
    let service = streaming(&database).without_keeper().start().await.unwrap();
    let store = service.event_store().unwrap();
    for (id, commits) in [("a", false), ("b", true)] {
        let tx = service.begin().await.unwrap();
        tx.execute("INSERT INTO orders VALUES ($1)", &[&id]).await.unwrap();
        let stream = format!("order-{id}").into();
        let append = Append { stream, expected: Expected::NoStream, events: vec![event("Placed")] };
        store.append_in(&tx, vec![append]).await.unwrap();
        if commits {
            tx.commit().await.unwrap();
            store.wake();
        } else {
            tx.rollback().await.unwrap();
        }
    }
    assert_eq!(column(&database, "select id from orders").await, ["b"]);
    assert!(StreamStore::info(store, "order-a").await.unwrap().is_none());
    assert_eq!(StreamStore::info(store, "order-b").await.unwrap().unwrap().last, 1);
}

/// Counts events by their types.
struct Sums;

impl Project for Sums {
    fn events<'a>(&'a self, transaction: &'a Transaction, events: &'a [Event]) -> Handled<'a> {
        Box::pin(async move {
            for event in events {
                let kind: &str = &event.kind;
                let made = transaction.execute("INSERT INTO sums VALUES ($1, 1)", &[&kind]).await;
                made.map_err(|error| failed("an event was not counted", error))?;
            }
            Ok(())
        })
    }

    fn clear<'a>(&'a self, transaction: &'a Transaction) -> Handled<'a> {
        Box::pin(async move {
            let cleared = transaction.execute("DELETE FROM sums", &[]).await;
            cleared.map(drop).map_err(|error| failed("the sums were not cleared", error))
        })
    }
}

#[tokio::test]
async fn a_projection_of_the_service_counts_each_event_once() {
    let database = database().await;
    let service = streaming(&database).without_keeper().start().await.unwrap();
    append(&service, "order-1", vec![event("Placed"), event("Paid")]).await;
    let store: Store = service.event_store().unwrap().clone();
    let sums = Projection::new(store, "sums", "me", Filter::default(), Arc::new(Sums));
    let running = tokio::spawn(async move { sums.run().await });
    append(&service, "order-2", vec![event("Placed")]).await;
    let counts = "select kind || ' ' || count(*) from sums group by kind order by 1";
    until("all are counted", async || column(&database, counts).await == ["Paid 1", "Placed 2"]).await;
    running.abort();
}

async fn keep_one(service: &Service) {
    let retention = Retention { max_count: Some(1), ..Retention::default() };
    let policy = RetentionPolicy { name: "one".into(), streams: "order-*".into(), retention, enabled: true };
    service.events().unwrap().set_policy(&policy).await.unwrap();
}

#[tokio::test]
async fn the_keeper_runs_with_the_service_and_ends_with_it() {
    let database = database().await;
    let kept = || streaming(&database).keeper(|options| options.interval = Duration::from_millis(20));
    let service = kept().start().await.unwrap();
    keep_one(&service).await;
    append(&service, "order-1", vec![event("Placed"), event("Paid"), event("Sent")]).await;
    until("two are removed", async || service.keeper_stats().unwrap().events == 2).await;
    assert_eq!(column(&database, "select count(*) from event_streaming.events").await, ["1"]);
    service.shutdown().await;
    let done = service.keeper_stats().unwrap();
    assert!(done.rounds > 0 && done.elected == 1 && done.events == 2, "{done:?}");
    // The lease was given back: the next one leads at once, and not when it would have ended.
    let next = kept().start().await.unwrap();
    until("another one leads", async || next.keeper_stats().unwrap().elected == 1).await;
    assert_eq!(service.keeper_stats().unwrap(), done, "the one before has ended");
    // Of two, one leads.
    let second = kept().start().await.unwrap();
    until("the second looks on", async || second.keeper_stats().unwrap().looked > 0).await;
    assert_eq!(second.keeper_stats().unwrap().rounds, 0);
    let handle = next.clone();
    next.shutdown().await;
    until("the second leads", async || second.keeper_stats().unwrap().rounds > 0).await;
    handle.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn without_a_keeper_one_is_run_by_hand() {
    let database = database().await;
    let service = streaming(&database).without_keeper().start().await.unwrap();
    keep_one(&service).await;
    append(&service, "order-1", vec![event("Placed"), event("Paid")]).await;
    assert_eq!(service.keeper_stats(), None);
    let removed = service.events().unwrap().apply_retention().await.unwrap();
    assert_eq!(removed.events, 1);
    let config = StreamConfig::new("order-1", StreamKind::Stream);
    service.events().unwrap().configure(&StreamConfig { closed: true, ..config }).await.unwrap();
    let closed = service.events().unwrap().append("order-1", Expected::Any, vec![event("Late")]).await.unwrap_err();
    assert_eq!(closed.kind(), pgfleet::events::ErrorKind::Refused, "{closed}");
    let config = service.events().unwrap().config("order-1", StreamKind::Stream).await.unwrap();
    assert!(config.closed);
}

#[tokio::test]
async fn a_service_without_the_module_is_told_what_to_add() {
    let database = database().await;
    let plain = service(&database, ORDERS).start().await.unwrap();
    for error in [plain.events().map(drop).unwrap_err(), plain.event_store().map(drop).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert_eq!(error.to_string(), "trip has no streams and queues on PostgreSQL");
        let hint = error.hint().unwrap();
        assert!(hint.contains("Module::event_streaming()") && hint.contains("[\"event_streaming\"]"), "{hint}");
    }
    assert_eq!(plain.keeper_stats(), None);
    // What is to be on PostgreSQL needs it, and is refused at the start.
    let routing = || Routing::new(MEMORY).route("order-*", POSTGRES);
    let error = service(&database, ORDERS).streams(routing()).start().await.unwrap_err();
    assert_eq!(error.to_string(), "trip has no streams and queues on PostgreSQL");
    let error = streaming(&database).streams(routing().route("x-*", "redis")).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let told = format!("{error:#}");
    assert!(told.contains("trip cannot keep its streams so") && told.contains("redis"), "{told}");
    assert!(error.hint().unwrap().contains("\"memory\""), "{told}");
    // All in memory needs no tables.
    let memory = service(&database, ORDERS).streams(Routing::new(MEMORY)).start().await.unwrap();
    append(&memory, "order-1", vec![event("Placed")]).await;
    assert_eq!(memory.events().unwrap().head().await.unwrap(), {
        let page = memory.events().unwrap().read_all(pgfleet::events::Position::START, 10, &Filter::default()).await;
        page.unwrap().next
    });
    assert!(memory.event_store().is_err());
    assert_eq!(column(&database, "select count(*) from pg_namespace where nspname = 'event_streaming'").await, ["0"]);
}
