//! Subscriptions, groups and replays on tables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgfleet_events::group::{Group, GroupOptions, OnFailure, Status};
use pgfleet_events::registry::{Events, Routing};
use pgfleet_events::replay::{Replay, ReplayState, Target};
use pgfleet_events::subscription::{Source, Start, StreamSubscription};
use pgfleet_events::{
    Append, ConsumerStore as _, Error, ErrorKind, Event, EventStore, Expected, Filter, Memory, NewEvent, NewItem,
    Position, QueueStore, Receipt, StreamStore, handler,
};
use pgfleet_events_postgres::{Options, Store};
use pgfleet_local::testing::TestServer;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::place::Place;

const PATIENCE: Duration = Duration::from_secs(30);

async fn append(store: &Store, stream: &str, number: usize) {
    store.append(stream, Expected::Any, vec![NewEvent::of("Counted", &number).unwrap()]).await.unwrap();
}

fn number(event: &Event) -> usize {
    event.data.to().unwrap()
}

/// Writers that append to their streams, in this store and as another process does, from when it is called.
fn writers(place: &Place, streams: usize, each: usize) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for stream in 0..streams {
        let store = if stream % 2 == 0 { place.store.clone() } else { place.other() };
        writers.spawn(async move {
            for n in 0..each {
                append(&store, &format!("s-{stream}"), n).await;
            }
        });
    }
    writers
}

async fn next(subscription: &mut StreamSubscription) -> Vec<Event> {
    tokio::time::timeout(PATIENCE, subscription.next()).await.expect("something comes").unwrap().events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_sees_each_event_once_and_in_order_while_many_append() {
    let place = Place::new().await;
    let (streams, each) = (6, 120);
    append(&place.store, "other", 0).await;
    let mut writing = writers(&place, streams, each);
    let all = {
        let wanted = Filter { stream_prefix: Some("s-".into()), ..Filter::default() };
        let store = Arc::new(place.store.clone());
        let mut subscription = StreamSubscription::new(store, Source::All(wanted), Start::Beginning).page(7);
        tokio::spawn(async move {
            let (mut versions, mut last, mut total) = (HashMap::new(), Position::START, 0);
            while total < streams * each {
                for event in next(&mut subscription).await {
                    let version = versions.insert(event.stream.clone(), event.version).unwrap_or(0);
                    assert_eq!(event.version, version + 1, "of {}", event.stream);
                    assert!(event.position.unwrap() > last, "the common order goes up");
                    last = event.position.unwrap();
                    total += 1;
                }
            }
            (versions, subscription)
        })
    };
    let one = {
        let store = Arc::new(place.other());
        let mut subscription = StreamSubscription::new(store, Source::stream("s-3"), Start::Beginning).page(7);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < each {
                seen.extend(next(&mut subscription).await.iter().map(number));
            }
            seen
        })
    };
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
    let (versions, subscription) = all.await.unwrap();
    assert_eq!(versions.len(), streams);
    assert!(versions.values().all(|version| *version == each as u64), "{versions:?}");
    assert_eq!(one.await.unwrap(), (0..each).collect::<Vec<_>>());
    let Start::Position(place_of_it) = subscription.place() else { panic!("of all streams") };
    let wanted = Filter { stream_prefix: Some("s-".into()), ..Filter::default() };
    let rest = place.store.read_all(place_of_it, 10, &wanted).await.unwrap();
    assert!(rest.events.is_empty() && rest.at_end, "nothing is left: {rest:?}");
}

#[tokio::test]
async fn who_follows_is_woken_and_does_not_look_all_the_time() {
    let server = TestServer::shared().await;
    // So seldom that what comes in time was not found by looking.
    let options = Options { poll: Duration::from_hours(1), ..Options::default() };
    let place = Place::with(&server, options).await;
    append(&place.store, "s", 0).await;
    for source in [Source::all(), Source::stream("s")] {
        let store = Arc::new(place.store.clone());
        let mut subscription = StreamSubscription::new(store.clone(), source.clone(), Start::End);
        let idle = tokio::time::timeout(Duration::from_millis(300), subscription.next()).await;
        assert!(idle.is_err(), "nothing is there: {idle:?}");
        // What waits behind the end waits, rather than being told to look at once.
        let head = store.head().await.unwrap();
        let began = Instant::now();
        StreamStore::wait(&*store, head, Duration::from_millis(200)).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
        let appended = Instant::now();
        let (events, ()) = tokio::join!(next(&mut subscription), append(&place.store, "s", 1));
        assert!(appended.elapsed() < Duration::from_secs(5), "it was found by looking: {:?}", appended.elapsed());
        assert_eq!(events.iter().map(number).collect::<Vec<_>>(), [1], "{source:?}");
    }
}

/// A member that runs until it is told to stop.
struct Running {
    group: Arc<Group>,
    stop: Arc<Notify>,
    task: JoinHandle<Result<(), Error>>,
    hears: mpsc::UnboundedReceiver<Event>,
}

impl Running {
    fn start(store: Store, member: &str, bad: Option<usize>, options: GroupOptions) -> Self {
        let (told, hears) = mpsc::unbounded_channel();
        let handler = handler::from_fn(move |events| {
            let answer = if events.iter().any(|event| Some(number(event)) == bad) {
                Err(Error::new(ErrorKind::Failed, "told to fail"))
            } else {
                for event in events {
                    told.send(event.clone()).unwrap_or_default();
                }
                Ok(())
            };
            Box::pin(std::future::ready(answer))
        });
        let group = Arc::new(Group::new(Arc::new(store), "readers", member, Arc::new(handler), options));
        let stop = Arc::new(Notify::new());
        let (running, stopped) = (Arc::clone(&group), Arc::clone(&stop));
        let task = tokio::spawn(async move { running.run(stopped.notified()).await });
        Self { group, stop, task, hears }
    }

    async fn until(&self, what: &str, holds: impl FnMut(&Status) -> bool) {
        let mut changes = self.group.changes();
        let held = tokio::time::timeout(PATIENCE, changes.wait_for(holds)).await.is_ok();
        assert!(held, "{what}: {:?}", self.group.status());
    }

    async fn stop(mut self) -> Vec<Event> {
        self.stop.notify_one();
        self.task.await.unwrap().unwrap();
        let mut heard = Vec::new();
        while let Ok(event) = self.hears.try_recv() {
            heard.push(event);
        }
        heard
    }
}

fn quick(parts: u32) -> GroupOptions {
    let backoff = (Duration::from_millis(1), Duration::from_millis(5));
    GroupOptions {
        parts,
        attempts: 2,
        backoff,
        lease: Duration::from_millis(600),
        batch: 20,
        ..GroupOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_leaves_nothing_out_while_its_members_come_and_go() {
    let place = Place::new().await;
    let (streams, each) = (8, 60);
    let a = Running::start(place.store.clone(), "a", None, quick(4));
    a.until("a has all parts", |parts| parts.len() == 4).await;
    let mut writing = writers(&place, streams, each);
    let b = Running::start(place.other(), "b", None, quick(4));
    b.until("b has its share", |parts| parts.len() == 2).await;
    // It is killed: others wait for the end of its leases.
    a.task.abort();
    let mut hears = a.hears;
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
    let head = place.store.head().await.unwrap();
    b.until("b has all parts, and has read everything", |parts| {
        parts.len() == 4 && parts.values().all(|part| part.state.is_live() && part.position >= head)
    })
    .await;
    let mut versions: HashMap<Arc<str>, u64> = HashMap::new();
    hears.close();
    let mut heard = Vec::new();
    while let Ok(event) = hears.try_recv() {
        heard.push(event);
    }
    heard.extend(b.stop().await);
    for event in &heard {
        let last = versions.entry(event.stream.clone()).or_default();
        assert!(event.version <= *last + 1, "{} goes from {last} to {}", event.stream, event.version);
        *last = (*last).max(event.version);
    }
    assert_eq!(versions.len(), streams);
    assert!(versions.values().all(|last| *last == each as u64), "{versions:?}");
    let offsets = place.store.offsets(Some("readers")).await.unwrap();
    assert!(offsets.iter().all(|part| part.member.is_none() && part.lag == Some(0)), "{offsets:?}");
}

#[tokio::test]
async fn what_a_group_cannot_handle_is_in_a_queue() {
    let place = Place::new().await;
    for n in 0..4 {
        append(&place.store, "s", n).await;
    }
    let on_failure = OnFailure::DeadLetter { store: Arc::new(place.store.clone()), queue: "failed".into() };
    let running = Running::start(place.store.clone(), "a", Some(2), GroupOptions { on_failure, ..quick(1) });
    running
        .until("all are done", |parts| parts.get(&0).is_some_and(|part| part.handled == 3 && part.skipped == 1))
        .await;
    assert_eq!(running.stop().await.iter().map(number).collect::<Vec<_>>(), [0, 1, 3]);
    let dead = place.store.dequeue("failed", "me", 10, Duration::from_secs(30)).await.unwrap();
    assert_eq!(dead.iter().map(|item| item.data.as_str()).collect::<Vec<_>>(), ["2"]);
    assert_eq!(dead[0].meta.headers["failure"], "told to fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_slowed_down_paused_and_ends_where_the_events_ended() {
    let place = Place::new().await;
    for n in 0..60 {
        append(&place.store, if n % 2 == 0 { "even" } else { "odd" }, n).await;
    }
    let store = Arc::new(place.store.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let handler = handler::from_fn(move |events| {
        told.lock().unwrap().extend(events.iter().map(number));
        Box::pin(std::future::ready(Ok(())))
    });
    let target = Target::Handler(Arc::new(handler));
    let replay = Replay::new(store.clone(), Source::stream("even"), Start::Version(11), target).rate(40);
    let handle = replay.handle();
    let began = Instant::now();
    let running = tokio::spawn(async move { replay.run().await });
    handle.until(|progress| progress.events >= 8).await;
    handle.pause();
    let paused = handle.until(|progress| progress.state == ReplayState::Paused).await;
    assert_eq!(paused.total, Some(20));
    append(&place.store, "even", 60).await;
    handle.resume();
    let done = running.await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!((done.state, done.events), (ReplayState::Done, 20));
    assert_eq!(*seen.lock().unwrap(), (20..60).step_by(2).collect::<Vec<_>>());

    let target = || Target::Queue { store: store.clone(), queue: "again".into() };
    for _ in 0..2 {
        let all = Replay::new(store.clone(), Source::all(), Start::Beginning, target()).name("once").run().await;
        assert_eq!(all.unwrap().events, 61);
    }
    let waiting = QueueStore::info(&*store, "again").await.unwrap().unwrap();
    assert_eq!(waiting.ready, 61, "each is there once");
}

#[tokio::test]
async fn streams_in_memory_and_on_tables_are_behind_one_face() {
    let place = Place::new().await;
    let stores: [(&str, Arc<dyn EventStore>); 2] =
        [("postgres", Arc::new(place.store.clone())), ("memory", Arc::new(Memory::new()))];
    let events = Arc::new(Events::new(&Routing::new("postgres").route("session-*", "memory"), stores).unwrap());
    for (n, stream) in ["trip-1", "session-1", "trip-2"].into_iter().enumerate() {
        events.append(stream, Expected::NoStream, vec![NewEvent::of("Counted", &n).unwrap()]).await.unwrap();
    }
    assert_eq!(StreamStore::list(&place.store, "", None, 10).await.unwrap().len(), 2, "the session is in memory only");
    let both = ["trip-1", "session-1"].map(|stream| Append {
        stream: stream.into(),
        expected: Expected::Any,
        events: vec![NewEvent::of("C", &0).unwrap()],
    });
    assert_eq!(events.append_several(both.into()).await.unwrap_err().kind(), ErrorKind::Invalid);
    let all = Filter::default();
    assert_eq!(events.read_all(Position::START, 10, &all).await.unwrap_err().kind(), ErrorKind::Invalid);
    let trips = Filter { stream_prefix: Some("trip-".into()), ..Filter::default() };
    for (source, wanted) in [(Source::stream("session-1"), vec![1]), (Source::All(trips), vec![0, 2])] {
        let mut subscription = StreamSubscription::new(events.clone(), source, Start::Beginning);
        assert_eq!(next(&mut subscription).await.iter().map(number).collect::<Vec<_>>(), wanted);
    }
    for queue in ["mails", "session-mails"] {
        events.enqueue(queue, vec![NewItem::of("Mail", &1).unwrap()]).await.unwrap();
        let out = events.dequeue(queue, "me", 10, Duration::from_secs(30)).await.unwrap();
        let receipts: Vec<Receipt> = out.into_iter().map(|delivery| delivery.receipt).collect();
        assert_eq!(events.acknowledge(&receipts).await.unwrap().done, 1, "{queue}");
    }
    assert!(QueueStore::info(&place.store, "session-mails").await.unwrap().is_none());
}
