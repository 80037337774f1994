//! Streams: what is appended, and how it is read.

use std::time::Duration;

use pgfleet_events::{Append, Direction, ErrorKind, Expected, Filter, Meta, NewEvent, Position, StreamStore as _};
use serde_json::json;

use crate::place::Place;

fn event(number: u64) -> NewEvent {
    NewEvent::of("Counted", &json!({ "number": number })).unwrap()
}

fn events(count: u64) -> Vec<NewEvent> {
    (1..=count).map(event).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_in_order_with_all_that_is_said() {
    let place = Place::new().await;
    let store = &place.store;
    let mut meta = Meta { correlation_id: Some("c-1".into()), tenant: Some("north".into()), ..Meta::default() };
    meta.headers.insert("lang".to_owned(), "de".to_owned());
    let first = event(1).meta(meta.clone());
    let appended = store.append("trip-1", Expected::NoStream, vec![first.clone(), event(2)]).await.unwrap();
    assert_eq!((appended.first, appended.last), (1, 2));
    let appended = store.append("trip-1", Expected::Exact(2), vec![event(3).meta(meta.clone())]).await.unwrap();
    assert_eq!((appended.first, appended.last), (3, 3));

    let read = store.read("trip-1", 1, Direction::Forward, 10).await.unwrap();
    assert_eq!(read.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((read[0].id, &read[0].meta, &*read[0].kind), (first.id, &meta, "Counted"));
    assert_eq!((&read[1].meta, &read[2].meta), (&Meta::default(), &meta));
    assert_eq!(read[0].data.to::<serde_json::Value>().unwrap(), json!({ "number": 1 }));
    let back = store.read("trip-1", u64::MAX, Direction::Backward, 2).await.unwrap();
    assert_eq!(back.iter().map(|event| event.version).collect::<Vec<_>>(), [3, 2]);

    let page = store.read_all(Position::START, 10, &Filter::default()).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3]);
    let page = store.read_all(page.next, 10, &Filter::default()).await.unwrap();
    assert!(page.events.is_empty() && page.at_end);
    // A single stream's events are in their places once a tick was made.
    let read = store.read("trip-1", 1, Direction::Forward, 10).await.unwrap();
    assert!(read.iter().all(|event| event.position.is_some()), "{read:?}");
}

#[tokio::test]
async fn a_wrong_version_is_told_and_hurts_no_other_append() {
    let place = Place::new().await;
    let store = &place.store;
    store.append("a", Expected::Any, events(3)).await.unwrap();
    let appends = (0..64).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let stream = format!("s-{number}");
            if number % 2 == 0 {
                store.append(&stream, Expected::NoStream, events(1)).await.map(|appended| appended.last)
            } else {
                store.append(&stream, Expected::Exact(7), events(1)).await.map(|appended| appended.last)
            }
        })
    });
    let (mut done, mut refused) = (0, 0);
    for append in appends.collect::<Vec<_>>() {
        match append.await.unwrap() {
            Ok(last) => done += last,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 0 });
                refused += 1;
            }
        }
    }
    assert_eq!((done, refused), (32, 32));
    let error = store.append("a", Expected::Exact(2), events(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 3 });
}

#[tokio::test]
async fn single_events_for_one_stream_come_one_behind_the_other() {
    const EACH: usize = 40;
    let place = Place::new().await;
    // Stores of their own, as in as many processes: none of them knows of the others.
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let store = place.other();
        tasks.push(tokio::spawn(async move {
            let mut versions = Vec::new();
            for number in 1..=EACH as u64 {
                versions.push(store.append("hot", Expected::Any, vec![event(number)]).await.unwrap().last);
            }
            versions
        }));
    }
    let mut versions = Vec::new();
    for task in tasks {
        versions.extend(task.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=6 * EACH as u64).collect::<Vec<_>>());
    let wrong = place.store.append("hot", Expected::Exact(3), vec![event(1)]).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongVersion { actual: 6 * EACH as u64 });
    place.store.archive("hot", true).await.unwrap();
    let closed = place.store.append("hot", Expected::Any, vec![event(1)]).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn what_the_server_refuses_fails_its_own_append_only() {
    let place = Place::new().await;
    let store = &place.store;
    let bad = pgfleet_events::Json::parse(r#"{"text":"\u0000"}"#).unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let (store, bad) = (store.clone(), bad.clone());
            tokio::spawn(async move {
                let event = if number % 8 == 0 { NewEvent::new("Bad", bad) } else { event(number) };
                store.append(&format!("s-{number}"), Expected::NoStream, vec![event]).await.is_ok()
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += u32::from(task.await.unwrap());
    }
    assert_eq!(done, 35);
}

#[tokio::test]
async fn several_streams_are_appended_to_as_one() {
    let place = Place::new().await;
    let store = &place.store;
    let append = |stream: &str, expected| Append { stream: stream.into(), expected, events: events(2) };
    let appended =
        store.append_several(vec![append("b", Expected::NoStream), append("a", Expected::Any)]).await.unwrap();
    assert_eq!(appended.iter().map(|appended| appended.last).collect::<Vec<_>>(), [2, 2]);
    let error =
        store.append_several(vec![append("a", Expected::Exact(2)), append("b", Expected::Exact(9))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 2 });
    assert_eq!(store.info("a").await.unwrap().unwrap().last, 2);
    assert!(store.append_several(vec![append("a", Expected::Any), append("a", Expected::Any)]).await.is_err());
}

#[tokio::test]
async fn an_append_in_a_transaction_is_there_with_its_commit() {
    let place = Place::new().await;
    let store = &place.store;
    let pool = crate::place::pool(&place.database.url(), 2);
    let append = || vec![Append { stream: "a".into(), expected: Expected::Any, events: events(2) }];
    let transaction = pool.begin().await.unwrap();
    store.append_in(&transaction, append()).await.unwrap();
    assert!(store.read_all(Position::START, 10, &Filter::default()).await.unwrap().events.is_empty());
    transaction.rollback().await.unwrap();
    let transaction = pool.begin().await.unwrap();
    let appended = store.append_in(&transaction, append()).await.unwrap();
    assert_eq!(appended[0].first, 1);
    // Another stream's appends do not wait for it.
    let other = tokio::time::timeout(Duration::from_secs(10), store.append("b", Expected::Any, events(1)));
    other.await.unwrap().unwrap();
    transaction.commit().await.unwrap();
    let mut streams = Vec::new();
    let mut after = Position::START;
    loop {
        let page = store.read_all(after, 10, &Filter::default()).await.unwrap();
        streams.extend(page.events.iter().map(|event| event.stream.to_string()));
        if page.at_end {
            break;
        }
        after = page.next;
    }
    assert_eq!(streams.len(), 3, "{streams:?}");
}

#[tokio::test]
async fn a_filter_leaves_out_what_is_not_wanted() {
    let place = Place::new().await;
    let store = &place.store;
    for number in 0..300_u64 {
        let event = NewEvent::new(if number % 100 == 7 { "Rare" } else { "Common" }, json!({ "n": number }).into());
        let event = event.correlation(format!("c-{}", number % 50));
        store.append(&format!("s-{}", number % 3), Expected::Any, vec![event]).await.unwrap();
        if number % 60 == 0 {
            store.head().await.unwrap();
        }
    }
    let all = read_all(store, &Filter::default(), 1_000).await;
    assert_eq!(all.len(), 300);
    let filters = [
        Filter { kinds: vec!["Rare".into()], ..Filter::default() },
        Filter { kinds: vec!["Rare".into(), "Common".into()], ..Filter::default() },
        Filter { correlation_id: Some("c-7".into()), ..Filter::default() },
        Filter { stream: Some("s-1".into()), ..Filter::default() },
        Filter { stream_prefix: Some("s-".into()), since: Some(all[150].at), ..Filter::default() },
        Filter { until: Some(all[150].at), part: Some((0, 2)), ..Filter::default() },
    ];
    for filter in filters {
        let expected: Vec<_> = all.iter().filter(|event| filter.wants(event)).cloned().collect();
        for limit in [1, 7, 1_000] {
            assert_eq!(read_all(store, &filter, limit).await, expected, "{filter:?}, {limit} at once");
        }
    }
    let position = store.position_at(all[150].at).await.unwrap();
    let page = store.read_all(position, 1, &Filter::default()).await.unwrap();
    assert_eq!(page.events[0], all[150]);
    let after = store.position_at(all[299].at.after(Duration::from_mins(1))).await.unwrap();
    assert!(store.read_all(after, 1, &Filter::default()).await.unwrap().at_end);
}

async fn read_all(store: &pgfleet_events_postgres::Store, filter: &Filter, limit: usize) -> Vec<pgfleet_events::Event> {
    let (mut read, mut after) = (Vec::new(), Position::START);
    loop {
        let page = store.read_all(after, limit, filter).await.unwrap();
        assert!(page.events.len() <= limit);
        read.extend(page.events);
        after = page.next;
        if page.at_end {
            return read;
        }
    }
}

#[tokio::test]
async fn streams_are_listed_truncated_deleted_and_archived() {
    let place = Place::new().await;
    let store = &place.store;
    for stream in ["b", "a-2", "a-1", "ä"] {
        store.append(stream, Expected::Any, events(5)).await.unwrap();
    }
    let names = async |prefix: &str, after: Option<&str>| -> Vec<String> {
        store.list(prefix, after, 2).await.unwrap().iter().map(|info| info.stream.to_string()).collect()
    };
    assert_eq!(names("", None).await, ["a-1", "a-2"]);
    assert_eq!(names("", Some("a-2")).await, ["b", "ä"]);
    assert_eq!(names("a-", Some("a-1")).await, ["a-2"]);
    assert_eq!(store.truncate("b", 3).await.unwrap(), 2);
    let info = store.info("b").await.unwrap().unwrap();
    assert_eq!((info.first, info.last, info.length, info.archived), (3, 5, 3, false));
    assert!(store.delete("b", Expected::Exact(4)).await.unwrap_err().is_wrong_version());
    assert_eq!(store.delete("b", Expected::Exact(5)).await.unwrap(), 3);
    assert!(store.info("b").await.unwrap().is_none());
    assert_eq!(store.append("b", Expected::Any, events(1)).await.unwrap().first, 6);
    store.archive("b", true).await.unwrap();
    let error = store.append("b", Expected::Any, events(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    store.archive("b", false).await.unwrap();
    assert_eq!(store.append("b", Expected::Exact(6), events(1)).await.unwrap().last, 7);
    assert_eq!(store.archive("nobody", true).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn who_waits_hears_of_others_and_an_idle_store_is_quiet() {
    let place = Place::new().await;
    let (reader, writer) = (place.store.clone(), place.other());
    let page = reader.read_all(Position::START, 10, &Filter::default()).await.unwrap();
    assert!(page.at_end);
    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait(page.next, Duration::from_mins(1)).await }
    });
    writer.append("a", Expected::Any, events(1)).await.unwrap();
    // Of its own accord; a tick that somebody else makes would be told at once.
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
    let page = reader.read_all(page.next, 10, &Filter::default()).await.unwrap();
    assert_eq!(page.events.len(), 1);
    let began = std::time::Instant::now();
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        let end = reader.read_all(page.next, 10, &Filter::default()).await.unwrap().next;
        let waiting = reader.wait(end, Duration::from_mins(1));
        tokio::join!(async { waiting.await.unwrap() }, async {
            reader.append("a", Expected::Any, events(1)).await.unwrap();
        });
    });
    waited.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "what this process appends is known at once");
}
