//! Reading as a group: members share the streams out, and each event is handled by one of them.
//!
//! The streams are in parts ([`Filter::part_of`](crate::Filter::part_of)); a member has leases on some of them, renews
//! these, reads each part by itself and stores how far it has come. The lease is the fence: who has lost a part cannot
//! store anything for it, and whoever has it by now begins behind what was stored last. So an event may be handled more
//! than once, when a member ends between handling and storing, but never left out; of one stream they come in order.
//!
//! Who must count each event once writes what it led to and the offset in one transaction; that is what a projection is.

mod member;
mod options;
mod part;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::options::{GroupOptions, OnFailure, SkipFn};
pub use self::status::{PartState, PartStatus, Status};
use crate::error::Error;
use crate::handler::Handler;
use crate::store::GroupStore;

/// One member of a group.
///
/// ```
/// use std::sync::Arc;
/// use pgfleet_events::group::{Group, GroupOptions};
/// use pgfleet_events::{Expected, Json, Memory, NewEvent, StreamStore, handler};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pgfleet_events::Error> {
/// let store = Arc::new(Memory::new());
/// store.append("trip-1", Expected::Any, vec![NewEvent::new("SeatBooked", Json::parse("{}")?)]).await?;
/// let (told, hears) = tokio::sync::oneshot::channel();
/// let told = std::sync::Mutex::new(Some(told));
/// let handler = handler::from_fn(move |events| {
///     if let Some(told) = told.lock().unwrap().take() {
///         told.send(events[0].kind.clone()).ok();
///     }
///     Box::pin(std::future::ready(Ok(())))
/// });
/// let group = Group::new(store, "mails", "member-1", Arc::new(handler), GroupOptions::default());
/// // Until the first event was handled; what is being handled then is finished and stored.
/// group.run(async { assert_eq!(&*hears.await.unwrap(), "SeatBooked") }).await
/// # }
/// ```
pub struct Group {
    store: Arc<dyn GroupStore>,
    name: Arc<str>,
    member: Arc<str>,
    handler: Arc<dyn Handler>,
    options: Arc<GroupOptions>,
    shared: Arc<Shared>,
}

/// What the member and the tasks of his parts share.
#[derive(Debug)]
struct Shared {
    /// Written by the tasks, each its own part, and by the member when he has lost one; read by whoever looks.
    status: watch::Sender<Status>,
    /// Counted up to have stopped parts try again.
    resumed: watch::Sender<u64>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.name).field("member", &self.member).finish_non_exhaustive()
    }
}

impl Group {
    /// Makes a member of a group; no two that run may have one name. Nothing is read before [`run`](Self::run).
    pub fn new(
        store: Arc<dyn GroupStore>,
        name: impl Into<Arc<str>>,
        member: impl Into<Arc<str>>,
        handler: Arc<dyn Handler>,
        options: GroupOptions,
    ) -> Self {
        let shared = Shared { status: watch::Sender::default(), resumed: watch::Sender::default() };
        Self {
            store,
            name: name.into(),
            member: member.into(),
            handler,
            options: Arc::new(options),
            shared: Arc::new(shared),
        }
    }

    /// Returns how the parts are doing that this member has, by their numbers.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Returns what tells of each change of [`status`](Self::status).
    pub fn changes(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Has parts that a failure has stopped try the same event again.
    pub fn resume(&self) {
        self.shared.resumed.send_modify(|count| *count += 1);
    }

    /// Reads as a member of the group until `stop` is ready, and leaves it.
    ///
    /// What is being handled when `stop` becomes ready is finished and stored, if that takes no longer than a third of a
    /// lease. Failures of the store that may pass are logged and tried again; when the leases could not be renewed until
    /// they end, the parts are given up and taken again later.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for options that cannot be, or when the group has another number of parts;
    /// what else the store fails with when leases are taken. A handler's failure is none: see [`OnFailure`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts what is being handled and does not leave: others wait for the leases to end.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        self.options.check()?;
        let store = match self.store.home(&self.options.filter)? {
            Some(home) => home,
            None => Arc::clone(&self.store),
        };
        let member = member::Member::new(self, store);
        member.run(std::pin::pin!(stop)).await
    }
}
