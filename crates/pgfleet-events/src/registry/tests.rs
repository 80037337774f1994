use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::group::{Group, GroupOptions};
use crate::replay::{Replay, Target};
use crate::subscription::{Source, Start, StreamSubscription};
use crate::testing::{event, number};
use crate::{
    Append, ConfigStore, ConsumerStore, Direction, Expected, Json, Memory, Nack, NewItem, Position, QueueStore,
    Receipt, Retention, RetentionPolicy, StreamConfig, StreamKind, StreamStore, handler,
};

/// What begins with `m-` is in the second store, and everything else in the first.
fn two() -> (Events, Memory, Memory) {
    let (durable, memory) = (Memory::new(), Memory::new());
    let stores: [(&str, Arc<dyn EventStore>); 2] =
        [("durable", Arc::new(durable.clone())), ("memory", Arc::new(memory.clone()))];
    let events = Events::new(&Routing::new("durable").route("m-*", "memory"), stores).unwrap();
    (events, durable, memory)
}

fn append(stream: &str) -> Append {
    Append { stream: stream.into(), expected: Expected::NoStream, events: vec![event(1)] }
}

fn item(number: usize) -> NewItem {
    NewItem::new("Count", Json::trusted(number.to_string()))
}

async fn streams(store: &impl StreamStore) -> Vec<Arc<str>> {
    store.list("", None, 100).await.unwrap().into_iter().map(|info| info.stream).collect()
}

#[tokio::test]
async fn each_stream_is_in_the_store_of_its_name() {
    let (events, durable, memory) = two();
    for stream in ["m-1", "a", "m-2", "z"] {
        events.append(stream, Expected::NoStream, vec![event(1), event(2)]).await.unwrap();
    }
    assert_eq!(streams(&durable).await, ["a".into(), "z".into()] as [Arc<str>; 2]);
    assert_eq!(streams(&memory).await, ["m-1".into(), "m-2".into()] as [Arc<str>; 2]);
    assert_eq!(events.read("m-1", 2, Direction::Forward, 10).await.unwrap().len(), 1);
    // One that its name does not lead to is not listed.
    durable.append("m-3", Expected::Any, vec![event(1)]).await.unwrap();
    memory.append("b", Expected::Any, vec![event(1)]).await.unwrap();
    assert_eq!(streams(&events).await, ["a".into(), "m-1".into(), "m-2".into(), "z".into()] as [Arc<str>; 4]);
    let some = StreamStore::list(&events, "", Some("a"), 2).await.unwrap();
    assert_eq!(some.iter().map(|info| &*info.stream).collect::<Vec<_>>(), ["m-1", "m-2"]);
    assert_eq!(events.truncate("m-1", 2).await.unwrap(), 1);
    events.archive("a", true).await.unwrap();
    assert!(StreamStore::info(&durable, "a").await.unwrap().unwrap().archived);
    assert_eq!(events.delete("m-2", Expected::Any).await.unwrap(), 2);
    assert!(StreamStore::info(&memory, "m-2").await.unwrap().is_none());
}

#[tokio::test]
async fn streams_of_different_stores_are_not_appended_to_together() {
    let (events, durable, memory) = two();
    events.append_several(vec![append("a"), append("b")]).await.unwrap();
    let error = events.append_several(vec![append("c"), append("m-1")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("stream c is in store durable and stream m-1 in store memory"), "{error}");
    assert!(error.hint().is_some());
    assert_eq!((streams(&durable).await.len(), streams(&memory).await.len()), (2, 0), "nothing was appended");
}

#[tokio::test]
async fn what_is_in_several_stores_is_not_read_as_if_it_were_in_one() {
    let (events, ..) = two();
    events.append("a", Expected::Any, vec![event(1)]).await.unwrap();
    events.append("m-1", Expected::Any, vec![event(2)]).await.unwrap();
    let read = async |filter: Filter| -> Result<Vec<usize>, Error> {
        Ok(events.read_all(Position::START, 10, &filter).await?.events.iter().map(number).collect())
    };
    let prefix = |prefix: &str| Filter { stream_prefix: Some(prefix.into()), ..Filter::default() };
    for refused in [Filter::default(), prefix("m"), prefix("")] {
        let error = read(refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("durable, memory"), "{error}");
        assert!(error.hint().unwrap().contains("Events::store"));
    }
    assert_eq!(read(prefix("m-")).await.unwrap(), [2]);
    assert_eq!(read(prefix("a")).await.unwrap(), [1]);
    assert_eq!(read(Filter { stream: Some("m-1".into()), ..Filter::default() }).await.unwrap(), [2]);
    assert!(events.head().await.is_err());
    assert!(events.position_at(crate::Moment::now()).await.is_err());
    assert!(StreamStore::wait(&events, Position::START, Duration::ZERO).await.is_err());
    let memory = events.store("memory").unwrap();
    assert_eq!(memory.read_all(Position::START, 10, &Filter::default()).await.unwrap().events.len(), 1);
    assert_eq!(events.store("none").unwrap_err().hint(), Some("there are durable, memory"));
}

#[tokio::test]
async fn who_follows_replays_or_reads_as_a_group_needs_to_know_nothing_of_it() {
    let (events, durable, memory) = two();
    let shared = Arc::new(events.clone());
    let mut subscription = StreamSubscription::new(shared.clone(), Source::stream("m-1"), Start::Beginning);
    let appends = async { events.append("m-1", Expected::Any, vec![event(7)]).await.map(drop) };
    let (batch, appended) = tokio::join!(subscription.next(), appends);
    appended.unwrap();
    assert_eq!(number(&batch.unwrap().events[0]), 7);
    let mut everything = StreamSubscription::new(shared.clone(), Source::all(), Start::Beginning);
    assert_eq!(everything.next().await.unwrap_err().kind(), ErrorKind::Invalid);

    let handled = Arc::new(Notify::new());
    let tells = {
        let handled = Arc::clone(&handled);
        handler::from_fn(move |events| {
            assert_eq!(events.iter().map(number).collect::<Vec<_>>(), [7]);
            handled.notify_one();
            Box::pin(std::future::ready(Ok(())))
        })
    };
    let filter = Filter { stream_prefix: Some("m-".into()), ..Filter::default() };
    let options = GroupOptions { filter: filter.clone(), parts: 1, ..GroupOptions::default() };
    let group = Group::new(shared.clone(), "readers", "a", Arc::new(tells), options);
    group.run(handled.notified()).await.unwrap();
    assert_eq!((memory.offsets(None).await.unwrap().len(), durable.offsets(None).await.unwrap().len()), (1, 0));

    let target = Target::Queue { store: shared.clone(), queue: "again".into() };
    let done = Replay::new(shared, Source::All(filter), Start::Beginning, target).run().await.unwrap();
    assert_eq!(done.events, 1);
    assert_eq!(QueueStore::info(&durable, "again").await.unwrap().unwrap().ready, 1);
}

#[tokio::test]
async fn receipts_lead_back_to_their_queues() {
    let (events, durable, memory) = two();
    events.enqueue("m-q", vec![item(1), item(2)]).await.unwrap();
    events.enqueue("q", vec![item(3), item(4)]).await.unwrap();
    assert_eq!(QueueStore::info(&memory, "m-q").await.unwrap().unwrap().ready, 2);
    let mut out = events.dequeue("m-q", "me", 10, Duration::from_secs(30)).await.unwrap();
    out.extend(events.dequeue("q", "me", 10, Duration::from_secs(30)).await.unwrap());
    let mut receipts: Vec<Receipt> = out.into_iter().map(|delivery| delivery.receipt).collect();
    let extended = events.extend(&receipts[0], Duration::from_mins(1)).await.unwrap();
    assert_ne!(extended, receipts[0]);
    let last = receipts.pop().unwrap();
    receipts.extend([extended, Receipt("nonsense".into()), Receipt("elsewhere/1".into())]);
    let settled = events.acknowledge(&receipts).await.unwrap();
    assert_eq!((settled.done, settled.fenced), (3, 3), "the old receipt and what is none");
    assert_eq!(events.negative_acknowledge(&[last], &Nack::dead("bad")).await.unwrap().done, 1);
    assert_eq!(durable.dead_letters("q", 10).await.unwrap().len(), 1);
    assert!(events.extend(&Receipt("nonsense".into()), Duration::ZERO).await.unwrap_err().is_fenced());
    let queues: Vec<Arc<str>> = QueueStore::list(&events).await.unwrap().into_iter().map(|info| info.queue).collect();
    assert_eq!(queues, ["m-q".into(), "q".into()] as [Arc<str>; 2]);
}

#[tokio::test]
async fn configurations_reach_the_stores_that_they_concern() {
    let (events, durable, memory) = two();
    let config = |name: &str| StreamConfig { closed: true, ..StreamConfig::new(name, StreamKind::Stream) };
    for name in ["m-*", "*", "a"] {
        events.configure(&config(name)).await.unwrap();
    }
    let names = async |store: &dyn ConfigStore| -> Vec<String> {
        store.configs().await.unwrap().iter().map(|config| config.name.to_string()).collect()
    };
    assert_eq!(names(&durable).await, ["*", "a"]);
    assert_eq!(names(&memory).await, ["*", "m-*"]);
    assert_eq!(names(&events).await, ["*", "a", "m-*"]);
    assert!(events.config("m-7", StreamKind::Stream).await.unwrap().closed);
    assert!(events.unconfigure("*", StreamKind::Stream).await.unwrap());
    assert!(!events.unconfigure("*", StreamKind::Stream).await.unwrap());

    let retention = Retention { max_count: Some(1), ..Retention::default() };
    let policy =
        |streams: &str| RetentionPolicy { name: "short".into(), streams: streams.into(), retention, enabled: true };
    events.set_policy(&policy("*")).await.unwrap();
    assert_eq!((durable.policies().await.unwrap().len(), memory.policies().await.unwrap().len()), (1, 1));
    assert_eq!(events.policies().await.unwrap().len(), 1);
    events.set_policy(&policy("z*")).await.unwrap();
    assert_eq!((durable.policies().await.unwrap().len(), memory.policies().await.unwrap().len()), (1, 0));
    events.append("z1", Expected::Any, vec![event(1), event(2), event(3)]).await.unwrap();
    assert_eq!(events.apply_retention().await.unwrap().events, 2);
    assert!(events.remove_policy("short").await.unwrap());
}

#[tokio::test]
async fn a_group_is_found_in_the_store_that_has_it() {
    let (events, durable, memory) = two();
    let lease =
        async |store: &dyn ConsumerStore| store.lease("g", "a", 1, Position::START, Duration::from_mins(1)).await;
    assert_eq!(lease(&events).await.unwrap_err().kind(), ErrorKind::Invalid, "it could be in either");
    assert_eq!(events.reset("g", Position::START).await.unwrap_err().kind(), ErrorKind::NotFound);
    lease(&memory).await.unwrap();
    let held = lease(&events).await.unwrap().remove(0);
    events.commit(&held, Position::new(1, 5)).await.unwrap();
    assert_eq!(memory.offsets(Some("g")).await.unwrap()[0].position, Position::new(1, 5));
    events.leave("g", "a").await.unwrap();
    lease(&durable).await.unwrap();
    assert!(lease(&events).await.unwrap_err().to_string().contains("in store durable and in store memory"));
    assert_eq!(events.offsets(Some("g")).await.unwrap().len(), 2);
    assert!(durable.forget("g").await.unwrap() && events.forget("g").await.unwrap());
    assert!(!events.forget("g").await.unwrap());
    assert!(events.commit(&held, Position::START).await.unwrap_err().is_fenced());
}

#[test]
fn a_routing_that_cannot_be_is_refused() {
    let store = || -> Arc<dyn EventStore> { Arc::new(Memory::new()) };
    let refused = |routing: Routing, names: &[&'static str]| {
        let error = Events::new(&routing, names.iter().map(|name| (*name, store()))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    assert!(refused(Routing::new("a"), &["b"]).contains("store a, which is not there"));
    assert!(refused(Routing::new("a").route("x", "c"), &["a"]).contains("store c, which is not there"));
    assert!(refused(Routing::new("a").route("x*y", "a"), &["a"]).contains("no pattern"));
    assert!(refused(Routing::new("a").route("", "a"), &["a"]).contains("no pattern"));
    assert!(refused(Routing::new("a"), &["a", "a"]).contains("twice"));
    assert!(refused(Routing::new("a/b"), &["a/b"]).contains("no name"));
}
