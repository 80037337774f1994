use std::sync::Mutex;

use super::*;
use crate::testing::{Failing, event, number};
use crate::{Clock, ErrorKind, Expected, Filter, Memory, handler};

async fn filled(streams: &[&str], each: usize) -> Memory {
    let store = Memory::new();
    for n in 0..each {
        for stream in streams {
            store.append(stream, Expected::Any, vec![event(n)]).await.unwrap();
        }
    }
    store
}

type Seen = Arc<Mutex<Vec<(Arc<str>, usize)>>>;

fn seeing() -> (Target, Seen) {
    let seen = Seen::default();
    let told = Arc::clone(&seen);
    let handler = handler::from_fn(move |events| {
        told.lock().unwrap().extend(events.iter().map(|event| (event.stream.clone(), number(event))));
        Box::pin(std::future::ready(Ok(())))
    });
    (Target::Handler(Arc::new(handler)), seen)
}

fn numbers(seen: &Seen) -> Vec<usize> {
    seen.lock().unwrap().iter().map(|(_, number)| *number).collect()
}

#[tokio::test]
async fn a_stream_is_replayed_up_to_what_there_was_when_it_began() {
    let store = filled(&["a", "b"], 1_200).await;
    let (appending, seen) = (store.clone(), Seen::default());
    let told = Arc::clone(&seen);
    // What it hands over leads to more events, which must not keep it going.
    let handler = handler::from_fn(move |events| {
        told.lock().unwrap().extend(events.iter().map(|event| (event.stream.clone(), number(event))));
        let appending = appending.clone();
        Box::pin(async move { appending.append("a", Expected::Any, vec![event(9_999)]).await.map(drop) })
    });
    let target = Target::Handler(Arc::new(handler));
    let replay = Replay::new(Arc::new(store.clone()), Source::stream("a"), Start::Version(101), target.clone());
    let done = replay.run().await.unwrap();
    assert_eq!((done.state, done.events, done.total), (ReplayState::Done, 1_100, Some(1_100)));
    assert_eq!(done.place, Start::Version(1_201));
    assert_eq!(numbers(&seen), (100..1_200).collect::<Vec<_>>());

    seen.lock().unwrap().clear();
    let only = Filter { stream_prefix: Some("b".into()), ..Filter::default() };
    let done = Replay::new(Arc::new(store.clone()), Source::All(only), Start::Beginning, target).run().await.unwrap();
    assert_eq!((done.events, done.total), (1_200, None));
    assert!(done.position.is_some());
    assert_eq!(numbers(&seen), (0..1_200).collect::<Vec<_>>());
}

#[tokio::test]
async fn it_begins_at_a_time_or_behind_a_position() {
    let clock = Clock::still();
    let store = Memory::with_clock(clock.clone());
    let (mut times, mut positions) = (Vec::new(), Vec::new());
    for n in 0..4 {
        times.push(clock.now());
        store.append("a", Expected::Any, vec![event(n)]).await.unwrap();
        positions.push(store.head().await.unwrap());
        clock.advance(Duration::from_secs(1));
    }
    for (source, start, wanted) in [
        (Source::all(), Start::Time(times[2]), vec![2, 3]),
        (Source::stream("a"), Start::Time(times[3]), vec![3]),
        (Source::all(), Start::Position(positions[0]), vec![1, 2, 3]),
        (Source::all(), Start::End, vec![]),
    ] {
        let (target, seen) = seeing();
        Replay::new(Arc::new(store.clone()), source, start, target).run().await.unwrap();
        assert_eq!(numbers(&seen), wanted, "{start:?}");
    }
}

#[tokio::test]
async fn it_ends_after_so_many_events() {
    let store = filled(&["a", "b"], 1_500).await;
    for (source, events, total) in [(Source::stream("a"), 1_100, Some(1_100)), (Source::all(), 1_100, None)] {
        let (target, seen) = seeing();
        let done =
            Replay::new(Arc::new(store.clone()), source.clone(), Start::Beginning, target).limit(1_100).run().await;
        let done = done.unwrap();
        assert_eq!((done.events, done.total), (events, total), "{source:?}");
        // Another one goes on with what was left.
        let (target, rest) = seeing();
        Replay::new(Arc::new(store.clone()), source.clone(), done.place, target).run().await.unwrap();
        let all = [numbers(&seen), numbers(&rest)].concat();
        let wanted: Vec<usize> = match source {
            Source::Stream(_) => (0..1_500).collect(),
            Source::All(_) => (0..1_500).flat_map(|n| [n, n]).collect(),
        };
        assert_eq!(all, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_to_its_rate() {
    for (rate, events, seconds) in [(10, 50, 5), (1_000, 3_000, 3), (1, 3, 3)] {
        let store = filled(&["a"], events).await;
        let (target, seen) = seeing();
        let replay = Replay::new(Arc::new(store), Source::all(), Start::Beginning, target).rate(rate);
        let began = Instant::now();
        let done = replay.run().await.unwrap();
        let took = began.elapsed();
        assert_eq!(seen.lock().unwrap().len(), events);
        let wanted = Duration::from_secs(seconds);
        assert!(took >= wanted.mul_f64(0.99) && took <= wanted.mul_f64(1.1), "{took:?} at {rate}");
        assert!(done.rate > 0.0 && done.rate <= f64::from(rate) * 1.6, "{} at {rate}", done.rate);
    }
}

#[tokio::test(start_paused = true)]
async fn it_pauses_goes_on_and_is_cancelled() {
    let store = filled(&["a"], 100).await;
    let (target, seen) = seeing();
    let replay = Replay::new(Arc::new(store.clone()), Source::stream("a"), Start::Beginning, target).rate(10);
    let handle = replay.handle();
    assert_eq!(handle.progress().state, ReplayState::Waiting);
    let began = Instant::now();
    let running = tokio::spawn(async move { replay.run().await });
    handle.until(|progress| progress.events >= 20).await;
    handle.pause();
    let paused = handle.until(|progress| progress.state == ReplayState::Paused).await;
    tokio::time::advance(Duration::from_hours(1)).await;
    assert_eq!(handle.progress(), paused, "nothing goes on");
    handle.resume();
    let later = handle.until(|progress| progress.events >= 50).await;
    let took = began.elapsed().checked_sub(Duration::from_hours(1)).unwrap();
    assert!(took >= Duration::from_millis(4_500), "the pause is not made up for: {took:?}");
    assert!((8.0..=13.0).contains(&later.rate), "the pause does not count: {}", later.rate);
    handle.cancel();
    let done = running.await.unwrap().unwrap();
    assert_eq!(done.state, ReplayState::Cancelled);
    assert!(done.events < 100 && done.total == Some(100));

    // Another one goes on where it was.
    let (target, rest) = seeing();
    Replay::new(Arc::new(store), Source::stream("a"), done.place, target).run().await.unwrap();
    let all: Vec<usize> = numbers(&seen).into_iter().chain(numbers(&rest)).collect();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_paused_replay_can_be_cancelled() {
    let store = filled(&["a"], 3).await;
    let (target, seen) = seeing();
    let replay = Replay::new(Arc::new(store), Source::all(), Start::Beginning, target);
    let handle = replay.handle();
    handle.pause();
    let running = tokio::spawn(async move { replay.run().await });
    handle.until(|progress| progress.state == ReplayState::Paused).await;
    handle.cancel();
    handle.resume();
    assert_eq!(running.await.unwrap().unwrap().state, ReplayState::Cancelled);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn into_a_queue_each_event_comes_once_under_a_name() {
    let store = filled(&["a", "b"], 3).await;
    let target = || Target::Queue { store: Arc::new(store.clone()), queue: "again".into() };
    let replay =
        |name: &'static str| Replay::new(Arc::new(store.clone()), Source::all(), Start::Beginning, target()).name(name);
    assert_eq!(replay("one").run().await.unwrap().events, 6);
    assert_eq!(replay("one").run().await.unwrap().events, 6);
    let waiting = async || QueueStore::info(&store, "again").await.unwrap().unwrap().ready;
    assert_eq!(waiting().await, 6);
    let heads = store.peek("again", 100).await.unwrap();
    let keys: Vec<_> = heads.iter().map(|item| item.key.as_deref()).collect();
    assert_eq!(keys, [Some("a"), Some("b")], "those of a stream one after the other");
    assert!(heads.iter().all(|item| item.meta.causation_id.is_some()));
    replay("two").run().await.unwrap();
    assert_eq!(waiting().await, 12);
}

#[tokio::test]
async fn failures_that_pass_are_tried_again_and_others_end_it_with_the_place() {
    let failing = Failing::new(filled(&["a"], 5).await, 2, ErrorKind::Unavailable);
    let (target, seen) = seeing();
    let quick = Duration::from_millis(1);
    let replay = Replay::new(failing.clone(), Source::all(), Start::Beginning, target).backoff(quick, quick);
    assert_eq!(replay.run().await.unwrap().events, 5);
    assert_eq!((failing.failed(), numbers(&seen)), (2, vec![0, 1, 2, 3, 4]));

    let fails = handler::from_fn(|events| {
        let failed = events.iter().any(|event| number(event) == 3);
        let answer = if failed { Err(Error::new(ErrorKind::Failed, "told to fail")) } else { Ok(()) };
        Box::pin(std::future::ready(answer))
    });
    let target = Target::Handler(Arc::new(fails));
    let replay = Replay::new(failing, Source::stream("a"), Start::Beginning, target).rate(1_000_000).rate(10);
    let handle = replay.handle();
    let error = replay.run().await.unwrap_err();
    assert_eq!(error.to_string(), "told to fail");
    let progress = handle.progress();
    assert_eq!((progress.state, progress.events, progress.place), (ReplayState::Failed, 3, Start::Version(4)));
}
