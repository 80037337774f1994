//! How far groups have come.

use pgfleet_events::{ConsumerStore, GroupOffset, Moment};
use serde::Serialize;

use super::failed::failed;
use super::stream::millis;
use crate::error::Error;

/// How far a group has come in a part, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct GroupShown {
    /// The group.
    pub group: String,
    /// The part.
    pub part: u32,
    /// Into how many parts it shares the streams out.
    pub parts: u32,
    /// How far it has come.
    pub position: String,
    /// Who reads it.
    pub member: Option<String>,
    /// How often it was given to somebody.
    pub epoch: u64,
    /// When the offset was committed the last time.
    pub committed_at: Option<String>,
    /// How many events are behind it.
    pub lag: Option<u64>,
    /// How old the oldest of them is, in milliseconds.
    pub oldest_ms: Option<u64>,
}

impl GroupShown {
    /// Reads how far all groups of a store have come.
    ///
    /// # Errors
    ///
    /// The store cannot be asked.
    pub async fn all(store: &dyn ConsumerStore) -> Result<Vec<Self>, Error> {
        let offsets = store.offsets(None).await.map_err(|error| failed(&error))?;
        Ok(offsets.iter().map(Self::from).collect())
    }
}

impl From<&GroupOffset> for GroupShown {
    fn from(offset: &GroupOffset) -> Self {
        Self {
            group: offset.group.to_string(),
            part: offset.part,
            parts: offset.parts,
            position: offset.position.to_string(),
            member: offset.member.as_deref().map(str::to_owned),
            epoch: offset.epoch,
            committed_at: offset.committed_at.map(|at| at.to_string()),
            lag: offset.lag,
            oldest_ms: offset.oldest.map(|oldest| millis(oldest.until(Moment::now()))),
        }
    }
}
