//! Reading events of older versions of their types.
//!
//! An event stays as it was written. When its type changes, a closure is registered that makes the JSON of the next version
//! out of that of one version, and whoever reads applies them one after the other. Which version an event was written in is
//! in its header [`VERSION`]; one without it is of version 1.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::event::{Event, NewEvent};

/// The header with the version of an event's type.
pub const VERSION: &str = "schema-version";

type Step = dyn Fn(Value) -> Result<Value, Error> + Send + Sync;

/// Steps from each version of a type to the next. Cheap to clone.
///
/// ```
/// use pgfleet_events::upcast::Upcasters;
/// use pgfleet_events::{Direction, Expected, Memory, NewEvent, StreamStore};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pgfleet_events::Error> {
/// #[derive(serde::Deserialize)]
/// struct SeatBooked {
///     seats: Vec<u32>,
/// }
///
/// let store = Memory::new();
/// // As the first version of the service wrote it.
/// store.append("trip-1", Expected::Any, vec![NewEvent::of("SeatBooked", &json!({ "seat": 12 }))?]).await?;
///
/// let upcasters = Upcasters::new().add("SeatBooked", 1, |old| Ok(json!({ "seats": [old["seat"]] })));
/// let event = &store.read("trip-1", 1, Direction::Forward, 1).await?[0];
/// assert_eq!(upcasters.read::<SeatBooked>(event)?.seats, [12]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Upcasters {
    steps: BTreeMap<Arc<str>, BTreeMap<u32, Arc<Step>>>,
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.steps.iter().map(|(kind, steps)| (kind, steps.keys().collect::<Vec<_>>()))).finish()
    }
}

impl Upcasters {
    /// None: every type has one version.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the step from a version of a type to the next one; a second one of the same version takes its place.
    #[must_use]
    pub fn add(
        mut self,
        kind: impl Into<Arc<str>>,
        from: u32,
        step: impl Fn(Value) -> Result<Value, Error> + Send + Sync + 'static,
    ) -> Self {
        self.steps.entry(kind.into()).or_default().insert(from, Arc::new(step));
        self
    }

    /// Returns the version of a type that this program reads and writes: the one behind its last step.
    pub fn current(&self, kind: &str) -> u32 {
        self.steps.get(kind).and_then(|steps| steps.keys().next_back()).map_or(1, |from| from.saturating_add(1))
    }

    /// Notes in an event about to be appended which version of its type it has.
    #[must_use]
    pub fn stamp(&self, mut event: NewEvent) -> NewEvent {
        let current = self.current(&event.kind);
        // The first version needs no header, as events have none that were there before anybody thought of versions.
        if current > 1 {
            event.meta.headers.insert(VERSION.to_owned(), current.to_string());
        }
        event
    }

    /// Returns the JSON of an event in the current version of its type.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for an event of a version that is newer than this program knows, where a step
    /// is missing, or data that is no JSON; and what a step fails with.
    pub fn value(&self, event: &Event) -> Result<Value, Error> {
        let what = || format!("{} {} of stream {}", event.kind, event.version, event.stream);
        let mut version = match event.meta.headers.get(VERSION) {
            None => 1,
            Some(text) => match text.parse::<u32>() {
                Ok(version) if version > 0 => version,
                _ => return Err(Error::invalid(format!("{} has {text:?} as the version of its type", what()))),
            },
        };
        let current = self.current(&event.kind);
        if version > current {
            return Err(Error::invalid(format!(
                "{} is of version {version}, and {current} is the last one known",
                what()
            ))
            .with_hint("a newer version of the program has written it: deploy that everywhere"));
        }
        let mut value = event.data.to()?;
        let steps = self.steps.get(&event.kind);
        while version < current {
            let Some(step) = steps.and_then(|steps| steps.get(&version)) else {
                return Err(Error::invalid(format!("{} is of version {version}, from which there is no step", what()))
                    .with_hint("add the step to the next version"));
            };
            value = step(value)?;
            version += 1;
        }
        Ok(value)
    }

    /// Reads an event as a value of the current version of its type.
    ///
    /// # Errors
    ///
    /// As [`value`](Self::value); [`Invalid`](crate::ErrorKind::Invalid) when it is not such a value.
    pub fn read<T: DeserializeOwned>(&self, event: &Event) -> Result<T, Error> {
        // What needs no step is read in one go.
        if self.current(&event.kind) == 1 && !event.meta.headers.contains_key(VERSION) {
            return event.data.to();
        }
        serde_json::from_value(self.value(event)?).map_err(|error| {
            Error::invalid(format!(
                "{} {} of stream {} is no {}",
                event.kind,
                event.version,
                event.stream,
                std::any::type_name::<T>()
            ))
            .because(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::{Direction, ErrorKind, Expected, Memory, StreamStore};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Booked {
        seats: Vec<u32>,
        class: String,
    }

    fn upcasters() -> Upcasters {
        Upcasters::new().add("Booked", 1, |old| Ok(json!({ "seats": [old["seat"]] }))).add("Booked", 2, |mut old| {
            old["class"] = json!("second");
            Ok(old)
        })
    }

    async fn stored(event: NewEvent) -> Event {
        let store = Memory::new();
        store.append("trip", Expected::Any, vec![event]).await.unwrap();
        store.read("trip", 1, Direction::Forward, 1).await.unwrap().remove(0)
    }

    fn of_version(version: &str, data: &Value) -> NewEvent {
        let mut event = NewEvent::of("Booked", data).unwrap();
        event.meta.headers.insert(VERSION.to_owned(), version.to_owned());
        event
    }

    #[tokio::test]
    async fn events_of_every_version_are_read_as_the_current_one() {
        let upcasters = upcasters();
        let booked = |class: &str| Booked { seats: vec![12], class: class.to_owned() };
        let first = stored(NewEvent::of("Booked", &json!({ "seat": 12 })).unwrap()).await;
        assert_eq!(upcasters.read::<Booked>(&first).unwrap(), booked("second"));
        let second = stored(of_version("2", &json!({ "seats": [12] }))).await;
        assert_eq!(upcasters.read::<Booked>(&second).unwrap(), booked("second"));
        let new = upcasters.stamp(NewEvent::of("Booked", &json!({ "seats": [12], "class": "first" })).unwrap());
        assert_eq!(new.meta.headers[VERSION], "3");
        assert_eq!(upcasters.read::<Booked>(&stored(new).await).unwrap(), booked("first"));
        let other = upcasters.stamp(NewEvent::of("Counted", &7).unwrap());
        assert!(other.meta.headers.is_empty());
        assert_eq!(upcasters.read::<u32>(&stored(other).await).unwrap(), 7);
    }

    #[tokio::test]
    async fn what_cannot_be_read_says_why() {
        let upcasters = upcasters();
        for (version, why) in [("4", "3 is the last one known"), ("x", "\"x\" as the version"), ("0", "\"0\"")] {
            let event = stored(of_version(version, &json!({}))).await;
            let error = upcasters.read::<Booked>(&event).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        let gap = Upcasters::new().add("Booked", 2, Ok);
        let error = gap.read::<Booked>(&stored(of_version("1", &json!({}))).await).unwrap_err();
        assert!(error.to_string().contains("no step"), "{error}");
        let error = upcasters.read::<Booked>(&stored(of_version("3", &json!({}))).await).unwrap_err();
        assert!(error.to_string().contains("Booked 1 of stream trip is no"), "{error}");
        let fails = Upcasters::new().add("Booked", 1, |_| Err(Error::new(ErrorKind::Failed, "told to fail")));
        let error = fails.read::<Booked>(&stored(of_version("1", &json!({}))).await).unwrap_err();
        assert_eq!(error.to_string(), "told to fail");
    }
}
