use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::testing::{Failing, event, number};
use crate::{ErrorKind, Expected, Filter, Memory, handler};

async fn append(store: &Memory, stream: &str, number: usize) {
    store.append(stream, Expected::Any, vec![event(number)]).await.unwrap();
}

#[tokio::test]
async fn it_catches_up_in_pages_and_goes_on_live() {
    let store = Memory::new();
    for n in 0..25 {
        append(&store, "a", n).await;
    }
    for source in [Source::all(), Source::stream("a")] {
        let mut subscription =
            StreamSubscription::new(Arc::new(store.clone()), source.clone(), Start::Beginning).page(10);
        let mut seen = Vec::new();
        for (count, is_live) in [(10, false), (10, false), (5, true)] {
            let batch = subscription.next().await.unwrap();
            assert_eq!((batch.events.len(), batch.is_live), (count, is_live), "{source:?}");
            seen.extend(batch.events.iter().map(number));
        }
        // Nothing is there: it waits until something is.
        let (batch, ()) = tokio::join!(subscription.next(), append(&store, "a", 25));
        seen.extend(batch.unwrap().events.iter().map(number));
        assert_eq!(seen, (0..26).collect::<Vec<_>>());
        store.truncate("a", 26).await.unwrap();
        store.delete("a", Expected::Any).await.unwrap();
        for n in 0..25 {
            append(&store, "a", n).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_append_meanwhile_comes_once_and_in_order() {
    let (store, streams, each) = (Memory::new(), 6, 400);
    append(&store, "other", 0).await;
    let mut writers = tokio::task::JoinSet::new();
    for stream in 0..streams {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..each {
                append(&store, &format!("s-{stream}"), n).await;
                tokio::task::yield_now().await;
            }
        });
    }
    let wanted = Filter { stream_prefix: Some("s-".into()), ..Filter::default() };
    let mut subscription =
        StreamSubscription::new(Arc::new(store.clone()), Source::All(wanted), Start::Beginning).page(7);
    let mut versions = vec![0; streams];
    let mut total = 0;
    while total < streams * each {
        for event in subscription.next().await.unwrap().events {
            let stream: usize = event.stream.strip_prefix("s-").unwrap().parse().unwrap();
            assert_eq!(event.version, versions[stream] + 1, "each once and in order");
            versions[stream] += 1;
            total += 1;
        }
    }
    assert_eq!(versions, vec![each as u64; streams]);
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    let head = store.head().await.unwrap();
    assert_eq!(subscription.place(), Start::Position(head), "nothing is left");
}

#[tokio::test]
async fn failures_that_pass_are_tried_again_and_others_end_it() {
    let store = Memory::new();
    append(&store, "a", 1).await;
    let failing = Failing::new(store, 3, ErrorKind::Unavailable);
    let quick = |failing: &Arc<Failing>| {
        StreamSubscription::new(failing.clone(), Source::all(), Start::Beginning)
            .backoff(Duration::from_millis(1), Duration::from_millis(2))
    };
    assert_eq!(quick(&failing).next().await.unwrap().events.len(), 1);
    assert_eq!(failing.failed(), 3);
    failing.fail(1, ErrorKind::Failed);
    assert_eq!(quick(&failing).next().await.unwrap_err().kind(), ErrorKind::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_waits_end_at_once_is_polled_with_growing_pauses() {
    let store = Memory::new();
    let failing = Failing::new(store.clone(), 0, ErrorKind::Unavailable);
    failing.never_wait();
    let mut subscription = StreamSubscription::new(failing.clone(), Source::all(), Start::Beginning);
    let idle = tokio::time::timeout(Duration::from_mins(1), subscription.next()).await;
    assert!(idle.is_err());
    assert!((60..200).contains(&failing.reads()), "{} reads in a minute", failing.reads());
    append(&store, "a", 1).await;
    assert_eq!(subscription.next().await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_run_ends_when_told_and_goes_on_where_it_was() {
    let store = Memory::new();
    for n in 0..3 {
        append(&store, "a", n).await;
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(Notify::new());
    let handler = {
        let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
        handler::from_fn(move |events| {
            seen.lock().unwrap().extend(events.iter().map(number));
            stop.notify_one();
            Box::pin(std::future::ready(Ok(())))
        })
    };
    let mut subscription =
        StreamSubscription::new(Arc::new(store.clone()), Source::stream("a"), Start::Beginning).page(2);
    subscription.run(&handler, stop.notified()).await.unwrap();
    assert_eq!((seen.lock().unwrap().clone(), subscription.place()), (vec![0, 1], Start::Version(3)));
    subscription.run(&handler, stop.notified()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2]);
}

#[tokio::test]
async fn events_whose_handling_failed_come_again() {
    let store = Memory::new();
    append(&store, "a", 7).await;
    let calls = Arc::new(AtomicU32::new(0));
    let stop = Arc::new(Notify::new());
    let handler = {
        let (calls, stop) = (Arc::clone(&calls), Arc::clone(&stop));
        handler::from_fn(move |events| {
            assert_eq!(events.iter().map(number).collect::<Vec<_>>(), [7]);
            let answer = match calls.fetch_add(1, Ordering::AcqRel) {
                0 | 1 => Err(Error::new(ErrorKind::Unavailable, "not now")),
                2 => Err(Error::new(ErrorKind::Failed, "never")),
                _ => {
                    stop.notify_one();
                    Ok(())
                }
            };
            Box::pin(std::future::ready(answer))
        })
    };
    let mut subscription = StreamSubscription::new(Arc::new(store), Source::all(), Start::Beginning)
        .backoff(Duration::from_millis(1), Duration::from_millis(1));
    let error = subscription.run(&handler, std::future::pending()).await.unwrap_err();
    assert_eq!((error.kind(), calls.load(Ordering::Acquire)), (ErrorKind::Failed, 3));
    assert_eq!(subscription.place(), Start::Position(Position::START));
    subscription.run(&handler, stop.notified()).await.unwrap();
    assert_eq!(calls.load(Ordering::Acquire), 4);
}
