//! Who has read how far: offsets of groups, and leases on their parts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::moment::Moment;
use crate::position::Position;

/// The right to read a part of the streams for a group, for a time.
///
/// Its epoch is the fence: a member whose lease ended and was given to another one has an older epoch, and what he commits
/// is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The group.
    pub group: Arc<str>,
    /// Which part of the streams: see [`Filter::part_of`](crate::Filter::part_of).
    pub part: u32,
    /// Into how many parts the group shares the streams out.
    pub parts: u32,
    /// The member who has it.
    pub member: Arc<str>,
    /// How often the part was given to somebody.
    pub epoch: u64,
    /// How far the group has come in it.
    pub position: Position,
    /// When it ends, by the store's clock.
    pub until: Moment,
}

/// How far a group has come in a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// The group.
    pub group: Arc<str>,
    /// The part.
    pub part: u32,
    /// Into how many parts the group shares the streams out.
    pub parts: u32,
    /// How far it has come.
    pub position: Position,
    /// Who has a lease on it that has not ended.
    pub member: Option<Arc<str>>,
    /// How often the part was given to somebody.
    pub epoch: u64,
    /// When the offset was committed the last time.
    pub committed_at: Option<Moment>,
    /// How many events are behind it, of all streams; none where counting would cost reading them.
    pub lag: Option<u64>,
    /// When the oldest event behind it was appended.
    pub oldest: Option<Moment>,
}

/// Keeps offsets of groups, and who may move them.
///
/// A group of one part is a consumer by itself. The number of parts is fixed when the group is first seen; to change it,
/// delete the group and begin where it was.
pub trait ConsumerStore: fmt::Debug + Send + Sync {
    /// Takes leases on parts for a member and renews those that he has, so that all living members have about as many.
    ///
    /// Returns all leases that the member has now. A member that has more than his share gets fewer back: those he must
    /// stop reading. Called about three times in a lease's time. A group that is new begins at `start`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when the group has another number of parts.
    fn lease<'a>(
        &'a self,
        group: &'a str,
        member: &'a str,
        parts: u32,
        start: Position,
        time: Duration,
    ) -> Answer<'a, Vec<Lease>>;

    /// Stores how far a part was handled.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::ErrorKind::Fenced) when the part has another epoch by now; nothing is stored then.
    fn commit<'a>(&'a self, lease: &'a Lease, position: Position) -> Answer<'a, ()>;

    /// Gives up all leases of a member, so that others need not wait for their end.
    fn leave<'a>(&'a self, group: &'a str, member: &'a str) -> Answer<'a, ()>;

    /// Lists how far groups have come, by name and part; only one group when it is named.
    fn offsets<'a>(&'a self, group: Option<&'a str>) -> Answer<'a, Vec<GroupOffset>>;

    /// Sets all parts of a group to a position, and ends all leases: who reads now reads from there.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) for a group that does not exist.
    fn reset<'a>(&'a self, group: &'a str, position: Position) -> Answer<'a, ()>;

    /// Forgets a group; says whether there was one.
    fn forget<'a>(&'a self, group: &'a str) -> Answer<'a, bool>;
}
