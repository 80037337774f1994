//! Aggregates, from their newest snapshot and the events behind it.
//!
//! A snapshot is an event in a stream beside the aggregate's: it can be lost, and is then made again out of the events. So
//! it is saved after the fact, by whoever has loaded the aggregate, and a snapshot that does not fit is not used.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::event::{Event, NewEvent};
use crate::stream::{Direction, Expected, StreamStore};

/// How many events are read at once.
const PAGE: usize = 1_000;

/// The type of the events that are snapshots.
const KIND: &str = "Snapshot";

/// What is made of the events of one stream.
pub trait Aggregate: Default + Serialize + DeserializeOwned {
    /// Changes with the next shape that snapshots of it have: those of another one are not used. 1 by default.
    const SHAPE: u32 = 1;

    /// Takes in the next event.
    ///
    /// # Errors
    ///
    /// Whatever makes it impossible; loading ends with it.
    fn apply(&mut self, event: &Event) -> Result<(), Error>;
}

/// An aggregate as it is after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<A> {
    /// What was made of the events.
    pub state: A,
    /// The version of the last event in it, which is what an append expects; 0 for a stream that does not exist.
    pub version: u64,
    /// The version of the snapshot that it was made from; 0 without one.
    pub snapshot: u64,
}

impl<A> Loaded<A> {
    /// Returns what an append expects that was decided on by this state.
    pub fn expected(&self) -> Expected {
        Expected::Exact(self.version)
    }
}

/// Loads aggregates, and saves a snapshot every so many events.
///
/// ```
/// use std::sync::Arc;
/// use pgfleet_events::snapshot::{Aggregate, Snapshots};
/// use pgfleet_events::{Error, Event, Json, Memory, NewEvent, StreamStore};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Trip {
///     booked: u32,
/// }
///
/// impl Aggregate for Trip {
///     fn apply(&mut self, event: &Event) -> Result<(), Error> {
///         self.booked += u32::from(&*event.kind == "SeatBooked");
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pgfleet_events::Error> {
/// let store = Arc::new(Memory::new());
/// let trips = Snapshots::new(store.clone(), 100);
/// for _ in 0..150 {
///     let trip = trips.load::<Trip>("trip-1").await?;
///     store.append("trip-1", trip.expected(), vec![NewEvent::new("SeatBooked", Json::parse("{}")?)]).await?;
///     trips.save("trip-1", &trip).await?;
/// }
/// let trip = trips.load::<Trip>("trip-1").await?;
/// assert_eq!((trip.state.booked, trip.version, trip.snapshot), (150, 150, 100));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Snapshots {
    store: Arc<dyn StreamStore>,
    every: u64,
    suffix: Arc<str>,
}

#[derive(Serialize)]
struct Writing<'a, A> {
    version: u64,
    shape: u32,
    state: &'a A,
}

#[derive(Deserialize)]
struct Header {
    version: u64,
    shape: u32,
}

#[derive(Deserialize)]
struct State<A> {
    state: A,
}

impl Snapshots {
    /// Saves a snapshot every so many events, at least 1, in the stream `<stream>$snapshot`.
    pub fn new(store: Arc<dyn StreamStore>, every: u64) -> Self {
        Self { store, every: every.max(1), suffix: "$snapshot".into() }
    }

    /// Sets what is behind a stream's name in that of its snapshots.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<Arc<str>>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// Returns the name of the stream of a stream's snapshots.
    pub fn stream_of(&self, stream: &str) -> String {
        format!("{stream}{}", self.suffix)
    }

    /// Makes an aggregate of its newest snapshot, where there is one that fits, and the events behind it.
    ///
    /// # Errors
    ///
    /// What an event cannot be taken in for; [`Failed`](crate::ErrorKind::Failed) when events are gone that no snapshot
    /// covers, as after a truncation or after a stream was deleted and begun again; what the store fails with.
    pub async fn load<A: Aggregate>(&self, stream: &str) -> Result<Loaded<A>, Error> {
        let mut loaded = match self.newest(stream).await? {
            Some((state, version)) => Loaded { state, version, snapshot: version },
            None => Loaded { state: A::default(), version: 0, snapshot: 0 },
        };
        loop {
            let events = self.store.read(stream, loaded.version + 1, Direction::Forward, PAGE).await?;
            for event in &events {
                if event.version != loaded.version + 1 {
                    let (from, to) = (loaded.version + 1, event.version - 1);
                    return Err(Error::new(
                        ErrorKind::Failed,
                        format!("events {from} to {to} of stream {stream} are gone, and no snapshot covers them"),
                    )
                    .with_hint("truncate a stream behind its snapshot only, and do not begin a deleted one again"));
                }
                loaded.state.apply(event)?;
                loaded.version = event.version;
            }
            if events.len() < PAGE {
                return Ok(loaded);
            }
        }
    }

    /// Saves a snapshot, if there are so many events behind the one that the aggregate was loaded from, and nobody has saved
    /// one that is newer; says whether it did. Older snapshots are removed.
    ///
    /// Nothing depends on it: who cannot save may go on.
    ///
    /// # Errors
    ///
    /// What cannot be written as JSON; what the store fails with.
    pub async fn save<A: Aggregate>(&self, stream: &str, loaded: &Loaded<A>) -> Result<bool, Error> {
        if loaded.version.saturating_sub(loaded.snapshot) < self.every {
            return Ok(false);
        }
        let (name, version) = (self.stream_of(stream), loaded.version);
        let event = NewEvent::of(KIND, &Writing { version, shape: A::SHAPE, state: &loaded.state })?;
        // A snapshot never takes the place of a newer one, behind which the stream may have been truncated already.
        let expected = match self.event(&name).await? {
            None => Expected::NoStream,
            Some(there) => {
                let header = there.data.to::<Header>().ok().filter(|header| header.shape == A::SHAPE);
                if let Some(header) = header
                    && (version..=self.last(stream).await?).contains(&header.version)
                {
                    return Ok(false);
                }
                Expected::Exact(there.version)
            }
        };
        match self.store.append(&name, expected, vec![event]).await {
            Ok(appended) => self.store.truncate(&name, appended.last).await.map(|_| true),
            // Somebody else was quicker; which of the two is newer nobody needs to know.
            Err(error) if error.is_wrong_version() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn event(&self, name: &str) -> Result<Option<Event>, Error> {
        Ok(self.store.read(name, u64::MAX, Direction::Backward, 1).await?.pop())
    }

    async fn last(&self, stream: &str) -> Result<u64, Error> {
        Ok(self.store.info(stream).await?.map_or(0, |info| info.last))
    }

    async fn newest<A: Aggregate>(&self, stream: &str) -> Result<Option<(A, u64)>, Error> {
        let name = self.stream_of(stream);
        let Some(event) = self.event(&name).await? else { return Ok(None) };
        // The shape first: the state of another one need not be readable.
        let read = event.data.to::<Header>().and_then(|header| {
            let state = (header.shape == A::SHAPE).then(|| event.data.to::<State<A>>()).transpose()?;
            Ok(state.map(|state| (state.state, header.version)))
        });
        match read {
            Ok(Some((state, version))) => {
                // One that says more than the stream has is of another stream of that name.
                Ok((version <= self.last(stream).await?).then_some((state, version)))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::warn!(
                    target: "pgfleet::events",
                    stream = name,
                    error = &error as &dyn std::error::Error,
                    "a snapshot cannot be read; the events are read instead"
                );
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{event, number};
    use crate::{Json, Memory};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Sum {
        sum: usize,
        #[serde(skip)]
        applied: usize,
    }

    impl Aggregate for Sum {
        fn apply(&mut self, event: &Event) -> Result<(), Error> {
            self.sum += number(event);
            self.applied += 1;
            Ok(())
        }
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Other {
        text: String,
    }

    impl Aggregate for Other {
        const SHAPE: u32 = 2;

        fn apply(&mut self, event: &Event) -> Result<(), Error> {
            self.text.push_str(event.data.as_str());
            Ok(())
        }
    }

    async fn filled(count: usize) -> (Memory, Snapshots) {
        let store = Memory::new();
        store.append("s", Expected::Any, (1..=count).map(event).collect()).await.unwrap();
        let snapshots = Snapshots::new(Arc::new(store.clone()), 10);
        (store, snapshots)
    }

    #[tokio::test]
    async fn a_snapshot_is_saved_every_so_many_events_and_the_rest_is_read() {
        let (store, snapshots) = filled(2_500).await;
        let first = snapshots.load::<Sum>("s").await.unwrap();
        assert_eq!((first.state.sum, first.state.applied, first.version), (2_500 * 2_501 / 2, 2_500, 2_500));
        assert!(snapshots.save("s", &first).await.unwrap());
        store.append("s", first.expected(), (1..=9).map(event).collect()).await.unwrap();
        let second = snapshots.load::<Sum>("s").await.unwrap();
        assert_eq!((second.state.sum, second.state.applied), (first.state.sum + 45, 9));
        assert_eq!((second.version, second.snapshot), (2_509, 2_500));
        assert!(!snapshots.save("s", &second).await.unwrap(), "nine are not enough");
        store.append("s", second.expected(), vec![event(1)]).await.unwrap();
        let third = snapshots.load::<Sum>("s").await.unwrap();
        assert!(snapshots.save("s", &third).await.unwrap());
        let kept = StreamStore::info(&store, "s$snapshot").await.unwrap().unwrap();
        assert_eq!((kept.length, kept.last), (1, 2), "older ones are removed");
        assert_eq!(
            snapshots.load::<Sum>("none").await.unwrap(),
            Loaded { state: Sum::default(), version: 0, snapshot: 0 }
        );
    }

    #[tokio::test]
    async fn who_is_late_does_not_take_the_place_of_a_newer_snapshot() {
        let (store, snapshots) = filled(10).await;
        let late = snapshots.load::<Sum>("s").await.unwrap();
        store.append("s", late.expected(), (1..=10).map(event).collect()).await.unwrap();
        let newer = snapshots.load::<Sum>("s").await.unwrap();
        assert!(snapshots.save("s", &newer).await.unwrap());
        store.truncate("s", 20).await.unwrap();
        assert!(!snapshots.save("s", &late).await.unwrap());
        let loaded = snapshots.load::<Sum>("s").await.unwrap();
        assert_eq!((loaded.state.sum, loaded.version, loaded.snapshot), (110, 20, 20));
        // One of another shape is no obstacle.
        store.append("s", loaded.expected(), (1..=10).map(event).collect()).await.unwrap();
        let other = Loaded { state: Other::default(), version: 15, snapshot: 0 };
        assert!(snapshots.save("s", &other).await.unwrap());
    }

    #[tokio::test]
    async fn a_snapshot_that_does_not_fit_is_not_used() {
        let (store, snapshots) = filled(12).await;
        let loaded = snapshots.load::<Sum>("s").await.unwrap();
        snapshots.save("s", &loaded).await.unwrap();
        let other = snapshots.load::<Other>("s").await.unwrap();
        assert_eq!((&*other.state.text, other.snapshot), ("123456789101112", 0));
        for broken in [
            r#"{"version":3}"#,
            r#"{"version":3,"shape":1,"state":7}"#,
            r#"{"version":99,"shape":1,"state":{"sum":1}}"#,
        ] {
            let broken = NewEvent::new(KIND, Json::parse(broken).unwrap());
            store.append("s$snapshot", Expected::Any, vec![broken]).await.unwrap();
            let again = snapshots.load::<Sum>("s").await.unwrap();
            assert_eq!((again.state.sum, again.version, again.snapshot), (78, 12, 0));
        }
    }

    #[tokio::test]
    async fn events_that_are_gone_are_missed_unless_a_snapshot_covers_them() {
        let (store, snapshots) = filled(20).await;
        let loaded = snapshots.load::<Sum>("s").await.unwrap();
        store.truncate("s", 15).await.unwrap();
        let error = snapshots.load::<Sum>("s").await.unwrap_err();
        assert_eq!(error.to_string(), "events 1 to 14 of stream s are gone, and no snapshot covers them");
        let beside = snapshots.clone().suffix("-as-of");
        assert!(beside.save("s", &loaded).await.unwrap());
        assert!(StreamStore::info(&store, "s-as-of").await.unwrap().is_some());
        assert_eq!(beside.load::<Sum>("s").await.unwrap().state.sum, 210);
    }
}
