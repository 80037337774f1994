//! Looking at queues, and putting them in order.

use std::sync::Arc;

use pgfleet_events::{DeadLetter, Delivery, Error, InFlight, QueueInfo, Redrive};
use tokio_postgres::Row;

use super::rows;
use crate::error::failed;
use crate::store::Inner;
use crate::wire::{At, Id};

impl Inner {
    pub(super) async fn peek(&self, queue: &str, limit: usize) -> Result<Vec<Delivery>, Error> {
        let (rows, name) = self.listed(queue, limit, &self.queues.sql.peek).await?;
        Ok(rows.iter().map(|row| rows::delivery(row, &name)).collect())
    }

    pub(super) async fn in_flight(&self, queue: &str, limit: usize) -> Result<Vec<InFlight>, Error> {
        let (rows, _) = self.listed(queue, limit, &self.queues.sql.in_flight).await?;
        let in_flight = |row: &Row| InFlight {
            id: row.get::<_, Id>(0).0,
            consumer: Arc::from(row.get::<_, &str>(1)),
            since: row.get::<_, At>(2).0,
            deadline: row.get::<_, At>(3).0,
            attempt: u32::try_from(row.get::<_, i16>(4)).unwrap_or(1),
        };
        Ok(rows.iter().map(in_flight).collect())
    }

    pub(super) async fn dead_letters(&self, queue: &str, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let (rows, _) = self.listed(queue, limit, &self.queues.sql.dead_letters).await?;
        Ok(rows.iter().map(rows::dead_letter).collect())
    }

    async fn listed(&self, queue: &str, limit: usize, sql: &str) -> Result<(Vec<Row>, Arc<str>), Error> {
        let db = self.queue_connection().await?;
        let Some(known) = self.find_queue(&db, queue).await? else { return Ok((Vec::new(), Arc::from(queue))) };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = db
            .query(sql, &[&known.id, &limit])
            .await
            .map_err(|error| failed(format!("queue {queue} could not be read"), error))?;
        Ok((rows, Arc::clone(&known.name)))
    }

    pub(super) async fn redrive(&self, queue: &str, which: &Redrive) -> Result<u64, Error> {
        let (key, ids) = match which {
            Redrive::All => (None, None),
            Redrive::Key(key) => (Some(&**key), None),
            Redrive::Ids(ids) => (None, Some(ids.iter().map(|id| Id(*id)).collect::<Vec<_>>())),
        };
        let db = self.queue_connection().await?;
        let Some(known) = self.find_queue(&db, queue).await? else { return Ok(0) };
        let row = db
            .query_one(&self.queues.sql.redrive, &[&known.id, &key, &ids])
            .await
            .map_err(|error| failed(format!("the dead letters of queue {queue} could not be put back"), error))?;
        self.queues.signals.put(queue);
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    pub(super) async fn purge(&self, queue: &str, only_dead: bool) -> Result<u64, Error> {
        let db = self.queue_connection().await?;
        let Some(known) = self.find_queue(&db, queue).await? else { return Ok(0) };
        let row = db
            .query_one(&self.queues.sql.purge, &[&known.id, &only_dead])
            .await
            .map_err(|error| failed(format!("queue {queue} could not be purged"), error))?;
        self.queues.signals.put(queue);
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    pub(super) async fn queue_infos(&self, queue: Option<&str>) -> Result<Vec<QueueInfo>, Error> {
        let db = self.queue_connection().await?;
        let rows = db
            .query(&self.queues.sql.info, &[&queue])
            .await
            .map_err(|error| failed("the queues could not be looked at", error))?;
        let count = |row: &Row, column: usize| row.get::<_, i64>(column).unsigned_abs();
        let info = |row: &Row| QueueInfo {
            queue: Arc::from(row.get::<_, &str>(0)),
            ready: count(row, 1),
            delayed: count(row, 2),
            in_flight: count(row, 3),
            dead: count(row, 4),
            oldest: row.get::<_, Option<At>>(5).map(|at| at.0),
            redelivered: count(row, 6),
        };
        Ok(rows.iter().map(info).collect())
    }
}
