//! Streams in memory.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::log::{Log, number, position};
use super::{Look, Memory};
use crate::answer::Answer;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, NewEvent};
use crate::moment::Moment;
use crate::position::Position;
use crate::stream::{Append, Appended, Direction, Expected, Filter, Page, StreamInfo, StreamStore};

/// How many events are looked at in one call that looks for few: others want the lock too.
const LOOKED_AT: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) log: Log,
    by_name: HashMap<Arc<str>, Stream>,
    /// Names in order, for lists.
    names: BTreeSet<Arc<str>>,
    /// Each name of a type once.
    kinds: HashSet<Arc<str>>,
    /// The time of the newest event: time does not go back, so that it can be searched by.
    last_at: Moment,
}

#[derive(Debug)]
struct Stream {
    name: Arc<str>,
    last: u64,
    /// The numbers of the events that are there; the newest has the version `last`.
    numbers: VecDeque<u64>,
    bytes: u64,
    archived: bool,
}

impl Stream {
    fn first(&self) -> u64 {
        self.last + 1 - self.numbers.len() as u64
    }
}

impl Streams {
    fn check(&self, stream: &str, expected: Expected, events: &[NewEvent]) -> Result<(), Error> {
        if stream.is_empty() {
            return Err(Error::invalid("a stream needs a name"));
        }
        if events.is_empty() {
            return Err(Error::invalid(format!("there is nothing to append to stream {stream}")));
        }
        let (last, archived) = self.by_name.get(stream).map_or((0, false), |stream| (stream.last, stream.archived));
        if archived {
            return Err(Error::new(ErrorKind::Refused, format!("stream {stream} is archived")));
        }
        // One that was deleted is as good as none.
        let is_empty = self.by_name.get(stream).is_none_or(|stream| stream.numbers.is_empty());
        if expected.allows(last) || (is_empty && expected.allows(0)) {
            Ok(())
        } else {
            Err(Error::wrong_version(stream, expected, last))
        }
    }

    fn add(&mut self, name: &str, events: Vec<NewEvent>, now: Moment) -> Appended {
        self.last_at = self.last_at.max(now);
        if !self.by_name.contains_key(name) {
            let name: Arc<str> = name.into();
            self.names.insert(Arc::clone(&name));
            let stream =
                Stream { name: Arc::clone(&name), last: 0, numbers: VecDeque::new(), bytes: 0, archived: false };
            self.by_name.insert(name, stream);
        }
        let Self { log, by_name, kinds, last_at, .. } = self;
        let Some(stream) = by_name.get_mut(name) else { return Appended { first: 0, last: 0 } };
        let first = stream.last + 1;
        for event in events {
            stream.last += 1;
            stream.bytes += event.data.as_str().len() as u64;
            let number = log.push(Event {
                stream: Arc::clone(&stream.name),
                version: stream.last,
                position: None,
                at: *last_at,
                id: event.id,
                kind: intern(kinds, event.kind),
                data: event.data,
                meta: event.meta,
            });
            stream.numbers.push_back(number);
        }
        Appended { first, last: stream.last }
    }

    fn info(&self, stream: &Stream) -> Option<StreamInfo> {
        Some(StreamInfo {
            stream: Arc::clone(&stream.name),
            length: stream.numbers.len() as u64,
            first: stream.first(),
            last: stream.last,
            first_at: self.log.get(*stream.numbers.front()?)?.at,
            last_at: self.log.get(*stream.numbers.back()?)?.at,
            archived: stream.archived,
        })
    }

    /// Removes events from the front for as long as the stream has more than `keep` says.
    fn shorten(&mut self, name: &str, mut goes: impl FnMut(&Event, u64, u64) -> bool) -> u64 {
        let Some(stream) = self.by_name.get_mut(name) else { return 0 };
        let mut removed = 0;
        while let Some(number) = stream.numbers.front() {
            let Some(event) = self.log.get(*number) else { break };
            if !goes(event, stream.numbers.len() as u64, stream.bytes) {
                break;
            }
            stream.bytes -= event.data.as_str().len() as u64;
            self.log.remove(*number);
            stream.numbers.pop_front();
            removed += 1;
        }
        if stream.numbers.is_empty() {
            // Nothing that was left to read makes it a stream: it goes on with its versions when it is begun again.
            stream.archived = false;
        }
        removed
    }

    pub(super) fn all_names(&self) -> Vec<Arc<str>> {
        self.names.iter().cloned().collect()
    }

    /// Removes what goes beyond a retention.
    pub(super) fn retain(&mut self, name: &str, retention: &crate::Retention, now: Moment) -> u64 {
        self.shorten(name, |event, count, bytes| {
            retention.max_age.is_some_and(|age| event.at.after(age) < now)
                || retention.max_count.is_some_and(|max| count > max)
                || retention.max_bytes.is_some_and(|max| bytes > max)
        })
    }
}

fn intern(kinds: &mut HashSet<Arc<str>>, kind: Cow<'static, str>) -> Arc<str> {
    if let Some(known) = kinds.get(&*kind) {
        return Arc::clone(known);
    }
    let kind: Arc<str> = kind.into();
    kinds.insert(Arc::clone(&kind));
    kind
}

impl Memory {
    fn append_now(&self, stream: &str, expected: Expected, events: Vec<NewEvent>) -> Result<Appended, Error> {
        self.refuse_closed(stream)?;
        let now = self.inner.clock.now();
        let mut streams = self.streams_mut();
        streams.check(stream, expected, &events)?;
        let appended = streams.add(stream, events, now);
        drop(streams);
        self.inner.appended.notify_waiters();
        Ok(appended)
    }

    fn append_several_now(&self, appends: Vec<Append>) -> Result<Vec<Appended>, Error> {
        let mut seen = HashSet::new();
        for append in &appends {
            if !seen.insert(&*append.stream) {
                return Err(Error::invalid(format!("stream {} is there twice", append.stream)));
            }
            self.refuse_closed(&append.stream)?;
        }
        let now = self.inner.clock.now();
        let mut streams = self.streams_mut();
        for append in &appends {
            streams.check(&append.stream, append.expected, &append.events)?;
        }
        let appended = appends.into_iter().map(|append| streams.add(&append.stream, append.events, now)).collect();
        drop(streams);
        self.inner.appended.notify_waiters();
        Ok(appended)
    }

    fn page(&self, after: Position, limit: usize, filter: &Filter) -> Page {
        let streams = self.streams();
        let start = number(after).min(streams.log.last());
        let (mut events, mut next, mut at_end) = (Vec::new(), start, true);
        for (looked, (number, event)) in streams.log.behind(start).enumerate() {
            if events.len() >= limit || (looked >= LOOKED_AT && looked >= limit) {
                at_end = false;
                break;
            }
            next = number;
            if filter.wants(event) {
                events.push(event.clone());
            }
        }
        if at_end {
            next = streams.log.last();
        }
        Page { events, next: position(next).max(after), at_end }
    }

    fn delete_now(&self, name: &str, expected: Expected) -> Result<u64, Error> {
        let mut streams = self.streams_mut();
        let last = streams.by_name.get(name).map_or(0, |stream| stream.last);
        if !expected.allows(last) {
            return Err(Error::wrong_version(name, expected, last));
        }
        Ok(streams.shorten(name, |_, _, _| true))
    }
}

impl StreamStore for Memory {
    fn append<'a>(&'a self, stream: &'a str, expected: Expected, events: Vec<NewEvent>) -> Answer<'a, Appended> {
        Box::pin(async move { self.append_now(stream, expected, events) })
    }

    fn append_several(&self, appends: Vec<Append>) -> Answer<'_, Vec<Appended>> {
        Box::pin(async move { self.append_several_now(appends) })
    }

    fn read<'a>(&'a self, stream: &'a str, from: u64, direction: Direction, limit: usize) -> Answer<'a, Vec<Event>> {
        Box::pin(async move {
            let streams = self.streams();
            let Some(found) = streams.by_name.get(stream).filter(|stream| !stream.numbers.is_empty()) else {
                return Ok(Vec::new());
            };
            let (first, last) = (found.first(), found.last);
            let place = |version: u64| usize::try_from(version - first).unwrap_or(usize::MAX);
            let event = |number: &u64| streams.log.get(*number).cloned();
            Ok(match direction {
                Direction::Forward if from > last => Vec::new(),
                Direction::Forward => {
                    found.numbers.range(place(from.max(first))..).take(limit).filter_map(event).collect()
                }
                Direction::Backward if from < first => Vec::new(),
                Direction::Backward => {
                    found.numbers.range(..=place(from.min(last))).rev().take(limit).filter_map(event).collect()
                }
            })
        })
    }

    fn read_all<'a>(&'a self, after: Position, limit: usize, filter: &'a Filter) -> Answer<'a, Page> {
        Box::pin(async move { Ok(self.page(after, limit, filter)) })
    }

    fn head(&self) -> Answer<'_, Position> {
        Box::pin(async move { Ok(position(self.streams().log.last())) })
    }

    fn position_at(&self, time: Moment) -> Answer<'_, Position> {
        Box::pin(async move { Ok(position(self.streams().log.before(time))) })
    }

    fn wait(&self, after: Position, most: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            let look = || if self.streams().log.last() > number(after) { Look::There } else { Look::Nothing };
            self.wait_for(&self.inner.appended, most, look).await;
            Ok(())
        })
    }

    fn info<'a>(&'a self, stream: &'a str) -> Answer<'a, Option<StreamInfo>> {
        Box::pin(async move {
            let streams = self.streams();
            Ok(streams.by_name.get(stream).and_then(|stream| streams.info(stream)))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: usize) -> Answer<'a, Vec<StreamInfo>> {
        Box::pin(async move {
            let streams = self.streams();
            let start = match after {
                Some(after) if after >= prefix => Bound::Excluded(after),
                _ => Bound::Included(prefix),
            };
            let names = streams.names.range::<str, _>((start, Bound::Unbounded));
            Ok(names
                .take_while(|name| name.starts_with(prefix))
                .filter_map(|name| streams.info(streams.by_name.get(name)?))
                .take(limit)
                .collect())
        })
    }

    fn truncate<'a>(&'a self, stream: &'a str, before: u64) -> Answer<'a, u64> {
        Box::pin(async move { Ok(self.streams_mut().shorten(stream, |event, _, _| event.version < before)) })
    }

    fn delete<'a>(&'a self, stream: &'a str, expected: Expected) -> Answer<'a, u64> {
        Box::pin(async move { self.delete_now(stream, expected) })
    }

    fn archive<'a>(&'a self, stream: &'a str, archived: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut streams = self.streams_mut();
            match streams.by_name.get_mut(stream).filter(|stream| !stream.numbers.is_empty()) {
                Some(stream) => {
                    stream.archived = archived;
                    Ok(())
                }
                None => Err(Error::new(ErrorKind::NotFound, format!("there is no stream {stream}"))),
            }
        })
    }
}
