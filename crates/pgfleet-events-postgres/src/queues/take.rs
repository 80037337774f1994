//! Handing messages out.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{Delivery, Error};

use super::rows;
use crate::error::failed;
use crate::store::Inner;

/// How often lanes that others are at are tried before the caller hears that there is nothing.
const TRIES: usize = 8;

impl Inner {
    pub(super) async fn dequeue(
        self: &Arc<Self>,
        queue: &str,
        consumer: &str,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>, Error> {
        self.start_queue_worker();
        if max == 0 {
            return Ok(Vec::new());
        }
        let heard = self.queues.signals.heard(queue);
        let taken = self.take_together(queue, consumer, max, visibility).await?;
        if !taken.is_empty() {
            return Ok(taken);
        }
        // Something may have become due that nobody has looked after yet.
        if self.sweep_if_due().await? {
            let taken = self.take_together(queue, consumer, max, visibility).await?;
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
        self.queues.signals.quiet(queue, heard);
        Ok(taken)
    }

    /// Takes messages, with a claim for so many each.
    pub(super) async fn take(
        &self,
        queue: &str,
        consumer: &str,
        max: usize,
        each: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>, Error> {
        let db = self.queue_connection().await?;
        let Some(known) = self.find_queue(&db, queue).await? else { return Ok(Vec::new()) };
        let most = i32::try_from(max).unwrap_or(i32::MAX).min(10_000);
        let each = i32::try_from(each).unwrap_or(i32::MAX);
        let micros = i64::try_from(visibility.as_micros()).unwrap_or(i64::MAX / 4);
        for attempt in 0..TRIES {
            let rows = db
                .query(&self.queues.sql.take, &[&known.id, &consumer, &most, &each, &micros, &(attempt > 0)])
                .await
                .map_err(|error| failed(format!("nothing could be taken from queue {queue}"), error))?;
            let mut taken: Vec<Delivery> = Vec::new();
            for row in &rows {
                rows::deliveries(row, &known.name, &mut taken);
            }
            if !taken.is_empty() || rows.is_empty() {
                return Ok(taken);
            }
        }
        Ok(Vec::new())
    }
}
