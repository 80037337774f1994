//! What the tests of several modules need.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{
    Answer, Append, Appended, ConsumerStore, Direction, Error, ErrorKind, Event, Expected, Filter, GroupOffset, Json,
    Lease, Memory, Moment, NewEvent, Page, Position, StreamInfo, StreamStore,
};

pub(crate) fn event(number: usize) -> NewEvent {
    NewEvent::new("Counted", Json::trusted(number.to_string()))
}

pub(crate) fn number(event: &Event) -> usize {
    event.data.to().unwrap()
}

/// A store that fails so often, when it is read or asked for leases, before it works.
#[derive(Debug)]
pub(crate) struct Failing {
    store: Memory,
    left: Mutex<(usize, ErrorKind)>,
    failed: AtomicUsize,
    reads: AtomicUsize,
    never_waits: AtomicBool,
}

impl Failing {
    pub(crate) fn new(store: Memory, times: usize, kind: ErrorKind) -> Arc<Self> {
        let (failed, reads) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { store, left: Mutex::new((times, kind)), failed, reads, never_waits: AtomicBool::new(false) })
    }

    pub(crate) fn fail(&self, times: usize, kind: ErrorKind) {
        *self.left.lock().unwrap() = (times, kind);
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::Acquire)
    }

    pub(crate) fn never_wait(&self) {
        self.never_waits.store(true, Ordering::Release);
    }

    fn turn(&self) -> Result<(), Error> {
        let mut left = self.left.lock().unwrap();
        if left.0 == 0 {
            return Ok(());
        }
        left.0 -= 1;
        self.failed.fetch_add(1, Ordering::AcqRel);
        Err(Error::new(left.1, "told to fail"))
    }
}

impl StreamStore for Failing {
    fn append<'a>(&'a self, stream: &'a str, expected: Expected, events: Vec<NewEvent>) -> Answer<'a, Appended> {
        self.store.append(stream, expected, events)
    }

    fn append_several(&self, appends: Vec<Append>) -> Answer<'_, Vec<Appended>> {
        self.store.append_several(appends)
    }

    fn read<'a>(&'a self, stream: &'a str, from: u64, direction: Direction, limit: usize) -> Answer<'a, Vec<Event>> {
        Box::pin(async move {
            self.turn()?;
            self.store.read(stream, from, direction, limit).await
        })
    }

    fn read_all<'a>(&'a self, after: Position, limit: usize, filter: &'a Filter) -> Answer<'a, Page> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::AcqRel);
            self.turn()?;
            self.store.read_all(after, limit, filter).await
        })
    }

    fn head(&self) -> Answer<'_, Position> {
        self.store.head()
    }

    fn position_at(&self, time: Moment) -> Answer<'_, Position> {
        self.store.position_at(time)
    }

    fn wait(&self, after: Position, most: Duration) -> Answer<'_, ()> {
        let most = if self.never_waits.load(Ordering::Acquire) { Duration::ZERO } else { most };
        StreamStore::wait(&self.store, after, most)
    }

    fn info<'a>(&'a self, stream: &'a str) -> Answer<'a, Option<StreamInfo>> {
        StreamStore::info(&self.store, stream)
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: usize) -> Answer<'a, Vec<StreamInfo>> {
        StreamStore::list(&self.store, prefix, after, limit)
    }

    fn truncate<'a>(&'a self, stream: &'a str, before: u64) -> Answer<'a, u64> {
        self.store.truncate(stream, before)
    }

    fn delete<'a>(&'a self, stream: &'a str, expected: Expected) -> Answer<'a, u64> {
        self.store.delete(stream, expected)
    }

    fn archive<'a>(&'a self, stream: &'a str, archived: bool) -> Answer<'a, ()> {
        self.store.archive(stream, archived)
    }
}

impl ConsumerStore for Failing {
    fn lease<'a>(
        &'a self,
        group: &'a str,
        member: &'a str,
        parts: u32,
        start: Position,
        time: Duration,
    ) -> Answer<'a, Vec<Lease>> {
        Box::pin(async move {
            self.turn()?;
            self.store.lease(group, member, parts, start, time).await
        })
    }

    fn commit<'a>(&'a self, lease: &'a Lease, position: Position) -> Answer<'a, ()> {
        self.store.commit(lease, position)
    }

    fn leave<'a>(&'a self, group: &'a str, member: &'a str) -> Answer<'a, ()> {
        self.store.leave(group, member)
    }

    fn offsets<'a>(&'a self, group: Option<&'a str>) -> Answer<'a, Vec<GroupOffset>> {
        self.store.offsets(group)
    }

    fn reset<'a>(&'a self, group: &'a str, position: Position) -> Answer<'a, ()> {
        self.store.reset(group, position)
    }

    fn forget<'a>(&'a self, group: &'a str) -> Answer<'a, bool> {
        self.store.forget(group)
    }
}
