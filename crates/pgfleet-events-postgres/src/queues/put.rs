//! Putting messages in.

use std::sync::Arc;

use pgfleet_events::{Enqueued, Error, ErrorKind, NewItem};
use pgfleet_postgres::pool::{Pooled, Transaction};
use uuid::Uuid;

use super::Known;
use super::sql::STEP;
use crate::Store;
use crate::error::failed;
use crate::store::Inner;
use crate::wire::{Id, Jsonb};

/// How long a message is at most that goes into a pack. Whoever takes one message of it has the server read the whole pack;
/// and what is longer is worth to be compressed, which packs are not.
const PACKED_BYTES: usize = 4096;

impl Store {
    /// Puts messages into a queue in the caller's transaction: they are in the queue when it has committed, and not when it
    /// has not. The answers are in their order.
    ///
    /// Consumers in this process hear of them when they look the next time, within the store's `poll`.
    ///
    /// # Errors
    ///
    /// As [`QueueStore::enqueue`](pgfleet_events::QueueStore::enqueue); the transaction has failed then, except where it
    /// was refused.
    pub async fn enqueue_in(
        &self,
        transaction: &Transaction,
        queue: &str,
        items: Vec<NewItem>,
    ) -> Result<Vec<Enqueued>, Error> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.0.known_for(queue, &items, None).await?;
        self.0.put(transaction, &known, &items).await
    }
}

impl Inner {
    pub(super) async fn enqueue(&self, queue: &str, items: Vec<NewItem>) -> Result<Vec<Enqueued>, Error> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let db = self.queue_connection().await?;
        let known = self.known_for(queue, &items, Some(&db)).await?;
        let answers = self.put(&db, &known, &items).await?;
        drop(db);
        self.queues.signals.put(&known.name);
        Ok(answers)
    }

    /// Finds the queue with what the messages need; what it does not have is made in a transaction of its own.
    async fn known_for(&self, queue: &str, items: &[NewItem], db: Option<&Pooled>) -> Result<Arc<Known>, Error> {
        if queue.is_empty() || queue.contains('\0') {
            return Err(Error::invalid(format!("{queue:?} is no name of a queue")));
        }
        let keys = items.iter().any(|item| item.key.is_some());
        if let Some(known) = self.queues.known(queue)
            && (!keys || known.key_lanes > 0)
            && items.iter().all(|item| known.priorities.contains(&item.priority))
        {
            return Ok(known);
        }
        let mut priorities: Vec<i16> =
            items.iter().filter(|item| item.key.is_none()).map(|item| item.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let opened = match db {
            Some(db) => self.open_queue(db, queue, true, &priorities, keys).await?,
            None => self.open_queue(&self.queue_connection().await?, queue, true, &priorities, keys).await?,
        };
        opened.ok_or_else(|| Error::new(ErrorKind::Failed, format!("queue {queue} could not be made")))
    }

    async fn put(&self, db: &Pooled, known: &Known, items: &[NewItem]) -> Result<Vec<Enqueued>, Error> {
        let broken = |error| failed(format!("nothing could be put into queue {}", known.name), error);
        let ids: Vec<Id> = items.iter().map(|_| Id(Uuid::now_v7())).collect();
        let types: Vec<&str> = items.iter().map(|item| &*item.kind).collect();
        // One lane a call: whoever takes a batch finds it in one place.
        let any: i32 = rand::random_range(0..known.lanes);
        if items.len() <= STEP && items.iter().all(is_plain) {
            let lane = block(known, 0) + any;
            let data: Vec<&str> = items.iter().map(|item| item.data.as_str()).collect();
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [&known.id, &lane, &&*known.name, &ids, &types, &data];
            let is_pack = items.len() > 1 && data.iter().all(|data| data.len() <= PACKED_BYTES);
            let sql = &self.queues.sql;
            if db.execute(if is_pack { &sql.put_packed } else { &sql.put_plain }, &values).await.map_err(broken)? > 0 {
                return Ok(ids.iter().map(|id| Enqueued::New(id.0)).collect());
            }
        }
        let text = |of: fn(&NewItem) -> Option<&Arc<str>>| -> Vec<Option<&str>> {
            items.iter().map(|item| of(item).map(|text| &**text)).collect()
        };
        let lanes: Vec<i32> = items
            .iter()
            .map(|item| match &item.key {
                Some(key) => 128 + lane_of(key, known.key_lanes),
                None => block(known, item.priority) + any,
            })
            .collect();
        let data: Vec<Jsonb<&str>> = items.iter().map(|item| Jsonb(item.data.as_str())).collect();
        let priorities: Vec<i16> = items.iter().map(|item| item.priority).collect();
        let delays: Vec<i64> =
            items.iter().map(|item| i64::try_from(item.delay.as_micros()).unwrap_or(i64::MAX / 4)).collect();
        let headers: Vec<Option<Jsonb<String>>> = items
            .iter()
            .map(|item| {
                let headers = &item.meta.headers;
                let written = (!headers.is_empty()).then(|| serde_json::to_string(headers));
                written.transpose().map(|text| text.map(Jsonb))
            })
            .collect::<Result<_, _>>()
            .map_err(|error| Error::invalid("the headers cannot be written as JSON").because(error))?;
        let row = db
            .query_one(
                &self.queues.sql.put,
                &[
                    &known.id,
                    &lanes,
                    &ids,
                    &priorities,
                    &types,
                    &data,
                    &text(|item| item.key.as_ref()),
                    &text(|item| item.dedup_id.as_ref()),
                    &delays,
                    &text(|item| item.meta.correlation_id.as_ref()),
                    &text(|item| item.meta.causation_id.as_ref()),
                    &text(|item| item.meta.traceparent.as_ref()),
                    &text(|item| item.meta.tracestate.as_ref()),
                    &text(|item| item.meta.tenant.as_ref()),
                    &headers,
                ],
            )
            .await
            .map_err(broken)?;
        let refused = |why: &str, hint: &str| {
            Error::new(ErrorKind::Refused, format!("queue {} {why}", known.name)).with_hint(hint)
        };
        match row.get::<_, Option<Vec<bool>>>(0) {
            None => Err(refused("is closed", "open it again in its configuration")),
            Some(new) if new.is_empty() => {
                Err(refused("is full", "wait until its consumers have caught up, or raise its max_length")
                    .retryable(true))
            }
            Some(new) => Ok(new
                .iter()
                .zip(&ids)
                .map(|(new, id)| if *new { Enqueued::New(id.0) } else { Enqueued::Duplicate })
                .collect()),
        }
    }
}

/// Whether there is nothing to say about a message but what it says itself.
fn is_plain(item: &NewItem) -> bool {
    item.key.is_none() && item.priority == 0 && item.delay.is_zero() && item.dedup_id.is_none() && item.meta.is_empty()
}

/// The first lane of a priority.
fn block(known: &Known, priority: i16) -> i32 {
    let place = known.priorities.iter().position(|known| *known == priority).unwrap_or(0);
    i32::try_from(place).unwrap_or(0) * 256
}

/// The lane of a key: the same in every process, for as long as the queue has so many (FNV-1a).
fn lane_of(key: &str, lanes: i32) -> i32 {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let lanes = u64::try_from(lanes.max(1)).unwrap_or(1);
    i32::try_from((hash ^ hash >> 32) % lanes).unwrap_or(0)
}
