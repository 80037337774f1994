//! Streams: events that stay, in order.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::error::Error;
use crate::event::{Event, NewEvent};
use crate::moment::Moment;
use crate::position::Position;
use crate::store::EventStore;

/// The version that a stream must have for an append to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expected {
    /// Whatever it has.
    #[default]
    Any,
    /// None: the stream must not exist, or have been deleted.
    NoStream,
    /// This one; 0 is the same as [`NoStream`](Self::NoStream).
    Exact(u64),
}

impl Expected {
    /// Returns whether a stream of that version is what was expected.
    pub fn allows(self, actual: u64) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == 0,
            Self::Exact(version) => actual == version,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::NoStream => f.write_str("0"),
            Self::Exact(version) => write!(f, "{version}"),
        }
    }
}

/// What is appended to one stream.
#[derive(Debug, Clone)]
pub struct Append {
    /// The stream.
    pub stream: Arc<str>,
    /// The version that it must have.
    pub expected: Expected,
    /// The events, in order; not none.
    pub events: Vec<NewEvent>,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The version of the first event that was appended.
    pub first: u64,
    /// The version of the last one, which is the stream's now.
    pub last: u64,
}

/// Which way a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From old to new.
    #[default]
    Forward,
    /// From new to old.
    Backward,
}

/// Which events of all streams are wanted; all of them by default. Several conditions must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Events of one stream.
    pub stream: Option<Arc<str>>,
    /// Events of streams whose names begin so.
    pub stream_prefix: Option<Arc<str>>,
    /// Events of these types; of all when there are none.
    pub kinds: Vec<Arc<str>>,
    /// Events with this correlation id.
    pub correlation_id: Option<Arc<str>>,
    /// Events appended at this time or later.
    pub since: Option<Moment>,
    /// Events appended before this time.
    pub until: Option<Moment>,
    /// Events of the streams of one part out of so many: `(part, parts)`; see [`Filter::part_of`].
    pub part: Option<(u32, u32)>,
}

impl Filter {
    /// Returns whether all events are wanted.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the part of a stream when streams are shared out among so many: by its name, the same on every machine and
    /// in every version, since the offsets of a group's parts are stored.
    ///
    /// FNV-1a over the name's bytes (64 bits), its upper half multiplied into the range.
    pub fn part_of(stream: &str, parts: u32) -> u32 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in stream.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // FNV's upper bits move little for short names; one round of mixing spreads them.
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let part = ((hash >> 32) * u64::from(parts.max(1))) >> 32;
        u32::try_from(part).unwrap_or(0)
    }

    /// Returns whether an event is wanted.
    pub fn wants(&self, event: &Event) -> bool {
        self.stream.as_ref().is_none_or(|stream| *stream == event.stream)
            && self.stream_prefix.as_ref().is_none_or(|prefix| event.stream.starts_with(&**prefix))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.correlation_id.as_ref().is_none_or(|id| event.meta.correlation_id.as_ref() == Some(id))
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
            && self.part.is_none_or(|(part, parts)| Self::part_of(&event.stream, parts) == part)
    }
}

/// A part of the common order of all streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The events, in order; each has its position.
    pub events: Vec<Event>,
    /// Where to read on: behind everything that was looked at, also what the filter left out.
    pub next: Position,
    /// Whether there was nothing behind it when it was read.
    pub at_end: bool,
}

/// What is known of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub stream: Arc<str>,
    /// How many events it has that can be read.
    pub length: u64,
    /// The version of the oldest event that can be read; older ones were removed.
    pub first: u64,
    /// The version of the newest one: the stream's version.
    pub last: u64,
    /// When the oldest one was appended.
    pub first_at: Moment,
    /// When the newest one was appended.
    pub last_at: Moment,
    /// Whether it is archived: it can be read, and nothing can be appended.
    pub archived: bool,
}

/// Keeps streams.
///
/// What an implementation must keep true, and the suite in `conformance` tries:
///
/// * The events of one stream have the versions 1, 2, 3 … in the order in which they were appended. An append is done as
///   a whole or not at all, and when it is answered it is as durable as the store is.
/// * All events of a store have one order, in which those of one stream are in theirs. It is the same for every reader,
///   whether he reads while events are appended or years later, and however much he reads at once. Nothing ever appears
///   before a position that [`read_all`](Self::read_all) has handed out.
/// * Nobody waits for somebody else's transaction.
pub trait StreamStore: fmt::Debug + Send + Sync {
    /// Appends events to one stream.
    ///
    /// # Errors
    ///
    /// [`WrongVersion`](crate::ErrorKind::WrongVersion) when the stream has another version; nothing is appended then.
    /// [`Refused`](crate::ErrorKind::Refused) for a stream that is archived, [`Invalid`](crate::ErrorKind::Invalid) for
    /// no events or an empty name.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether it was appended.
    fn append<'a>(&'a self, stream: &'a str, expected: Expected, events: Vec<NewEvent>) -> Answer<'a, Appended>;

    /// Appends events to several streams, all or nothing. A stream may be there once.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append), for the first stream that is not as expected.
    fn append_several(&self, appends: Vec<Append>) -> Answer<'_, Vec<Appended>>;

    /// Reads up to `limit` events of one stream, from a version on, that one included.
    ///
    /// Backward from `u64::MAX` begins with the newest. A stream that does not exist has no events.
    fn read<'a>(&'a self, stream: &'a str, from: u64, direction: Direction, limit: usize) -> Answer<'a, Vec<Event>>;

    /// Reads events of all streams behind a position, in the common order, up to `limit` of those that are wanted.
    ///
    /// The answer may hold fewer, or none, though it is not at the end: who wants more reads on from
    /// [`next`](Page::next).
    fn read_all<'a>(&'a self, after: Position, limit: usize, filter: &'a Filter) -> Answer<'a, Page>;

    /// Returns a position behind everything that is committed now.
    fn head(&self) -> Answer<'_, Position>;

    /// Returns the position right before the first event that was appended at a time or later; the end when there is none.
    fn position_at(&self, time: Moment) -> Answer<'_, Position>;

    /// Waits until there may be something behind a position, at most so long. What is appended in this process is known
    /// at once.
    fn wait(&self, after: Position, most: Duration) -> Answer<'_, ()>;

    /// Returns the one store that keeps whatever streams a filter can want, for a store that is made of several; none for
    /// a store that is one itself, which is what is so when nothing is said.
    ///
    /// Positions are of one store: who reads, waits and stores how far he came asks for it first.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when such streams are in several stores.
    fn home(&self, filter: &Filter) -> Result<Option<Arc<dyn EventStore>>, Error> {
        let _ = filter;
        Ok(None)
    }

    /// Returns what is known of a stream; none when it does not exist.
    fn info<'a>(&'a self, stream: &'a str) -> Answer<'a, Option<StreamInfo>>;

    /// Lists up to `limit` streams whose names begin with `prefix`, by name, those behind `after` only.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: usize) -> Answer<'a, Vec<StreamInfo>>;

    /// Removes the events of a stream before a version; later ones keep theirs. Returns how many.
    fn truncate<'a>(&'a self, stream: &'a str, before: u64) -> Answer<'a, u64>;

    /// Deletes a stream, if it has the version expected. Returns how many events were removed.
    ///
    /// A stream of that name that is begun later goes on behind the last version, so no reader meets a version twice.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    fn delete<'a>(&'a self, stream: &'a str, expected: Expected) -> Answer<'a, u64>;

    /// Closes a stream for appends, or opens it again.
    ///
    /// An append that is under way meanwhile may still come in.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) for a stream that does not exist.
    fn archive<'a>(&'a self, stream: &'a str, archived: bool) -> Answer<'a, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_names_are_those_of_the_first_version() {
        // Offsets of parts are stored: what these say must never change.
        let names = ["", "a", "order-1", "order-2", "trip-0192c5f8", "ä"];
        let parts: Vec<u32> = names.iter().map(|name| Filter::part_of(name, 16)).collect();
        assert_eq!(parts, GOLDEN);
        assert!(names.iter().all(|name| Filter::part_of(name, 1) == 0));
    }

    const GOLDEN: [u32; 6] = [8, 8, 7, 3, 10, 14];

    #[test]
    fn the_parts_are_of_about_one_size() {
        let mut counts = [0_u32; 8];
        for number in 0..8_000 {
            counts[Filter::part_of(&format!("order-{number}"), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
