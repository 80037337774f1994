//! Reading events for somebody who looks on.

use std::sync::Arc;

use pgfleet_events::subscription::{Source, Start, StreamSubscription};
use pgfleet_events::{Direction, Event, Filter, Moment, Position, StreamStore};
use pgfleet_migrate::options::Stop;

use super::failed::failed;
use crate::error::{Error, ErrorKind};

/// How many events are read at once.
const PAGE: usize = 1_000;

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
    /// Who follows waits out a store that is away for a while, once it was there.
    ///
    /// # Errors
    ///
    /// What cannot be read so, what the store fails with, or an event that could not be told.
    pub async fn run(
        &self,
        store: Arc<dyn StreamStore>,
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
            (Some(stream), true, _) => self.backward(&*store, stream, stop, each).await,
            _ if self.follow => self.follow(store, stop, each).await,
            (Some(stream), false, None | Some(Begin::Version(_))) => self.stream(&*store, stream, stop, each).await,
            _ => self.all(&*store, stop, each).await,
        }
    }

    /// What is read, as those take it who follow and replay.
    pub(super) fn source(&self) -> Source {
        Source::All(self.filter())
    }

    /// Where it begins, as they take it.
    pub(super) fn start(&self) -> Start {
        match (self.begin, self.since) {
            (Some(Begin::Version(version)), _) => Start::Version(version),
            (Some(Begin::Position(position)), _) => Start::Position(position),
            (None, Some(since)) => Start::Time(since),
            (None, None) => Start::Beginning,
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

    async fn follow(
        &self,
        store: Arc<dyn StreamStore>,
        stop: &Stop,
        each: &mut (dyn FnMut(&Event) -> Result<(), Error> + Send),
    ) -> Result<u64, Error> {
        // A store that cannot be reached at all is an error, and not waited for.
        store.head().await.map_err(|error| failed(&error))?;
        let mut subscription = StreamSubscription::new(store, self.source(), self.start());
        let mut told = 0;
        while self.left(told) > 0 {
            let batch = tokio::select! {
                biased;
                () = stop.asked() => break,
                batch = subscription.next() => batch.map_err(|error| failed(&error))?,
            };
            for event in &batch.events {
                if self.left(told) == 0 || stop.is_asked() {
                    break;
                }
                each(event)?;
                told += 1;
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
        while self.left(told) > 0 && !stop.is_asked() {
            let events = store.read(stream, from, Direction::Forward, PAGE).await.map_err(|error| failed(&error))?;
            let Some(last) = events.last() else { break };
            from = last.version + 1;
            told += tell(&events, &filter, self.left(told), each)?;
        }
        Ok(told)
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
                return Ok(told);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgfleet_events::{Clock, Expected, Json, Memory, NewEvent};

    use super::*;

    async fn append(store: &Memory, stream: &str, kind: &'static str) {
        store.append(stream, Expected::Any, vec![NewEvent::new(kind, Json::trusted("{}"))]).await.unwrap();
    }

    /// Follows until so many were told, while others are appended, each after the one before was told.
    async fn followed(store: &Memory, reading: Reading, until: usize, then: &[(&str, &'static str)]) -> Vec<String> {
        let (stop, mut told) = (Stop::default(), Vec::new());
        let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let mut each = |event: &Event| {
            told.push(format!("{}@{}", event.stream, event.version));
            heard.send(()).unwrap();
            if told.len() == until {
                stop.ask();
            }
            Ok(())
        };
        let reading = Reading { follow: true, ..reading };
        let appending = async {
            for (stream, kind) in then {
                hears.recv().await.unwrap();
                append(store, stream, kind).await;
            }
        };
        let run = reading.run(Arc::new(store.clone()), &stop, &mut each);
        let (done, ()) = tokio::join!(run, appending);
        assert_eq!(done.unwrap(), told.len() as u64);
        told
    }

    #[tokio::test]
    async fn who_follows_catches_up_and_is_told_what_comes() {
        let clock = Clock::still();
        let store = Memory::with_clock(clock.clone());
        append(&store, "a", "Odd").await;
        append(&store, "b", "Even").await;
        clock.advance(Duration::from_secs(10));
        let later = clock.now();
        append(&store, "a", "Odd").await;
        let all = followed(&store, Reading::default(), 5, &[("b", "Even"), ("a", "Even")]).await;
        assert_eq!(all, ["a@1", "b@1", "a@2", "b@2", "a@3"]);
        let of = |stream: &str| Reading { stream: Some(stream.to_owned()), ..Reading::default() };
        let from = Reading { begin: Some(Begin::Version(2)), ..of("a") };
        assert_eq!(followed(&store, from, 3, &[("b", "Even"), ("a", "Odd")]).await, ["a@2", "a@3", "a@4"]);
        let even = Reading { kinds: vec!["Even".to_owned()], ..of("a") };
        assert_eq!(followed(&store, even, 2, &[("a", "Even")]).await, ["a@3", "a@5"]);
        let since = Reading { since: Some(later), stream: Some("a".to_owned()), ..Reading::default() };
        assert_eq!(followed(&store, since, 1, &[]).await, ["a@2"]);
        // It ends by itself where a limit says so.
        let limited = Reading { limit: Some(2), ..of("b") };
        assert_eq!(followed(&store, limited, usize::MAX, &[]).await, ["b@1", "b@2"]);
    }

    #[tokio::test]
    async fn who_follows_a_stream_from_a_position_is_told_of_what_is_behind_it() {
        let store = Memory::new();
        for stream in ["a", "b", "a"] {
            append(&store, stream, "Odd").await;
        }
        let first = store.read("a", 1, Direction::Forward, 1).await.unwrap()[0].position.unwrap();
        let behind =
            Reading { begin: Some(Begin::Position(first)), stream: Some("a".to_owned()), ..Reading::default() };
        assert_eq!(followed(&store, behind, 2, &[("a", "Odd")]).await, ["a@2", "a@3"]);
    }
}
