use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::testing::{Failing, event, number};
use crate::{Clock, ConsumerStore, ErrorKind, Event, Expected, Filter, Memory, Position, QueueStore, StreamStore};

const PATIENCE: Duration = Duration::from_secs(20);

/// A member that runs until it is told to stop.
struct Running {
    group: Arc<Group>,
    stop: Arc<Notify>,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(group: Group) -> Self {
        let (group, stop) = (Arc::new(group), Arc::new(Notify::new()));
        let (running, stopped) = (Arc::clone(&group), Arc::clone(&stop));
        let task = tokio::spawn(async move { running.run(stopped.notified()).await });
        Self { group, stop, task }
    }

    async fn until(&self, what: &str, holds: impl FnMut(&Status) -> bool) -> Status {
        let mut changes = self.group.changes();
        let status = tokio::time::timeout(PATIENCE, changes.wait_for(holds)).await;
        status.unwrap_or_else(|_| panic!("{what}: {:?}", self.group.status())).unwrap().clone()
    }

    async fn stop(self) {
        self.stop.notify_one();
        self.task.await.unwrap().unwrap();
    }
}

async fn append(store: &Memory, stream: &str, number: usize) {
    store.append(stream, Expected::Any, vec![event(number)]).await.unwrap();
}

fn options(parts: u32) -> GroupOptions {
    let backoff = (Duration::from_millis(1), Duration::from_millis(2));
    GroupOptions { parts, attempts: 3, backoff, ..GroupOptions::default() }
}

fn member(store: &Memory, name: &str, handler: impl Handler + 'static, options: GroupOptions) -> Group {
    Group::new(Arc::new(store.clone()), "readers", name, Arc::new(handler), options)
}

/// Sends what it is handed, and fails where it is told to.
fn telling(fails: impl Fn(&Event) -> bool + Send + Sync) -> (impl Handler, mpsc::UnboundedReceiver<Event>) {
    let (told, hears) = mpsc::unbounded_channel();
    let handler = crate::handler::from_fn(move |events| {
        let failed = events.iter().any(&fails);
        if !failed {
            for event in events {
                // Who has heard enough is gone.
                told.send(event.clone()).unwrap_or_default();
            }
        }
        let answer = if failed { Err(Error::new(ErrorKind::Failed, "told to fail")) } else { Ok(()) };
        Box::pin(std::future::ready(answer))
    });
    (handler, hears)
}

async fn hear(hears: &mut mpsc::UnboundedReceiver<Event>, count: usize) -> Vec<Event> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let event = tokio::time::timeout(PATIENCE, hears.recv()).await.unwrap_or_else(|_| panic!("only {heard:?}"));
        heard.push(event.unwrap());
    }
    heard
}

fn assert_in_order(events: &[Event]) {
    let mut versions = HashMap::new();
    for event in events {
        let last = versions.insert(event.stream.clone(), event.version).unwrap_or(0);
        assert_eq!(event.version, last + 1, "of {}", event.stream);
    }
}

#[tokio::test]
async fn a_member_alone_reads_all_parts_in_order_and_stores_how_far() {
    let store = Memory::new();
    for n in 0..30 {
        append(&store, &format!("s-{}", n % 5), n).await;
    }
    let (handler, mut hears) = telling(|_| false);
    let running = Running::start(member(&store, "a", handler, GroupOptions { batch: 4, ..options(3) }));
    let mut heard = hear(&mut hears, 30).await;
    append(&store, "s-1", 30).await;
    heard.extend(hear(&mut hears, 1).await);
    assert_in_order(&heard);
    let status = running.until("all are handled", |all| all.values().map(|part| part.handled).sum::<u64>() == 31).await;
    assert_eq!(status.len(), 3);
    running.stop().await;
    let offsets = store.offsets(Some("readers")).await.unwrap();
    assert!(offsets.iter().all(|part| part.member.is_none()), "it has left: {offsets:?}");

    // Another one finds nothing to do.
    let (handler, mut hears) = telling(|_| false);
    let running = Running::start(member(&store, "b", handler, options(3)));
    append(&store, "new", 31).await;
    assert_eq!(number(&hear(&mut hears, 1).await[0]), 31);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_share_the_parts_and_hand_them_over_while_events_come() {
    let store = Memory::new();
    let quick = || GroupOptions { lease: Duration::from_millis(150), batch: 10, ..options(4) };
    let (handler, mut first) = telling(|_| false);
    let a = Running::start(member(&store, "a", handler, quick()));
    a.until("a has all parts", |parts| parts.len() == 4).await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..2_000 {
                append(&store, &format!("s-{}", n % 20), n).await;
                tokio::task::yield_now().await;
            }
        })
    };
    let (handler, mut second) = telling(|_| false);
    let b = Running::start(member(&store, "b", handler, quick()));
    b.until("b has its share", |parts| parts.len() == 2).await;
    a.until("a has given up what is not its", |parts| parts.len() == 2).await;
    writer.await.unwrap();
    a.stop().await;
    b.until("b has taken over, and everything is read", |parts| {
        parts.len() == 4 && parts.values().all(|part| part.state.is_live())
    })
    .await;
    b.stop().await;
    let mut versions: HashMap<Arc<str>, u64> = HashMap::new();
    let mut heard = Vec::new();
    while let Ok(event) = first.try_recv() {
        heard.push(event);
    }
    while let Ok(event) = second.try_recv() {
        heard.push(event);
    }
    // What one member had handled and not stored yet, when its part went, the other handles again; nothing is missing.
    for event in &heard {
        let last = versions.entry(event.stream.clone()).or_default();
        assert!(event.version <= *last + 1, "{} goes from {last} to {}", event.stream, event.version);
        *last = (*last).max(event.version);
    }
    assert_eq!(versions.len(), 20);
    assert!(versions.values().all(|last| *last == 100), "{versions:?}");
}

/// A member whose handler says when it has begun, waits to be woken, and then answers.
fn paused(store: &Memory, fails: bool, options: GroupOptions) -> (Running, Arc<Notify>, Arc<Notify>) {
    let (entered, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, wake) = (Arc::clone(&entered), Arc::clone(&wake));
        crate::handler::from_fn(move |_| {
            let (entered, wake) = (Arc::clone(&entered), Arc::clone(&wake));
            Box::pin(async move {
                entered.notify_one();
                wake.notified().await;
                if fails { Err(Error::new(ErrorKind::Failed, "told to fail")) } else { Ok(()) }
            })
        })
    };
    (Running::start(member(store, "a", handler, options)), entered, wake)
}

#[tokio::test]
async fn a_paused_member_that_wakes_after_its_lease_changes_nothing() {
    for fails in [false, true] {
        let clock = Clock::still();
        let store = Memory::with_clock(clock.clone());
        append(&store, "s", 0).await;
        let on_failure = OnFailure::DeadLetter { store: Arc::new(store.clone()), queue: "failed".into() };
        let (a, entered, wake) = paused(&store, fails, GroupOptions { attempts: 1, on_failure, ..options(1) });
        entered.notified().await;
        clock.advance(Duration::from_mins(1));
        let (handler, mut hears) = telling(|_| false);
        let b = Running::start(member(&store, "b", handler, options(1)));
        assert_eq!(number(&hear(&mut hears, 1).await[0]), 0);
        b.until("b has stored it", |parts| parts.get(&0).is_some_and(|part| part.handled == 1)).await;
        let stored = store.offsets(Some("readers")).await.unwrap().remove(0);
        assert_eq!(stored.member.as_deref(), Some("b"));

        wake.notify_one();
        a.until("a notices that it has lost the part", Status::is_empty).await;
        let after = store.offsets(Some("readers")).await.unwrap().remove(0);
        assert_eq!((after.position, after.epoch, after.member), (stored.position, stored.epoch, stored.member));
        assert!(QueueStore::info(&store, "failed").await.unwrap().is_none(), "what b has handled has not failed");
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_handled_when_a_member_stops_is_finished_or_given_up_after_a_while() {
    for finishes in [true, false] {
        let store = Memory::new();
        append(&store, "s", 0).await;
        let (a, entered, wake) = paused(&store, false, options(1));
        entered.notified().await;
        a.stop.notify_one();
        if finishes {
            wake.notify_one();
        }
        let began = tokio::time::Instant::now();
        a.task.await.unwrap().unwrap();
        let offset = store.offsets(Some("readers")).await.unwrap().remove(0);
        assert_eq!((offset.position > Position::START, offset.member), (finishes, None));
        let waited = began.elapsed();
        assert_eq!(waited >= Duration::from_secs(10), !finishes, "{waited:?}");
    }
}

#[tokio::test]
async fn a_failure_stops_its_part_with_the_error_to_be_seen_and_no_other() {
    let store = Memory::new();
    for n in 0..4 {
        append(&store, "bad", n).await;
    }
    let part = Filter::part_of("bad", 4);
    let good = (0..100).map(|n| format!("good-{n}")).find(|name| Filter::part_of(name, 4) != part).unwrap();
    append(&store, &good, 100).await;
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fails = {
        let healed = Arc::clone(&healed);
        move |event: &Event| number(event) == 2 && !healed.load(std::sync::atomic::Ordering::Acquire)
    };
    let (handler, mut hears) = telling(fails);
    let running = Running::start(member(&store, "a", handler, options(4)));
    let is_stopped = |status: &Status| status.get(&part).is_some_and(|part| part.state.is_stopped());
    let status = running.until("the part stops", is_stopped).await;
    assert_eq!(status[&part].state.error().unwrap().to_string(), "told to fail");
    assert_eq!((status[&part].handled, status[&part].skipped), (2, 0));
    let second = store.read("bad", 2, crate::Direction::Forward, 1).await.unwrap().remove(0);
    assert_eq!(status[&part].position, second.position.unwrap(), "it has stored what came before");
    let mut numbers: Vec<usize> = hear(&mut hears, 3).await.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 100]);

    healed.store(true, std::sync::atomic::Ordering::Release);
    running.group.resume();
    assert_eq!(hear(&mut hears, 2).await.iter().map(number).collect::<Vec<_>>(), [2, 3]);
    running.until("it is live", |parts| parts.values().all(|part| part.state.is_live())).await;
    running.stop().await;
}

#[tokio::test]
async fn a_failed_event_is_skipped_and_told_of() {
    let store = Memory::new();
    for n in 0..5 {
        append(&store, "s", n).await;
    }
    let skipped = Arc::new(Mutex::new(Vec::new()));
    let told = {
        let skipped = Arc::clone(&skipped);
        Arc::new(move |event: &Event, error: &Error| skipped.lock().unwrap().push((number(event), error.to_string())))
    };
    let (handler, mut hears) = telling(|event| number(event) % 2 == 1);
    let running =
        Running::start(member(&store, "a", handler, GroupOptions { on_failure: OnFailure::Skip(told), ..options(1) }));
    assert_eq!(hear(&mut hears, 3).await.iter().map(number).collect::<Vec<_>>(), [0, 2, 4]);
    let status = running.until("all are handled", |parts| parts.get(&0).is_some_and(|part| part.handled == 3)).await;
    assert_eq!(status[&0].skipped, 2);
    assert_eq!(*skipped.lock().unwrap(), [(1, "told to fail".to_owned()), (3, "told to fail".to_owned())]);
    running.stop().await;
    assert_eq!(store.offsets(Some("readers")).await.unwrap()[0].lag, Some(0));
}

#[tokio::test]
async fn a_failed_event_becomes_a_message_that_says_why() {
    let store = Memory::new();
    for n in 0..3 {
        append(&store, "s", n).await;
    }
    let on_failure = OnFailure::DeadLetter { store: Arc::new(store.clone()), queue: "failed".into() };
    let (handler, mut hears) = telling(|event| number(event) == 1);
    let running = Running::start(member(&store, "a", handler, GroupOptions { on_failure, ..options(1) }));
    assert_eq!(hear(&mut hears, 2).await.iter().map(number).collect::<Vec<_>>(), [0, 2]);
    running.until("all are handled", |parts| parts.get(&0).is_some_and(|part| part.handled == 2)).await;
    running.stop().await;
    let dead = store.dequeue("failed", "me", 10, Duration::from_secs(30)).await.unwrap();
    assert_eq!(dead.len(), 1);
    let header = |name: &str| dead[0].meta.headers.get(name).map(String::as_str);
    assert_eq!((dead[0].data.as_str(), dead[0].key.as_deref()), ("1", Some("s")));
    assert_eq!(
        (header("failure"), header("version"), header("group")),
        (Some("told to fail"), Some("2"), Some("readers"))
    );
}

#[tokio::test]
async fn an_outage_is_waited_for_and_makes_no_event_fail() {
    let store = Memory::new();
    append(&store, "s", 0).await;
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let handler = crate::handler::from_fn(move |_| {
        let is_over = counted.fetch_add(1, std::sync::atomic::Ordering::AcqRel) >= 10;
        let answer = if is_over { Ok(()) } else { Err(Error::new(ErrorKind::Unavailable, "not now")) };
        Box::pin(std::future::ready(answer))
    });
    let on_failure = OnFailure::DeadLetter { store: Arc::new(store.clone()), queue: "failed".into() };
    let running = Running::start(member(&store, "a", handler, GroupOptions { on_failure, ..options(1) }));
    let status = running.until("it is handled", |parts| parts.get(&0).is_some_and(|part| part.handled == 1)).await;
    assert_eq!((status[&0].skipped, calls.load(std::sync::atomic::Ordering::Acquire)), (0, 11));
    running.stop().await;
    assert!(QueueStore::info(&store, "failed").await.unwrap().is_none());
}

#[tokio::test]
async fn a_handler_that_panics_stops_its_part() {
    let store = Memory::new();
    append(&store, "s", 0).await;
    let handler = crate::handler::from_fn(|events| Box::pin(async move { panic!("at {}", events[0].version) }));
    let running = Running::start(member(&store, "a", handler, options(1)));
    let status =
        running.until("it has stopped", |parts| parts.get(&0).is_some_and(|part| part.state.is_stopped())).await;
    assert!(status[&0].state.error().unwrap().to_string().contains("panicked"));
    running.stop().await;
    assert_eq!(store.offsets(Some("readers")).await.unwrap()[0].position, Position::START);
}

#[tokio::test(start_paused = true)]
async fn leases_that_could_not_be_renewed_are_given_up_and_taken_again() {
    let store = Memory::new();
    let failing = Failing::new(store.clone(), 2, ErrorKind::Unavailable);
    let (handler, mut hears) = telling(|_| false);
    let group = Group::new(failing.clone(), "readers", "a", Arc::new(handler), options(2));
    let running = Running::start(group);
    running.until("it has got leases after two failures", |parts| parts.len() == 2).await;
    failing.fail(usize::MAX, ErrorKind::Unavailable);
    let began = tokio::time::Instant::now();
    let mut changes = running.group.changes();
    changes.wait_for(Status::is_empty).await.unwrap();
    let held = began.elapsed();
    assert!((Duration::from_secs(29)..=Duration::from_secs(31)).contains(&held), "{held:?}");
    failing.fail(0, ErrorKind::Unavailable);
    append(&store, "s", 5).await;
    assert_eq!(number(&hears.recv().await.unwrap()), 5);
    running.stop().await;
}

#[tokio::test]
async fn a_reset_has_the_group_read_again() {
    let store = Memory::new();
    append(&store, "s", 0).await;
    let (handler, mut hears) = telling(|_| false);
    let lease = Duration::from_millis(150);
    let running = Running::start(member(&store, "a", handler, GroupOptions { lease, ..options(1) }));
    assert_eq!(hear(&mut hears, 1).await[0].version, 1);
    running.until("it is stored", |parts| parts.get(&0).is_some_and(|part| part.handled == 1)).await;
    store.reset("readers", Position::START).await.unwrap();
    assert_eq!(hear(&mut hears, 1).await[0].version, 1);
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let store = Memory::new();
    let run = async |options| {
        let (handler, _) = telling(|_| false);
        member(&store, "a", handler, options).run(std::future::pending()).await.unwrap_err().kind()
    };
    let part = Filter { part: Some((0, 2)), ..Filter::default() };
    assert_eq!(run(GroupOptions { filter: part, ..options(2) }).await, ErrorKind::Invalid);
    assert_eq!(run(GroupOptions { batch: 0, ..options(2) }).await, ErrorKind::Invalid);
    store.lease("readers", "b", 3, Position::START, Duration::from_secs(1)).await.unwrap();
    assert_eq!(run(options(2)).await, ErrorKind::Invalid);
    let start = crate::reading::Start::Version(1);
    assert_eq!(run(GroupOptions { start, ..options(3) }).await, ErrorKind::Invalid);
}
