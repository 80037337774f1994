//! Reading the log.

use std::collections::VecDeque;

use pgfleet_events::{Error, ErrorKind};
use pgfleet_postgres::pool::Pooled;

use super::leading::Leading;
use crate::carried::unreadable;
use crate::error::failed;
use crate::outbox::ledger::Cursor;
use crate::outbox::row::{Item, items};
use crate::outbox::settle::places;
use crate::outbox::sql::Sql;

/// How many batches' places of a long window are read at once.
///
/// Finding the order of a window means sorting all that is left of it; so it is done for many batches, of which two numbers
/// each are kept.
const STRETCH: i64 = 50;

/// What was read of the open window and is not carried yet.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where its messages lie, in order.
    places: VecDeque<(i64, i64)>,
    /// Whether the window goes on behind them.
    more: bool,
    /// The first of them, if they were read already; otherwise empty.
    pub(super) read: Vec<Item>,
}

impl Ahead {
    /// Notes that the first ones were carried.
    pub(super) fn took(&mut self, count: usize) {
        self.places.drain(..count.min(self.places.len()));
    }

    /// Returns where the ones after the first `count` lie, up to a batch.
    pub(super) fn following(&self, count: usize, batch: usize) -> Vec<(i64, i64)> {
        self.places.iter().skip(count).take(batch.max(1)).copied().collect()
    }
}

/// Reads messages of the log by their places.
pub(super) async fn bodies(db: &Pooled, sql: &Sql, places_of: Vec<(i64, i64)>) -> Result<Vec<Item>, Error> {
    if places_of.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = places_of.len();
    let (xids, seqs) = places(places_of.into_iter());
    let rows = db.query(&sql.bodies, &[&xids, &seqs]).await.map_err(|error| failed("cannot read the outbox", error))?;
    let found = items(&rows)?;
    if found.len() != wanted {
        return Err(Error::new(ErrorKind::Failed, "messages of the outbox are gone that were not carried"));
    }
    Ok(found)
}

impl Leading<'_> {
    /// Reads the next messages of the log, and how far the log was carried once they are; none when there are none.
    pub(super) async fn read_new(&mut self, db: &Pooled) -> Result<Option<(Vec<Item>, Cursor)>, Error> {
        let batch = self.relay.options.batch.max(1);
        match self.cursor.hi.clone() {
            Some(hi) => self.read_window(db, hi, batch).await.map(Some),
            None => self.look(db, batch).await,
        }
    }

    /// Reads on in the open window.
    async fn read_window(&mut self, db: &Pooled, hi: String, batch: usize) -> Result<(Vec<Item>, Cursor), Error> {
        let sql = &self.relay.outbox.0.sql;
        if self.ahead.places.is_empty() {
            let stretch = i64::try_from(batch).unwrap_or(i64::MAX).saturating_mul(STRETCH);
            let values: &[&(dyn pgfleet_postgres::ToSql + Sync)] = &[&self.cursor.lo, &hi, &self.cursor.pos, &stretch];
            let rows = db.query(&sql.order, values).await;
            let rows = rows.map_err(|error| failed("cannot read the order of the outbox", error))?;
            let place = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
            self.ahead.places = rows.iter().map(place).collect::<Result<_, _>>().map_err(unreadable)?;
            self.ahead.more = rows.len() as u64 >= stretch.unsigned_abs();
            self.ahead.read.clear();
        }
        let mut found = std::mem::take(&mut self.ahead.read);
        if found.is_empty() {
            found = bodies(db, sql, self.ahead.following(0, batch)).await?;
        }
        let mut next = self.cursor.clone();
        if let Some(last) = found.last() {
            next.pos = last.place.1;
        }
        // A stretch that is not full, or is empty, ends the window.
        if found.len() == self.ahead.places.len() && !self.ahead.more {
            (next.lo, next.hi, next.pos) = (hi, None, 0);
        }
        Ok((found, next))
    }

    /// Looks for what has become visible, and opens a window when it is more than a batch.
    async fn look(&mut self, db: &Pooled, batch: usize) -> Result<Option<(Vec<Item>, Cursor)>, Error> {
        let limit = i64::try_from(batch).unwrap_or(i64::MAX).saturating_add(1);
        let rows = db.query(&self.relay.outbox.0.sql.look, &[&self.cursor.lo, &limit]).await;
        let rows = rows.map_err(|error| failed("cannot read the outbox", error))?;
        let Some(first) = rows.first() else { return Ok(None) };
        // The snapshot of this very statement: what it shows is what is visible in it.
        let hi: String = first.try_get(0).map_err(unreadable)?;
        let mut found = items(&rows)?;
        if found.is_empty() {
            // Nothing to write down: all that is visible now was carried, whoever looks from where.
            self.cursor.lo = hi;
            return Ok(None);
        }
        let mut next = self.cursor.clone();
        if found.len() > batch {
            found.truncate(batch);
            next.pos = found.last().map_or(0, |item| item.place.1);
            next.hi = Some(hi);
        } else {
            next.lo = hi;
        }
        Ok(Some((found, next)))
    }
}
