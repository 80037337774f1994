//! What is read, and from where: the same for who follows and for who replays.

use std::sync::Arc;

use crate::error::Error;
use crate::event::Event;
use crate::moment::Moment;
use crate::position::Position;
use crate::stream::{Direction, Filter, StreamStore};

/// Which events are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Those of one stream, by their versions.
    Stream(Arc<str>),
    /// Those of all streams that a filter wants, in the common order. Of one that names a stream, the versions are known
    /// too.
    All(Filter),
}

impl Source {
    /// The events of one stream.
    pub fn stream(name: impl Into<Arc<str>>) -> Self {
        Self::Stream(name.into())
    }

    /// The events of all streams.
    pub fn all() -> Self {
        Self::All(Filter::default())
    }

    pub(crate) fn filter(&self) -> Filter {
        match self {
            Self::Stream(name) => Filter { stream: Some(Arc::clone(name)), ..Filter::default() },
            Self::All(filter) => filter.clone(),
        }
    }
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// Before the first event.
    #[default]
    Beginning,
    /// Behind everything that is committed when it begins.
    End,
    /// At this version, that one included; of one stream only.
    Version(u64),
    /// Behind this position.
    Position(Position),
    /// At the first event that was appended at this time or later.
    Time(Moment),
}

impl Start {
    /// Finds the position of all streams that it stands for.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a version, which is of one stream; what the store fails with.
    pub async fn position(self, store: &dyn StreamStore) -> Result<Position, Error> {
        match self {
            Self::Beginning => Ok(Position::START),
            Self::End => store.head().await,
            Self::Position(position) => Ok(position),
            Self::Time(time) => store.position_at(time).await,
            Self::Version(version) => Err(Error::invalid(format!("version {version} is of no stream"))
                .with_hint("name one stream, or begin at a position, which looks like 12-3456")),
        }
    }
}

/// Some events, and whether there was nothing behind them.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) events: Vec<Event>,
    pub(crate) at_end: bool,
}

/// A place in what is read, from which it goes on.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    Stream { stream: Arc<str>, from: u64, filter: Filter },
    All { filter: Filter, after: Position },
}

impl Reader {
    pub(crate) async fn open(store: &dyn StreamStore, source: &Source, start: Start) -> Result<Self, Error> {
        let filter = source.filter();
        let Some(stream) = filter.stream.clone() else {
            return Ok(Self::All { filter, after: start.position(store).await? });
        };
        let from = match start {
            Start::Beginning => 1,
            Start::Version(version) => version.max(1),
            Start::End => store.info(&stream).await?.map_or(1, |info| info.last + 1),
            Start::Time(time) => version_at(store, &stream, time).await?,
            // Where a position is among the versions only the events behind it say.
            Start::Position(after) => return Ok(Self::All { filter, after }),
        };
        Ok(Self::Stream { stream, from, filter })
    }

    /// Reads on. Dropping the future leaves the place as it was.
    pub(crate) async fn read(&mut self, store: &dyn StreamStore, limit: usize) -> Result<Read, Error> {
        match self {
            Self::Stream { stream, from, filter } => {
                let mut events = store.read(stream, *from, Direction::Forward, limit).await?;
                if let Some(last) = events.last() {
                    *from = last.version + 1;
                }
                let at_end = events.len() < limit;
                events.retain(|event| filter.wants(event));
                Ok(Read { events, at_end })
            }
            Self::All { filter, after } => {
                let page = store.read_all(*after, limit, filter).await?;
                *after = page.next;
                Ok(Read { events: page.events, at_end: page.at_end })
            }
        }
    }

    /// Where it goes on.
    pub(crate) fn place(&self) -> Start {
        match self {
            Self::Stream { from, .. } => Start::Version(*from),
            Self::All { after, .. } => Start::Position(*after),
        }
    }

    /// Where to go on behind an event.
    pub(crate) fn behind(&self, event: &Event) -> Start {
        match (self, event.position) {
            (Self::All { .. }, Some(position)) => Start::Position(position),
            (Self::All { after, .. }, None) => Start::Position(*after),
            (Self::Stream { .. }, _) => Start::Version(event.version + 1),
        }
    }
}

/// Finds the first version that was appended at a time or later, as times go up with the versions.
async fn version_at(store: &dyn StreamStore, stream: &str, time: Moment) -> Result<u64, Error> {
    let Some(info) = store.info(stream).await? else { return Ok(1) };
    let (mut low, mut high) = (info.first, info.last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match store.read(stream, middle, Direction::Forward, 1).await?.first() {
            Some(event) if event.at < time => low = event.version + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Clock, Expected, Json, Memory, NewEvent};

    async fn filled() -> (Memory, Vec<Moment>) {
        let clock = Clock::still();
        let store = Memory::with_clock(clock.clone());
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(clock.now());
            let event = NewEvent::new("Made", Json::trusted("{}"));
            store.append("a", Expected::Any, vec![event.clone()]).await.unwrap();
            store.append("b", Expected::Any, vec![NewEvent::new("Made", event.data)]).await.unwrap();
            clock.advance(Duration::from_secs(10));
        }
        (store, times)
    }

    async fn versions(store: &Memory, source: &Source, start: Start) -> Vec<u64> {
        let mut reader = Reader::open(store, source, start).await.unwrap();
        reader.read(store, 100).await.unwrap().events.iter().map(|event| event.version).collect()
    }

    #[tokio::test]
    async fn a_stream_is_read_from_a_version_a_time_a_position_or_its_end() {
        let (store, times) = filled().await;
        let a = Source::stream("a");
        store.truncate("a", 3).await.unwrap();
        assert_eq!(versions(&store, &a, Start::Beginning).await, [3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(versions(&store, &a, Start::Version(9)).await, [9, 10]);
        for (index, version) in [(0, 3), (2, 3), (3, 4), (9, 10)] {
            assert_eq!(versions(&store, &a, Start::Time(times[index])).await[0], version, "from time {index}");
        }
        let after = times[9].after(Duration::from_micros(1));
        assert!(versions(&store, &a, Start::Time(after)).await.is_empty());
        assert!(versions(&store, &a, Start::End).await.is_empty());
        let seventh = store.read("b", 7, Direction::Forward, 1).await.unwrap()[0].position.unwrap();
        assert_eq!(versions(&store, &a, Start::Position(seventh)).await, [8, 9, 10]);
        assert_eq!(versions(&store, &Source::stream("none"), Start::Time(times[0])).await, [0_u64; 0]);
    }

    #[tokio::test]
    async fn a_filter_that_names_a_stream_is_read_by_versions() {
        let (store, times) = filled().await;
        store.append("a", Expected::Any, vec![NewEvent::new("Other", Json::trusted("{}"))]).await.unwrap();
        let made = Filter { stream: Some("a".into()), kinds: vec!["Made".into()], ..Filter::default() };
        assert_eq!(versions(&store, &Source::All(made.clone()), Start::Version(8)).await, [8, 9, 10]);
        let until = Filter { until: Some(times[9]), ..made.clone() };
        assert_eq!(versions(&store, &Source::All(until), Start::Version(8)).await, [8, 9]);
        let mut reader = Reader::open(&store, &Source::All(made), Start::Version(10)).await.unwrap();
        reader.read(&store, 100).await.unwrap();
        assert_eq!(reader.place(), Start::Version(12), "also behind what the filter left out");
    }

    #[tokio::test]
    async fn all_streams_are_read_from_a_time_or_a_position_but_from_no_version() {
        let (store, times) = filled().await;
        assert_eq!(versions(&store, &Source::all(), Start::Time(times[8])).await, [9, 9, 10, 10]);
        let only = Source::All(Filter { stream_prefix: Some("b".into()), ..Filter::default() });
        assert_eq!(versions(&store, &only, Start::Time(times[8])).await, [9, 10]);
        assert!(versions(&store, &Source::all(), Start::End).await.is_empty());
        let error = Reader::open(&store, &Source::all(), Start::Version(3)).await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        assert!(error.hint().unwrap().contains("position"));
    }
}
