//! Streams of several stores.

use std::sync::Arc;
use std::time::Duration;

use super::{Events, refused};
use crate::answer::Answer;
use crate::error::Error;
use crate::event::{Event, NewEvent};
use crate::moment::Moment;
use crate::position::Position;
use crate::store::EventStore;
use crate::stream::{Append, Appended, Direction, Expected, Filter, Page, StreamInfo, StreamStore};

impl Events {
    fn several(&self, appends: &[Append]) -> Result<&dyn EventStore, Error> {
        let Some(first) = appends.first() else { return Ok(self.of("")) };
        let index = self.0.routes.of(&first.stream);
        match appends.iter().find(|append| self.0.routes.of(&append.stream) != index) {
            None => Ok(self.at(index)),
            Some(other) => Err(Error::invalid(format!(
                "stream {} is in store {} and stream {} in store {}: they cannot be appended to together",
                first.stream,
                self.name_of(&first.stream),
                other.stream,
                self.name_of(&other.stream)
            ))
            .with_hint("route them to one store, or append to one after the other")),
        }
    }

    async fn list_streams(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<StreamInfo>, Error> {
        let mut all = Vec::new();
        for index in self.0.routes.reachable(prefix) {
            let (mut behind, mut found) = (after.map(Arc::from), 0);
            while found < limit {
                let some = StreamStore::list(self.at(index), prefix, behind.as_deref(), limit).await?;
                let is_end = some.len() < limit;
                behind = some.last().map(|info| Arc::clone(&info.stream));
                // What lies in a store that its name does not lead to cannot be read here.
                let mine = some.into_iter().filter(|info| self.0.routes.of(&info.stream) == index);
                let before = all.len();
                all.extend(mine);
                found += all.len() - before;
                if is_end {
                    break;
                }
            }
        }
        all.sort_by(|a, b| a.stream.cmp(&b.stream));
        all.truncate(limit);
        Ok(all)
    }
}

impl StreamStore for Events {
    fn append<'a>(&'a self, stream: &'a str, expected: Expected, events: Vec<NewEvent>) -> Answer<'a, Appended> {
        self.of(stream).append(stream, expected, events)
    }

    fn append_several(&self, appends: Vec<Append>) -> Answer<'_, Vec<Appended>> {
        match self.several(&appends) {
            Ok(store) => store.append_several(appends),
            Err(error) => refused(error),
        }
    }

    fn read<'a>(&'a self, stream: &'a str, from: u64, direction: Direction, limit: usize) -> Answer<'a, Vec<Event>> {
        self.of(stream).read(stream, from, direction, limit)
    }

    fn read_all<'a>(&'a self, after: Position, limit: usize, filter: &'a Filter) -> Answer<'a, Page> {
        match self.one(filter) {
            Ok(index) => self.at(index).read_all(after, limit, filter),
            Err(error) => refused(error),
        }
    }

    fn head(&self) -> Answer<'_, Position> {
        match self.only() {
            Ok(store) => store.head(),
            Err(error) => refused(error),
        }
    }

    fn position_at(&self, time: Moment) -> Answer<'_, Position> {
        match self.only() {
            Ok(store) => store.position_at(time),
            Err(error) => refused(error),
        }
    }

    fn wait(&self, after: Position, most: Duration) -> Answer<'_, ()> {
        match self.only() {
            Ok(store) => StreamStore::wait(store, after, most),
            Err(error) => refused(error),
        }
    }

    fn home(&self, filter: &Filter) -> Result<Option<Arc<dyn EventStore>>, Error> {
        let store = &self.0.stores[self.one(filter)?].1;
        Ok(Some(store.home(filter)?.unwrap_or_else(|| Arc::clone(store))))
    }

    fn info<'a>(&'a self, stream: &'a str) -> Answer<'a, Option<StreamInfo>> {
        StreamStore::info(self.of(stream), stream)
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: usize) -> Answer<'a, Vec<StreamInfo>> {
        Box::pin(self.list_streams(prefix, after, limit))
    }

    fn truncate<'a>(&'a self, stream: &'a str, before: u64) -> Answer<'a, u64> {
        self.of(stream).truncate(stream, before)
    }

    fn delete<'a>(&'a self, stream: &'a str, expected: Expected) -> Answer<'a, u64> {
        self.of(stream).delete(stream, expected)
    }

    fn archive<'a>(&'a self, stream: &'a str, archived: bool) -> Answer<'a, ()> {
        self.of(stream).archive(stream, archived)
    }
}
