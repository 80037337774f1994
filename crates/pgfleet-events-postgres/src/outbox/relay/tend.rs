//! Keeping the tables small, and reading on after a restore.

use std::time::Duration;

use pgfleet_events::Error;
use pgfleet_postgres::pool::{Pooled, TransactionOptions};
use tokio::time::Instant;

use super::leading::Leading;
use crate::carried::unreadable;
use crate::error::failed;
use crate::outbox::ledger::Cursor;
use crate::outbox::stats::add;

/// How often the log's size is asked while messages are carried.
const SIZED: Duration = Duration::from_secs(1);

/// How often messages that had waited are removed.
const FORGET: Duration = Duration::from_mins(1);

/// What was tended when.
pub(super) struct Tended {
    /// Which half of the cursor's table was emptied last.
    half: i64,
    /// When the size of the log was looked at, and how much had been carried.
    sized: Instant,
    carried: i64,
    rotated: Instant,
    /// Up to where messages that had waited were removed, and when.
    forgot: Instant,
    due: (i64, i64),
}

impl Tended {
    pub(super) fn new(cursor: &Cursor) -> Self {
        let now = Instant::now();
        Self { half: -1, sized: now, carried: cursor.sent, rotated: now, forgot: now, due: (0, 0) }
    }
}

impl Leading<'_> {
    /// Removes what is not needed any more; nothing while nothing happens.
    pub(super) async fn tend(&mut self, db: &Pooled) -> Result<(), Error> {
        let (sql, options) = (&self.relay.outbox.0.sql, &self.relay.options);
        let doing = |error| failed("cannot tend the outbox", error);
        if self.cursor.may_forget() && self.tended.half != self.cursor.half() {
            let row = db.query_one(&sql.forget_cursor, &[]).await.map_err(doing)?;
            // Not emptied where somebody reads it; tried again in the next half. What stays is old and does no harm.
            let _emptied: bool = row.try_get(0).map_err(unreadable)?;
            self.tended.half = self.cursor.half();
        }
        let (due, now) = ((self.cursor.due, self.cursor.due_ord), Instant::now());
        if due > self.tended.due && now - self.tended.forgot >= FORGET {
            let from = self.tended.due;
            // Readers begin at the cursor, so nobody walks over what is dead here and still kept for somebody's sake.
            let values: &[&(dyn pgfleet_postgres::ToSql + Sync)] = &[&from.0, &from.1, &due.0, &due.1];
            db.execute(&sql.forget_delayed, values).await.map_err(doing)?;
            (self.tended.due, self.tended.forgot) = (due, now);
        }
        if self.cursor.hi.is_some() || self.cursor.sent == self.tended.carried || now - self.tended.sized < SIZED {
            return Ok(());
        }
        (self.tended.sized, self.tended.carried) = (now, self.cursor.sent);
        let row = db.query_one(&sql.slot_size, &[]).await.map_err(doing)?;
        let size: i64 = row.try_get(0).map_err(unreadable)?;
        let late = size > 0 && now - self.tended.rotated >= options.rotate_after;
        if late || u64::try_from(size).unwrap_or(0) >= options.rotate_at {
            // The function goes by the stored cursor.
            self.renew(db).await?;
            let row = db.query_one(&self.relay.outbox.0.sql.rotate, &[]).await.map_err(doing)?;
            if row.try_get(0).map_err(unreadable)? {
                self.tended.rotated = now;
                add(&self.relay.counters.rotations, 1);
            }
        }
        Ok(())
    }

    /// After a restore into another cluster, where the numbers of transactions mean something else: what was not carried is
    /// put aside, to be carried from there, and the log is read from now on.
    ///
    /// Which rows those are is told by the old numbers among themselves, and by `seq`: the sequence was restored to a value
    /// that all rows of the dump lie below, so what was written since lies above all that was ever carried.
    pub(super) async fn seal(&mut self, db: &Pooled) -> Result<(), Error> {
        let system = pgfleet_postgres::identity::system_identifier(db.connection()).await;
        let system = system.map_err(|error| failed("cannot ask which cluster this is", error))?;
        if self.cursor.system == system {
            return Ok(());
        }
        let fresh = self.cursor.system.is_empty();
        let mut next = Cursor { system, ..self.cursor.clone() };
        if fresh {
            return self.store(db, next, self.relay.options.lease).await;
        }
        let sql = &self.relay.outbox.0.sql;
        let doing = |error| failed("cannot read the outbox on after a restore", error);
        let began = Instant::now();
        let tx = self.connection().await?.begin(TransactionOptions::default()).await.map_err(doing)?;
        // Nobody is writing from here on, so no row can be missed between the look and the new snapshot.
        tx.batch(&sql.seal_lock).await.map_err(doing)?;
        let row = tx.query_one("SELECT pg_current_snapshot()::text", &[]).await.map_err(doing)?;
        let now: String = row.try_get(0).map_err(unreadable)?;
        let values: &[&(dyn pgfleet_postgres::ToSql + Sync)] =
            &[&self.cursor.lo, &self.cursor.hi, &self.cursor.pos, &self.cursor.top];
        tx.execute(&sql.seal_park, values).await.map_err(doing)?;
        tx.batch(&sql.seal_empty).await.map_err(doing)?;
        (next.lo, next.hi, next.pos) = (now, None, 0);
        self.cursor.step(&tx, sql, &mut next, self.relay.options.lease).await?;
        tx.commit().await.map_err(doing)?;
        (self.cursor, self.stored) = (next, began);
        tracing::warn!(target: "pgfleet::outbox", "the database is in another cluster; its outbox is read on from here");
        Ok(())
    }
}
