//! Removing what goes beyond the limits, a bounded step at a time.
//!
//! What a step removes is decided by the database when it is done, so it makes no difference who does it, how often, and
//! whether two do it at once: nothing is removed that the limits keep. Streams are listed with their lengths and the times
//! of their first events, and those that are surely within their limits are not asked for.

use std::collections::VecDeque;
use std::sync::Arc;

use pgfleet_events::{
    ConfigStore as _, Error, Moment, Removed, Retention, RetentionPolicy, StreamConfig, StreamInfo, StreamKind,
    StreamStore as _,
};

use crate::config::{fits, longest, micros, number, tighter};
use crate::error::failed;
use crate::store::Store;

/// How many streams are looked at at once.
const PAGE: usize = 1_000;

/// The most events, or messages, that one step removes where nothing else is said.
pub(crate) const STEP: i64 = 10_000;

/// A run over all streams and queues for which there are limits.
#[derive(Debug)]
pub(crate) struct Run {
    configs: Vec<StreamConfig>,
    policies: Vec<RetentionPolicy>,
    most: i64,
    /// Behind which name the list of streams goes on; none when it has come to its end.
    listing: Option<Arc<str>>,
    streams: VecDeque<(Arc<str>, Retention)>,
    queues: VecDeque<(Arc<str>, Retention)>,
    /// Whether something of the first one was removed.
    is_begun: bool,
    /// What was removed of streams.
    pub(crate) events: Removed,
    /// What was removed of queues.
    pub(crate) messages: Removed,
}

impl Run {
    /// Finds out for what there are limits.
    pub(crate) async fn new(store: &Store, most: i64) -> Result<Self, Error> {
        let (configs, policies) = (store.configs().await?, store.policies().await?);
        let policies: Vec<_> = policies.into_iter().filter(|policy| policy.enabled).collect();
        let limited = |config: &&StreamConfig| !config.retention.is_none();
        let queues = configs.iter().filter(limited).filter(|config| config.kind == StreamKind::Queue);
        let queues = queues.map(|config| (Arc::clone(&config.name), config.retention)).collect();
        // Without a limit no stream need be looked at.
        let is_limited = policies.iter().any(|policy| !policy.retention.is_none())
            || configs.iter().filter(limited).any(|config| config.kind == StreamKind::Stream);
        Ok(Self {
            configs,
            policies,
            most,
            listing: is_limited.then(|| Arc::from("")),
            streams: VecDeque::new(),
            queues,
            is_begun: false,
            events: Removed::default(),
            messages: Removed::default(),
        })
    }

    /// Does one step; says whether there may be more to do.
    pub(crate) async fn step(&mut self, store: &Store) -> Result<bool, Error> {
        if let Some((stream, limits)) = self.streams.front() {
            let count = store.retain(stream, *limits, self.most).await?;
            if note(&mut self.events, &mut self.is_begun, count, self.most) {
                self.streams.pop_front();
            }
            return Ok(true);
        }
        if let Some(after) = &self.listing {
            let page = store.list("", Some(after), PAGE).await?;
            let now = Moment::now();
            for info in &page {
                let limits = self.limits(&info.stream);
                if may_go_beyond(info, &limits, now) {
                    self.streams.push_back((Arc::clone(&info.stream), limits));
                }
            }
            let last = page.last().filter(|_| page.len() == PAGE);
            self.listing = last.map(|last| Arc::clone(&last.stream));
            return Ok(true);
        }
        if let Some((queue, limits)) = self.queues.front() {
            let count = store.retain_queue(queue, *limits, self.most).await?;
            if note(&mut self.messages, &mut self.is_begun, count, self.most) {
                self.queues.pop_front();
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// All limits that hold for a stream, as one.
    fn limits(&self, stream: &str) -> Retention {
        let configured = longest(&self.configs, stream).map(|config| config.retention);
        let fitting = self.policies.iter().filter(|policy| fits(&policy.streams, stream));
        fitting.fold(configured.unwrap_or_default(), |limits, policy| tighter(limits, policy.retention))
    }
}

/// Counts what a step removed; says whether there is nothing more to remove of it.
fn note(removed: &mut Removed, is_begun: &mut bool, count: u64, most: i64) -> bool {
    removed.events += count;
    removed.streams += u64::from(count > 0 && !*is_begun);
    let is_done = count < most.unsigned_abs();
    *is_begun = !is_done;
    is_done
}

/// Whether something of a stream may have to be removed. Of its bytes nothing is known here.
fn may_go_beyond(info: &StreamInfo, limits: &Retention, now: Moment) -> bool {
    limits.max_bytes.is_some()
        || limits.max_count.is_some_and(|count| info.length > count)
        || limits.max_age.is_some_and(|age| info.first_at.after(age) <= now)
}

impl Store {
    /// Removes of one stream what goes beyond a limit, the oldest first.
    async fn retain(&self, stream: &str, limits: Retention, most: i64) -> Result<u64, Error> {
        let sql =
            format!("SELECT {}($1, $2::bigint * interval '1 microsecond', $3, $4, $5)", self.table("retain_events"));
        let what = || format!("old events of stream {stream} could not be removed");
        self.remove_beyond(&sql, stream, limits, most).await.map_err(|error| failed(what(), error))
    }

    /// Removes of one queue what nobody took and what goes beyond a limit, the oldest first.
    async fn retain_queue(&self, queue: &str, limits: Retention, most: i64) -> Result<u64, Error> {
        let sql =
            format!("SELECT {}($1, $2::bigint * interval '1 microsecond', $3, $4, $5)", self.table("queue_retain"));
        let what = || format!("old messages of queue {queue} could not be removed");
        self.remove_beyond(&sql, queue, limits, most).await.map_err(|error| failed(what(), error))
    }

    async fn remove_beyond(
        &self,
        sql: &str,
        name: &str,
        limits: Retention,
        most: i64,
    ) -> Result<u64, pgfleet_postgres::Error> {
        let age = limits.max_age.map(micros);
        let (count, bytes) = (limits.max_count.map(number), limits.max_bytes.map(number));
        let db = self.0.pool.get().await?;
        let row = db.query_one(sql, &[&name, &age, &count, &bytes, &most]).await?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_stream_that_is_within_its_limits_is_not_asked_for() {
        let at = |second: i64| Moment::from_micros(second * 1_000_000);
        let info = StreamInfo {
            stream: Arc::from("a"),
            length: 5,
            first: 1,
            last: 5,
            first_at: at(100),
            last_at: at(200),
            archived: false,
        };
        let beyond = |limits: Retention, now: i64| may_go_beyond(&info, &limits, at(now));
        assert!(!beyond(Retention::default(), 1_000));
        let counted = |count| Retention { max_count: Some(count), ..Retention::default() };
        assert!(beyond(counted(4), 100) && !beyond(counted(5), 100));
        let aged = Retention { max_age: Some(Duration::from_secs(50)), ..Retention::default() };
        assert!(beyond(aged, 150) && !beyond(aged, 149));
        assert!(beyond(Retention { max_bytes: Some(1 << 40), ..Retention::default() }, 100));
    }

    #[test]
    fn a_stream_counts_once_however_many_steps_it_takes() {
        let (mut removed, mut is_begun) = (Removed::default(), false);
        assert!(!note(&mut removed, &mut is_begun, 10, 10));
        assert!(!note(&mut removed, &mut is_begun, 10, 10));
        assert!(note(&mut removed, &mut is_begun, 0, 10));
        assert!(note(&mut removed, &mut is_begun, 3, 10));
        assert_eq!((removed.streams, removed.events), (2, 23));
    }
}
