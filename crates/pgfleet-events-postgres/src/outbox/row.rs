//! A message as the relay reads it.

use pgfleet_events::{Error, Message};
use tokio_postgres::Row;

use crate::carried::{READ, lane, message, unreadable};

/// A message, where it lies, and whether its time has come or has passed.
#[derive(Debug)]
pub(super) struct Item {
    /// In the log (xid, seq); among the delayed (due, ord); of a lane (0, ord).
    pub(super) place: (i64, i64),
    pub(super) lane: String,
    pub(super) message: Message,
    pub(super) ready: bool,
    pub(super) expired: bool,
}

/// Reads rows; the first column is the snapshot, the same in each, and a row without a place stands for none.
pub(super) fn items(rows: &[Row]) -> Result<Vec<Item>, Error> {
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let second: Option<i64> = row.try_get(2).map_err(unreadable)?;
        let Some(second) = second else { continue };
        let first: Option<i64> = row.try_get(1).map_err(unreadable)?;
        let message = message(row, 3)?;
        items.push(Item {
            place: (first.unwrap_or(0), second),
            lane: lane(&message),
            message,
            ready: row.try_get(3 + READ).map_err(unreadable)?,
            expired: row.try_get(4 + READ).map_err(unreadable)?,
        });
    }
    Ok(items)
}
