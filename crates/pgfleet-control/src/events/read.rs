//! Reading events for somebody who looks on.

use std::time::Duration;

use pgfleet_events::{Direction, Event, Filter, Moment, Position, StreamStore};
use pgfleet_migrate::options::Stop;

use super::failed::failed;
use crate::error::{Error, ErrorKind};

/// How many events are read at once.
const PAGE: usize = 1_000;

/// How long at most until it is looked again by itself.
const WAIT: Duration = Duration::from_secs(2);

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At this version of the stream, that one included.
    Version(u64),
    /// Behind this position of all streams.
    Position(Position),
}

/// What is read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// One stream; none reads all, in their common order.
    pub stream: Option<String>,
    /// Where it begins; without it at the start, or backward at the end.
    pub begin: Option<Begin>,
    /// From new to old.
    pub backward: bool,
    /// Only events of these types.
    pub kinds: Vec<String>,
    /// Only events with this correlation id.
    pub correlation_id: Option<String>,
    /// Only events appended at this time or later.
    pub since: Option<Moment>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Goes on with what is appended later, until it is stopped.
    pub follow: bool,
}

impl Reading {
    /// Reads, and tells of each event in turn; returns how many there were.
    ///
    /// # Errors
    ///
    /// What cannot be read so, what the store fails with, or an event that could not be told.
    pub async fn run(
        &self,
        store: &dyn StreamStore,
        stop: &Stop,
        each: &mut (dyn FnMut(&Event) -> Result<(), Error> + Send),
    ) -> Result<u64, Error> {
        let refused = |why: &str, hint: &str| Err(Error::new(ErrorKind::Configuration, why).hinted(hint));
        match (&self.stream, self.backward, self.begin) {
            (_, true, _) if self.follow => refused("what is backward has no live end", "leave --follow out"),
            (None, true, _) => {
                refused("all streams are read from old to new", "name a stream, or leave --backward out")
            }
            (None, _, Some(Begin::Version(_))) => {
                refused("a version is of one stream", "a position of all streams looks like 12-3456")
            }
            (Some(_), true, Some(Begin::Position(_))) => refused("backward begins at a version", "give a number"),
            (Some(stream), true, _) => self.backward(store, stream, stop, each).await,
            (Some(stream), false, None | Some(Begin::Version(_))) => self.stream(store, stream, stop, each).await,
            _ => self.all(store, stop, each).await,
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            stream: self.stream.as_deref().map(Into::into),
            kinds: self.kinds.iter().map(|kind| kind.as_str().into()).collect(),
            correlation_id: self.correlation_id.as_deref().map(Into::into),
            since: self.since,
            ..Filter::default()
        }
    }

    fn left(&self, told: u64) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(told))
    }

    async fn backward(
        &self,
        store: &dyn StreamStore,
        stream: &str,
        stop: &Stop,
        each: &mut (dyn FnMut(&Event) -> Result<(), Error> + Send),
    ) -> Result<u64, Error> {
        let filter = self.filter();
        let mut from = match self.begin {
            Some(Begin::Version(version)) => version,
            _ => u64::MAX,
        };
        let mut told = 0;
        while from > 0 && self.left(told) > 0 && !stop.is_asked() {
            let events = store.read(stream, from, Direction::Backward, PAGE).await.map_err(|error| failed(&error))?;
            let Some(last) = events.last() else { break };
            from = last.version - 1;
            // Times go down with the versions.
            let past = self.since.is_some_and(|since| last.at < since);
            told += tell(&events, &filter, self.left(told), each)?;
            if past {
                break;
            }
        }
        Ok(told)
    }

    async fn stream(
        &self,
        store: &dyn StreamStore,
        stream: &str,
        stop: &Stop,
        each: &mut (dyn FnMut(&Event) -> Result<(), Error> + Send),
    ) -> Result<u64, Error> {
        let filter = self.filter();
        let mut from = match self.begin {
            Some(Begin::Version(version)) => version.max(1),
            _ => 1,
        };
        let mut told = 0;
        loop {
            // Asked before the read: what comes in between ends the wait at once.
            let head = if self.follow { store.head().await.map_err(|error| failed(&error))? } else { Position::START };
            loop {
                if self.left(told) == 0 || stop.is_asked() {
                    return Ok(told);
                }
                let events =
                    store.read(stream, from, Direction::Forward, PAGE).await.map_err(|error| failed(&error))?;
                let Some(last) = events.last() else { break };
                from = last.version + 1;
                told += tell(&events, &filter, self.left(told), each)?;
            }
            if !self.follow {
                return Ok(told);
            }
            wait(store, head, stop).await?;
        }
    }

    async fn all(
        &self,
        store: &dyn StreamStore,
        stop: &Stop,
        each: &mut (dyn FnMut(&Event) -> Result<(), Error> + Send),
    ) -> Result<u64, Error> {
        let filter = self.filter();
        let mut after = match (self.begin, self.since) {
            (Some(Begin::Position(position)), _) => position,
            (_, Some(since)) => store.position_at(since).await.map_err(|error| failed(&error))?,
            _ => Position::START,
        };
        let mut told = 0;
        loop {
            let left = usize::try_from(self.left(told)).unwrap_or(usize::MAX).min(PAGE);
            if left == 0 || stop.is_asked() {
                return Ok(told);
            }
            let page = store.read_all(after, left, &filter).await.map_err(|error| failed(&error))?;
            after = page.next;
            for event in &page.events {
                each(event)?;
                told += 1;
            }
            if page.at_end {
                if !self.follow {
                    return Ok(told);
                }
                wait(store, after, stop).await?;
            }
        }
    }
}

/// Tells of those events that are wanted; returns how many.
fn tell(
    events: &[Event],
    filter: &Filter,
    most: u64,
    each: &mut (dyn FnMut(&Event) -> Result<(), Error> + Send),
) -> Result<u64, Error> {
    let mut told = 0;
    for event in events.iter().filter(|event| filter.wants(event)) {
        if told == most {
            break;
        }
        each(event)?;
        told += 1;
    }
    Ok(told)
}

async fn wait(store: &dyn StreamStore, after: Position, stop: &Stop) -> Result<(), Error> {
    tokio::select! {
        waited = store.wait(after, WAIT) => waited.map_err(|error| failed(&error)),
        () = stop.asked() => Ok(()),
    }
}
