//! How an outbox is.

use std::time::Duration;

use pgfleet_events::{Error, Moment};
use pgfleet_postgres::pool::Pool;

use super::horizon::{Holder, horizon};
use super::publish::Outbox;
use crate::error::failed;

/// How an outbox is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxStatus {
    /// Messages that the relay has not come to yet.
    pub pending: u64,
    /// How long the oldest of them has been there.
    pub oldest: Option<Duration>,
    /// Messages that wait for their time.
    pub delayed: u64,
    /// Messages that were put aside, because theirs or an earlier one of their key failed.
    pub parked: u64,
    /// Keys that were put aside.
    pub parked_keys: u64,
    /// Messages that were given up.
    pub dead: u64,
    /// Messages that were carried, since the outbox was made.
    pub sent: u64,
    /// Whether a relay carries.
    pub carried: bool,
    /// How often one took over.
    pub epoch: u64,
    /// When the relay last wrote down how far it is.
    pub seen: Moment,
    /// The size of the log, in bytes.
    pub size: u64,
    /// What keeps old rows alive on the server.
    pub horizon: Vec<Holder>,
}

impl OutboxStatus {
    /// Returns whether there is something that a relay would carry, now or later.
    pub fn has_work(&self) -> bool {
        self.pending > 0 || self.delayed > 0 || self.parked > 0
    }
}

/// A key that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// The key; none for a message without one.
    pub key: Option<String>,
    /// How often its first message was tried.
    pub attempts: u64,
    /// When it is tried again; none when it waits for its dead letter to be retried or removed.
    pub next_try: Option<Moment>,
    /// Since when it is put aside.
    pub since: Moment,
    /// Why.
    pub last_error: String,
    /// How many messages wait.
    pub messages: u64,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadOutboxMessage {
    /// Its id.
    pub id: String,
    /// Where it was to go.
    pub topic: String,
    /// The name of its type.
    pub kind: String,
    /// Its key.
    pub key: Option<String>,
    /// How often it was tried.
    pub attempts: u64,
    /// Why it was given up.
    pub reason: String,
    /// When it was given up.
    pub dead_at: Moment,
    /// When it was published.
    pub created_at: Moment,
    /// What it says.
    pub data: String,
}

/// A column that is text and holds a number.
fn number(row: &tokio_postgres::Row, at: usize) -> i64 {
    row.get::<_, Option<&str>>(at).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn count(row: &tokio_postgres::Row, at: usize) -> u64 {
    u64::try_from(number(row, at)).unwrap_or(0)
}

impl Outbox {
    /// Returns how the outbox is.
    ///
    /// # Errors
    ///
    /// What the database fails with.
    pub async fn status(&self, pool: &Pool) -> Result<OutboxStatus, Error> {
        let doing = |error| failed("cannot look at the outbox", error);
        let db = pool.get().await.map_err(doing)?;
        let row = db.query_one(&self.0.sql.status, &[]).await.map_err(doing)?;
        let oldest = row.get::<_, Option<&str>>(1).and_then(|text| text.parse().ok()).map(Moment::from_micros);
        Ok(OutboxStatus {
            pending: count(&row, 0),
            oldest: oldest.map(|oldest| oldest.until(Moment::now())),
            delayed: count(&row, 2),
            parked: count(&row, 3),
            parked_keys: count(&row, 4),
            dead: count(&row, 5),
            sent: count(&row, 6),
            carried: row.get::<_, &str>(8) == "true" && !row.get::<_, &str>(7).is_empty(),
            epoch: count(&row, 9),
            seen: Moment::from_micros(number(&row, 10)),
            size: count(&row, 11),
            horizon: horizon(&db).await?,
        })
    }

    /// Lists keys that are put aside, the longest there first.
    ///
    /// # Errors
    ///
    /// What the database fails with.
    pub async fn parked_keys(&self, pool: &Pool, limit: u32) -> Result<Vec<ParkedKey>, Error> {
        let doing = |error| failed("cannot list what is put aside", error);
        let db = pool.get().await.map_err(doing)?;
        let rows = db.query(&self.0.sql.parked_keys, &[&i64::from(limit)]).await.map_err(doing)?;
        let key = |row: &tokio_postgres::Row| ParkedKey {
            key: row.get(0),
            attempts: count(row, 1),
            next_try: row.get::<_, Option<&str>>(2).and_then(|text| text.parse().ok()).map(Moment::from_micros),
            since: Moment::from_micros(number(row, 3)),
            last_error: row.get(4),
            messages: count(row, 5),
        };
        Ok(rows.iter().map(key).collect())
    }

    /// Lists messages that were given up, the oldest first.
    ///
    /// # Errors
    ///
    /// What the database fails with.
    pub async fn dead_letters(&self, pool: &Pool, limit: u32) -> Result<Vec<DeadOutboxMessage>, Error> {
        let doing = |error| failed("cannot list dead letters", error);
        let db = pool.get().await.map_err(doing)?;
        let rows = db.query(&self.0.sql.dead_letters, &[&i64::from(limit)]).await.map_err(doing)?;
        let dead = |row: &tokio_postgres::Row| DeadOutboxMessage {
            id: row.get(0),
            topic: row.get(1),
            kind: row.get(2),
            key: row.get(3),
            attempts: count(row, 4),
            reason: row.get(5),
            dead_at: Moment::from_micros(number(row, 6)),
            created_at: Moment::from_micros(number(row, 7)),
            data: row.get(8),
        };
        Ok(rows.iter().map(dead).collect())
    }
}
