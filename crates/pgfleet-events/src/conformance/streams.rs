//! What a [`StreamStore`] must keep.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{LONG, PATIENCE, event, events, full_meta, number, same, unique};
use crate::error::ErrorKind;
use crate::event::{Event, NewEvent};
use crate::json::Json;
use crate::moment::Moment;
use crate::position::Position;
use crate::stream::{Append, Direction, Expected, Filter, StreamStore};

/// Makes a `#[test]` of each rule for streams.
///
/// The argument is an async function that returns a [`StreamStore`](crate::StreamStore) and what must live as long.
#[macro_export]
macro_rules! stream_conformance {
    ($make:expr) => {
        $crate::conformance_rules!($make, streams:
            versions_count_from_one
            expected_versions_are_checked
            of_many_who_expect_one_version_one_wins
            a_batch_is_appended_as_a_whole
            several_streams_are_appended_to_together_or_not_at_all
            what_cannot_be_appended_is_refused
            everything_of_an_event_is_kept
            a_stream_is_read_forward_and_backward
            the_common_order_has_each_stream_in_its_own
            the_order_is_the_same_live_and_later_at_every_batch_size
            pages_go_on_where_the_last_one_ended
            filters_leave_out_what_is_not_wanted
            parts_share_the_streams_out
            the_head_is_behind_everything_committed
            positions_are_found_by_time
            the_home_of_a_stream_has_the_same_events
            waiting_ends_when_something_is_appended
            waiting_ends_when_its_time_is_over
            streams_are_described_and_listed
            truncating_keeps_the_versions
            a_deleted_stream_goes_on_with_its_versions
            an_archived_stream_takes_nothing);
    };
}

async fn append(store: &dyn StreamStore, stream: &str, events: Vec<NewEvent>) {
    store.append(stream, Expected::Any, events).await.unwrap();
}

fn prefix(prefix: &str) -> Filter {
    Filter { stream_prefix: Some(prefix.into()), ..Filter::default() }
}

/// Reads everything that a filter wants, so many at a time.
async fn read_all(store: &dyn StreamStore, filter: &Filter, limit: usize) -> Vec<Event> {
    let (mut after, mut all) = (Position::START, Vec::new());
    loop {
        let page = store.read_all(after, limit, filter).await.unwrap();
        assert!(page.events.len() <= limit, "no more than {limit} were asked for");
        assert!(page.next >= after, "a page does not go back");
        after = page.next;
        all.extend(page.events);
        if page.at_end {
            return all;
        }
    }
}

fn places(events: &[Event]) -> Vec<(Arc<str>, u64, Position)> {
    events.iter().map(|e| (Arc::clone(&e.stream), e.version, e.position.expect("it has a position"))).collect()
}

/// The events of one stream have the versions 1, 2, 3 …
pub async fn versions_count_from_one<S: StreamStore>(store: Arc<S>) {
    let stream = unique("counted");
    let first = store.append(&stream, Expected::Any, events(2)).await.unwrap();
    assert_eq!((first.first, first.last), (1, 2));
    let second = store.append(&stream, Expected::Any, events(1)).await.unwrap();
    assert_eq!((second.first, second.last), (3, 3));
    let read = store.read(&stream, 1, Direction::Forward, 10).await.unwrap();
    assert_eq!(read.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(read.iter().all(|event| *event.stream == *stream));
}

/// A stream that has another version than was expected gets nothing.
pub async fn expected_versions_are_checked<S: StreamStore>(store: Arc<S>) {
    let stream = unique("expected");
    let error = store.append(&stream, Expected::Exact(1), events(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 0 });
    store.append(&stream, Expected::NoStream, events(2)).await.unwrap();
    for wrong in [Expected::NoStream, Expected::Exact(0), Expected::Exact(1), Expected::Exact(3)] {
        let error = store.append(&stream, wrong, events(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 2 }, "{wrong}");
    }
    assert_eq!(store.append(&stream, Expected::Exact(2), events(1)).await.unwrap().last, 3);
    assert_eq!(store.append(&unique("expected"), Expected::Exact(0), events(1)).await.unwrap().last, 1);
    assert_eq!(store.info(&stream).await.unwrap().unwrap().last, 3);
}

/// Of many who append at once and expect the same version one is answered with success.
pub async fn of_many_who_expect_one_version_one_wins<S: StreamStore + 'static>(store: Arc<S>) {
    let stream: Arc<str> = unique("contended").into();
    for round in 0..5 {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..16 {
            let (store, stream) = (Arc::clone(&store), Arc::clone(&stream));
            tasks.spawn(async move { store.append(&stream, Expected::Exact(round), vec![event(task)]).await });
        }
        let answers = tasks.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        for error in answers.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: round + 1 });
        }
    }
    assert_eq!(store.read(&stream, 1, Direction::Forward, 100).await.unwrap().len(), 5);
}

/// Readers see all events of an append or none, and batches of others are not between them.
pub async fn a_batch_is_appended_as_a_whole<S: StreamStore + 'static>(store: Arc<S>) {
    let stream: Arc<str> = unique("batches").into();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (store, stream) = (Arc::clone(&store), Arc::clone(&stream));
        tasks.spawn(async move {
            for _ in 0..5 {
                append(&*store, &stream, (0..10).map(|_| event(task)).collect()).await;
            }
        });
    }
    while !tasks.is_empty() {
        let read = store.read(&stream, 1, Direction::Forward, 10_000).await.unwrap();
        assert_eq!(read.len() % 10, 0, "half a batch was seen");
        while tasks.try_join_next().is_some() {}
    }
    let read = store.read(&stream, 1, Direction::Forward, 10_000).await.unwrap();
    assert_eq!(read.len(), 400);
    for batch in read.chunks(10) {
        assert!(batch.iter().all(|event| number(&event.data) == number(&batch[0].data)));
    }
}

/// Several streams are appended to all or not at all.
pub async fn several_streams_are_appended_to_together_or_not_at_all<S: StreamStore>(store: Arc<S>) {
    let (a, b): (Arc<str>, Arc<str>) = (unique("several-a").into(), unique("several-b").into());
    let both = |expected| {
        vec![
            Append { stream: Arc::clone(&a), expected: Expected::Any, events: events(2) },
            Append { stream: Arc::clone(&b), expected, events: events(3) },
        ]
    };
    let error = store.append_several(both(Expected::Exact(7))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 0 });
    assert!(store.info(&a).await.unwrap().is_none() && store.info(&b).await.unwrap().is_none());
    let appended = store.append_several(both(Expected::NoStream)).await.unwrap();
    assert_eq!(appended.iter().map(|one| (one.first, one.last)).collect::<Vec<_>>(), [(1, 2), (1, 3)]);
    let error = store.append_several(both(Expected::NoStream)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 3 });
    assert_eq!(store.info(&a).await.unwrap().unwrap().last, 2);
}

/// No events, no name, and one stream twice are refused.
pub async fn what_cannot_be_appended_is_refused<S: StreamStore>(store: Arc<S>) {
    let stream = unique("refused");
    let kind = |answer: Result<_, crate::Error>| answer.map(|_: crate::Appended| ()).unwrap_err().kind();
    assert_eq!(kind(store.append(&stream, Expected::Any, Vec::new()).await), ErrorKind::Invalid);
    assert_eq!(kind(store.append("", Expected::Any, events(1)).await), ErrorKind::Invalid);
    let one = Append { stream: stream.clone().into(), expected: Expected::Any, events: events(1) };
    let error = store.append_several(vec![one.clone(), one]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(store.info(&stream).await.unwrap().is_none());
}

/// What was said of an event is there when it is read, by either way.
pub async fn everything_of_an_event_is_kept<S: StreamStore>(store: Arc<S>) {
    let stream = unique("kept ä'\"\\%_");
    let data = Json::parse(r#"{"text":"ä € 😀 \"\\ \n","list":[1,2.5,null,true,{}],"big":12345678901234567}"#).unwrap();
    let full = NewEvent::new("Kept.Whole", data).meta(full_meta());
    let empty = NewEvent::new("Kept.Empty", Json::parse("null").unwrap());
    let before = Moment::now();
    append(&*store, &stream, vec![full.clone(), empty.clone()]).await;
    let one = store.read(&stream, 1, Direction::Forward, 10).await.unwrap();
    let all = read_all(&*store, &Filter { stream: Some(stream.as_str().into()), ..Filter::default() }, 10).await;
    for read in [one, all] {
        assert_eq!(read.len(), 2);
        for (read, written) in read.iter().zip([&full, &empty]) {
            assert_eq!((&*read.stream, read.id, &*read.kind), (&*stream, written.id, &*written.kind));
            assert_eq!(read.meta, written.meta);
            assert!(same(&read.data, &written.data), "{} is not {}", read.data, written.data);
            assert!(read.at.until(before) < Duration::from_mins(1), "the clocks agree somewhat");
        }
    }
}

/// A stream is read from any version, either way.
pub async fn a_stream_is_read_forward_and_backward<S: StreamStore>(store: Arc<S>) {
    let stream = unique("read");
    append(&*store, &stream, events(10)).await;
    let cases: [(u64, Direction, usize, &[u64]); 9] = [
        (1, Direction::Forward, 3, &[1, 2, 3]),
        (0, Direction::Forward, 2, &[1, 2]),
        (9, Direction::Forward, 5, &[9, 10]),
        (11, Direction::Forward, 5, &[]),
        (u64::MAX, Direction::Backward, 3, &[10, 9, 8]),
        (2, Direction::Backward, 5, &[2, 1]),
        (0, Direction::Backward, 5, &[]),
        (5, Direction::Backward, 1, &[5]),
        (1, Direction::Forward, 0, &[]),
    ];
    for (from, direction, limit, versions) in cases {
        let read = store.read(&stream, from, direction, limit).await.unwrap();
        assert_eq!(read.iter().map(|e| e.version).collect::<Vec<_>>(), versions, "{from} {direction:?} {limit}");
    }
    assert_eq!(store.read(&unique("none"), 1, Direction::Forward, 5).await.unwrap(), []);
}

/// All events have one order, in which those of one stream are in theirs.
pub async fn the_common_order_has_each_stream_in_its_own<S: StreamStore + 'static>(store: Arc<S>) {
    let name = unique("common");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let (store, name) = (Arc::clone(&store), name.clone());
        tasks.spawn(async move {
            for turn in 0..30 {
                append(&*store, &format!("{name}-{}", (task + turn) % 4), events(1 + turn % 3)).await;
            }
        });
    }
    tasks.join_all().await;
    let all = read_all(&*store, &prefix(&name), 1_000).await;
    assert_eq!(all.len(), 6 * 60);
    in_order(&all);
}

/// Positions rise, and versions of each stream are 1, 2, 3 …
fn in_order(events: &[Event]) {
    let mut versions: HashMap<&str, u64> = HashMap::new();
    for event in events {
        let version = versions.entry(&event.stream).or_default();
        *version += 1;
        assert_eq!(event.version, *version, "stream {} is out of its order", event.stream);
    }
    let places = places(events);
    assert!(places.windows(2).all(|pair| pair[0].2 < pair[1].2), "positions rise");
}

/// Whoever reads while many tasks append, and whoever reads later, sees the same order; also a single event at a time.
///
/// This is the rule that stores on tables break most: a number drawn early and committed late.
pub async fn the_order_is_the_same_live_and_later_at_every_batch_size<S: StreamStore + 'static>(store: Arc<S>) {
    const TASKS: usize = 8;
    const TURNS: usize = 40;
    let name = unique("gap");
    let total = (0..TURNS).map(|turn| 1 + turn % 4).sum::<usize>() * TASKS;
    let start = store.head().await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for limit in [1, 1_000, 1_000_000] {
        let (store, filter) = (Arc::clone(&store), prefix(&name));
        readers.spawn(async move {
            let end = tokio::time::Instant::now() + PATIENCE;
            let (mut after, mut all) = (start, Vec::new());
            while all.len() < total {
                assert!(tokio::time::Instant::now() < end, "only {} of {total} events came", all.len());
                let page = store.read_all(after, limit, &filter).await.unwrap();
                after = page.next;
                all.extend(page.events);
                if page.at_end {
                    store.wait(after, Duration::from_millis(200)).await.unwrap();
                }
            }
            all
        });
    }
    let mut writers = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, name) = (Arc::clone(&store), name.clone());
        writers.spawn(async move {
            for turn in 0..TURNS {
                let stream = |number: usize| format!("{name}-{}", (task * 7 + number) % 5);
                if turn % 10 == 9 {
                    let appends = (0..=(turn % 4)).map(|number| Append {
                        stream: stream(number).into(),
                        expected: Expected::Any,
                        events: events(1),
                    });
                    store.append_several(appends.collect()).await.unwrap();
                } else {
                    append(&*store, &stream(turn), events(1 + turn % 4)).await;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    writers.join_all().await;
    let mut later = Vec::new();
    for limit in [1_000_000, 1_000, 7] {
        let (mut after, mut all) = (start, Vec::new());
        loop {
            let page = store.read_all(after, limit, &prefix(&name)).await.unwrap();
            after = page.next;
            all.extend(page.events);
            if page.at_end {
                break;
            }
        }
        later.push(all);
    }
    let all = read_all(&*store, &prefix(&name), 1_000).await;
    assert_eq!(all.len(), total);
    in_order(&all);
    let live = readers.join_all().await;
    for other in live.iter().chain(&later) {
        assert_eq!(other.len(), total, "a reader saw each event once");
        assert!(places(other) == places(&all), "two readers saw two orders");
    }
}

/// Pages of any size put together are everything, once.
pub async fn pages_go_on_where_the_last_one_ended<S: StreamStore>(store: Arc<S>) {
    let name = unique("pages");
    for stream in 0..3 {
        append(&*store, &format!("{name}-{stream}"), events(7)).await;
    }
    let all = places(&read_all(&*store, &prefix(&name), 1_000_000).await);
    assert_eq!(all.len(), 21);
    for limit in [1, 2, 5, 21, 22] {
        assert_eq!(places(&read_all(&*store, &prefix(&name), limit).await), all, "{limit} at a time");
    }
    let page = store.read_all(all[9].2, 100, &prefix(&name)).await.unwrap();
    assert_eq!(
        page.events.first().map(|event| event.position.unwrap()),
        Some(all[10].2),
        "behind a position, not at it"
    );
}

/// Events are read by stream, beginning of names, type, correlation id and time.
pub async fn filters_leave_out_what_is_not_wanted<S: StreamStore>(store: Arc<S>) {
    let name = unique("filter");
    let (a, b) = (format!("{name}-a"), format!("{name}-b"));
    let correlation = unique("business");
    let typed = |kind: &'static str| NewEvent::new(kind, Json::trusted("{}"));
    append(&*store, &a, vec![typed("Made"), typed("Paid").correlation(&*correlation), typed("Sent")]).await;
    append(&*store, &b, vec![typed("Made").correlation(&*correlation), typed("Paid")]).await;
    let base = prefix(&name);
    let cases: Vec<(Filter, Vec<(&str, u64)>)> = vec![
        (base.clone(), vec![(&a, 1), (&a, 2), (&a, 3), (&b, 1), (&b, 2)]),
        (Filter { stream: Some(b.as_str().into()), ..Filter::default() }, vec![(&b, 1), (&b, 2)]),
        (Filter { kinds: vec!["Made".into()], ..base.clone() }, vec![(&a, 1), (&b, 1)]),
        (Filter { kinds: vec!["Sent".into(), "Paid".into()], ..base.clone() }, vec![(&a, 2), (&a, 3), (&b, 2)]),
        (Filter { correlation_id: Some(correlation.as_str().into()), ..Filter::default() }, vec![(&a, 2), (&b, 1)]),
        (
            Filter {
                correlation_id: Some(correlation.as_str().into()),
                kinds: vec!["Made".into()],
                ..Filter::default()
            },
            vec![(&b, 1)],
        ),
        (Filter { since: Some(Moment::now().after(LONG)), ..base.clone() }, vec![]),
        (Filter { until: Some(Moment::from_micros(1)), ..base.clone() }, vec![]),
    ];
    for (filter, wanted) in cases {
        let read = read_all(&*store, &filter, 1_000).await;
        assert_eq!(read.iter().map(|e| (&*e.stream, e.version)).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
    let all = read_all(&*store, &base, 10).await;
    let at = all[3].at;
    let since = read_all(&*store, &Filter { since: Some(at), ..base.clone() }, 10).await;
    let until = read_all(&*store, &Filter { until: Some(at), ..base.clone() }, 10).await;
    assert_eq!(since.len() + until.len(), 5, "at the time itself is since, not until");
    assert!(since.iter().all(|event| event.at >= at) && until.iter().all(|event| event.at < at));
}

/// Each stream is in one part, the one that its name says.
pub async fn parts_share_the_streams_out<S: StreamStore>(store: Arc<S>) {
    let name = unique("parts");
    for stream in 0..12 {
        append(&*store, &format!("{name}-{stream}"), events(2)).await;
    }
    let mut count = 0;
    for part in 0..3 {
        let read = read_all(&*store, &Filter { part: Some((part, 3)), ..prefix(&name) }, 1_000).await;
        assert!(read.iter().all(|event| Filter::part_of(&event.stream, 3) == part));
        count += read.len();
    }
    assert_eq!(count, 24);
}

/// The head is behind what was answered before it was asked for.
pub async fn the_head_is_behind_everything_committed<S: StreamStore>(store: Arc<S>) {
    let name = unique("head");
    append(&*store, &name, events(5)).await;
    let head = store.head().await.unwrap();
    let all = read_all(&*store, &prefix(&name), 100).await;
    assert!(all.iter().all(|event| event.position.unwrap() <= head));
    assert_eq!(store.read_all(head, 100, &prefix(&name)).await.unwrap().events, []);
    append(&*store, &name, events(1)).await;
    let page = store.read_all(head, 100, &prefix(&name)).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.version).collect::<Vec<_>>(), [6]);
}

/// Reading behind the position of a time meets everything appended then or later.
pub async fn positions_are_found_by_time<S: StreamStore>(store: Arc<S>) {
    let name = unique("time");
    append(&*store, &name, events(3)).await;
    append(&*store, &name, events(3)).await;
    let all = read_all(&*store, &prefix(&name), 100).await;
    let position = store.position_at(all[3].at).await.unwrap();
    assert!(position < all[3].position.unwrap());
    let read = store.read_all(position, 100, &prefix(&name)).await.unwrap().events;
    assert!(read.iter().any(|event| event.version == 4) && read.iter().all(|event| event.at >= all[3].at));
    let first = store.position_at(Moment::from_micros(0)).await.unwrap();
    assert!(first < all[0].position.unwrap());
    let end = store.position_at(Moment::now().after(LONG)).await.unwrap();
    assert!(end >= all[5].position.unwrap());
}

/// The store that a stream is said to be in answers as this one does, to reads and to waits.
pub async fn the_home_of_a_stream_has_the_same_events<S: StreamStore>(store: Arc<S>) {
    let stream = unique("home");
    append(&*store, &stream, events(3)).await;
    let filter = Filter { stream: Some(stream.as_str().into()), ..Filter::default() };
    let Some(home) = store.home(&filter).unwrap() else { return };
    assert_eq!(
        home.read(&stream, 1, Direction::Forward, 10).await.unwrap(),
        store.read(&stream, 1, Direction::Forward, 10).await.unwrap()
    );
    let read = read_all(&*home, &filter, 10).await;
    assert_eq!(places(&read), places(&read_all(&*store, &filter, 10).await));
    assert!(home.head().await.unwrap() >= read[2].position.unwrap());
}

/// Who waits is woken by an append.
pub async fn waiting_ends_when_something_is_appended<S: StreamStore + 'static>(store: Arc<S>) {
    let name = unique("wait");
    for _ in 0..5 {
        let head = store.head().await.unwrap();
        let waiter = tokio::spawn({
            let (store, name) = (Arc::clone(&store), name.clone());
            async move {
                loop {
                    store.wait(head, PATIENCE).await.unwrap();
                    let page = store.read_all(head, 100, &prefix(&name)).await.unwrap();
                    if !page.events.is_empty() {
                        return page.events.len();
                    }
                }
            }
        });
        tokio::task::yield_now().await;
        append(&*store, &name, events(1)).await;
        let count = tokio::time::timeout(PATIENCE / 2, waiter).await.expect("the waiter is woken").unwrap();
        assert_eq!(count, 1);
    }
}

/// Who waits for nothing is let go when his time is over.
pub async fn waiting_ends_when_its_time_is_over<S: StreamStore>(store: Arc<S>) {
    let head = store.head().await.unwrap();
    let wait = store.wait(head, Duration::from_millis(20));
    tokio::time::timeout(PATIENCE, wait).await.expect("the wait ends").unwrap();
}

/// A stream's length, first and last are known, and streams are listed by name.
pub async fn streams_are_described_and_listed<S: StreamStore>(store: Arc<S>) {
    let name = unique("list");
    for (stream, count) in [("b", 2), ("a", 1), ("c", 3)] {
        append(&*store, &format!("{name}-{stream}"), events(count)).await;
    }
    let info = store.info(&format!("{name}-c")).await.unwrap().unwrap();
    let read = store.read(&format!("{name}-c"), 1, Direction::Forward, 10).await.unwrap();
    assert_eq!((info.length, info.first, info.last, info.archived), (3, 1, 3, false));
    assert_eq!((info.first_at, info.last_at), (read[0].at, read[2].at));
    assert!(store.info(&unique("none")).await.unwrap().is_none());
    let listed = store.list(&name, None, 10).await.unwrap();
    let names = |list: &[crate::StreamInfo]| list.iter().map(|info| info.stream.to_string()).collect::<Vec<_>>();
    let all: Vec<String> = ["a", "b", "c"].iter().map(|stream| format!("{name}-{stream}")).collect();
    assert_eq!(names(&listed), all);
    assert_eq!(listed[2], info);
    assert_eq!(names(&store.list(&name, None, 2).await.unwrap()), all[..2]);
    assert_eq!(names(&store.list(&name, Some(&all[0]), 10).await.unwrap()), all[1..]);
}

/// What is removed at the beginning moves nothing.
pub async fn truncating_keeps_the_versions<S: StreamStore>(store: Arc<S>) {
    let stream = unique("truncated");
    append(&*store, &stream, events(10)).await;
    let before = read_all(&*store, &prefix(&stream), 100).await;
    assert_eq!(store.truncate(&stream, 4).await.unwrap(), 3);
    assert_eq!(store.truncate(&stream, 4).await.unwrap(), 0);
    let info = store.info(&stream).await.unwrap().unwrap();
    assert_eq!((info.length, info.first, info.last), (7, 4, 10));
    let read = store.read(&stream, 1, Direction::Forward, 100).await.unwrap();
    assert_eq!(read.iter().map(|event| event.version).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(places(&read_all(&*store, &prefix(&stream), 100).await), places(&before)[3..]);
    assert_eq!(store.append(&stream, Expected::Exact(10), events(1)).await.unwrap().last, 11);
    assert_eq!(store.truncate(&unique("none"), 4).await.unwrap(), 0);
}

/// A stream that was deleted is not there; begun again, it goes on behind its last version.
pub async fn a_deleted_stream_goes_on_with_its_versions<S: StreamStore>(store: Arc<S>) {
    let stream = unique("deleted");
    append(&*store, &stream, events(3)).await;
    let error = store.delete(&stream, Expected::Exact(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongVersion { actual: 3 });
    assert_eq!(store.delete(&stream, Expected::Exact(3)).await.unwrap(), 3);
    assert!(store.info(&stream).await.unwrap().is_none());
    assert_eq!(store.read(&stream, 1, Direction::Forward, 10).await.unwrap(), []);
    assert_eq!(store.read(&stream, u64::MAX, Direction::Backward, 10).await.unwrap(), []);
    assert_eq!(read_all(&*store, &prefix(&stream), 10).await, []);
    assert_eq!(store.list(&stream, None, 10).await.unwrap(), []);
    let again = store.append(&stream, Expected::Any, events(2)).await.unwrap();
    assert_eq!((again.first, again.last), (4, 5));
    let info = store.info(&stream).await.unwrap().unwrap();
    assert_eq!((info.length, info.first, info.last), (2, 4, 5));
}

/// An archived stream can be read; nothing is appended until it is opened again.
pub async fn an_archived_stream_takes_nothing<S: StreamStore>(store: Arc<S>) {
    let stream = unique("archived");
    assert_eq!(store.archive(&stream, true).await.unwrap_err().kind(), ErrorKind::NotFound);
    append(&*store, &stream, events(2)).await;
    store.archive(&stream, true).await.unwrap();
    let error = store.append(&stream, Expected::Any, events(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let other: Arc<str> = unique("archived-other").into();
    let appends = [Arc::clone(&other), stream.as_str().into()];
    let appends = appends.map(|stream| Append { stream, expected: Expected::Any, events: events(1) });
    assert_eq!(store.append_several(appends.into()).await.unwrap_err().kind(), ErrorKind::Refused);
    assert!(store.info(&other).await.unwrap().is_none());
    assert!(store.info(&stream).await.unwrap().unwrap().archived);
    assert_eq!(store.read(&stream, 1, Direction::Forward, 10).await.unwrap().len(), 2);
    store.archive(&stream, false).await.unwrap();
    assert_eq!(store.append(&stream, Expected::Any, events(1)).await.unwrap().last, 3);
}
