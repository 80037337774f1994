//! A store of streams and queues.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::Error;
use pgfleet_postgres::pool::{Pool, Pooled};

use crate::config;
use crate::consumers;
use crate::error::failed;
use crate::module;
use crate::queues::Queues;
use crate::streams::Streams;

/// How a store behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The schema of its tables.
    pub schema: String,
    /// How many events are read at once where the caller does not say.
    pub read_batch: usize,
    /// How often somebody who waits looks by himself; what happens in this process, or is notified, is known earlier.
    pub poll: Duration,
    /// How many transactions of appends are on their way at once; what comes meanwhile goes together in the next one.
    pub writers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { schema: module::EVENT_STREAMING.to_owned(), read_batch: 1_000, poll: Duration::from_secs(2), writers: 8 }
    }
}

/// Streams and queues in a database.
///
/// Cheap to clone; all clones are one store. It implements [`StreamStore`](pgfleet_events::StreamStore),
/// [`QueueStore`](pgfleet_events::QueueStore), [`ConsumerStore`](pgfleet_events::ConsumerStore) and
/// [`ConfigStore`](pgfleet_events::ConfigStore).
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) pool: Pool,
    pub(crate) options: Options,
    pub(crate) streams: Streams,
    pub(crate) consumers: consumers::Sql,
    pub(crate) closed: config::Closed,
    pub(crate) queues: Queues,
}

impl Inner {
    pub(crate) async fn connection(&self) -> Result<Pooled, Error> {
        self.pool.get().await.map_err(|error| failed("no connection to the store", error))
    }
}

impl Store {
    /// A store in the database of a pool; its tables are made by [`module::event_streaming`].
    pub fn new(pool: Pool, options: Options) -> Self {
        let streams = Streams::new(&options.schema);
        let consumers = consumers::Sql::new(&options.schema);
        let queues = Queues::new(&options.schema);
        Self(Arc::new(Inner { pool, options, streams, consumers, closed: config::Closed::default(), queues }))
    }
}
