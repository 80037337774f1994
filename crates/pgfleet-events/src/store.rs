//! Stores that keep several kinds of things.

use crate::config::ConfigStore;
use crate::consumer::ConsumerStore;
use crate::queue::QueueStore;
use crate::stream::StreamStore;

/// A store of streams that keeps how far groups have read them, as a [`Group`](crate::group::Group) needs it.
///
/// It is implemented for whatever has both.
pub trait GroupStore: StreamStore + ConsumerStore {}

impl<T: StreamStore + ConsumerStore + ?Sized> GroupStore for T {}

/// A store of everything: streams, queues, offsets and configurations.
///
/// It is implemented for whatever has all of them, so an `Arc<dyn EventStore>` can be chosen when the program runs.
pub trait EventStore: GroupStore + QueueStore + ConfigStore {}

impl<T: GroupStore + QueueStore + ConfigStore + ?Sized> EventStore for T {}
