//! How an inbox is.

use std::time::Duration;

use pgfleet_events::{Error, Moment};

use super::inbox::Inbox;
use crate::executor::{Cells, Executor, Value};

/// How a consumer's inbox in one database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxStatus {
    /// Messages that it remembers.
    pub remembered: u64,
    /// Messages that were put aside.
    pub parked: u64,
    /// Keys that were put aside.
    pub parked_keys: u64,
    /// Messages that were given up or refused.
    pub dead: u64,
    /// How long the longest key has been put aside.
    pub oldest: Option<Duration>,
}

/// A key that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedInboxKey {
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

fn text(row: &Cells, at: usize) -> Option<&str> {
    row.get(at).and_then(Option::as_deref)
}

fn count(row: &Cells, at: usize) -> u64 {
    text(row, at).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn moment(row: &Cells, at: usize) -> Option<Moment> {
    text(row, at).and_then(|text| text.parse().ok()).map(Moment::from_micros)
}

impl Inbox {
    /// Returns how the inbox is.
    ///
    /// # Errors
    ///
    /// What the database fails with.
    pub async fn status<E: Executor + ?Sized>(&self, db: &mut E) -> Result<InboxStatus, Error> {
        let rows = db.fetch(&self.0.sql.status, &[Value::Text(&self.0.consumer)]).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        Ok(InboxStatus {
            remembered: count(&row, 0),
            parked: count(&row, 1),
            parked_keys: count(&row, 2),
            dead: count(&row, 3),
            oldest: moment(&row, 4).map(|since| since.until(Moment::now())),
        })
    }

    /// Lists keys that are put aside, the longest there first.
    ///
    /// # Errors
    ///
    /// What the database fails with.
    pub async fn parked_keys<E: Executor + ?Sized>(
        &self,
        db: &mut E,
        limit: u32,
    ) -> Result<Vec<ParkedInboxKey>, Error> {
        let values = [Value::Text(&self.0.consumer), Value::Long(i64::from(limit))];
        let rows = db.fetch(&self.0.sql.parked_keys, &values).await?;
        let key = |row: &Cells| ParkedInboxKey {
            key: text(row, 0).map(str::to_owned),
            attempts: count(row, 1),
            next_try: moment(row, 2),
            since: moment(row, 3).unwrap_or_default(),
            last_error: text(row, 4).unwrap_or_default().to_owned(),
            messages: count(row, 5),
        };
        Ok(rows.iter().map(key).collect())
    }
}
