//! How far the relay is, and who it is.

use std::time::Duration;

use pgfleet_events::Error;
use pgfleet_postgres::pool::Pooled;
use tokio_postgres::Row;

use super::sql::Sql;
use crate::carried::unreadable;
use crate::error::failed;

/// How many rows of the cursor go into one half before the other one is used.
const HALF: i64 = 10_000;

/// A row of `outbox_cursor`; the migration says what its columns mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) n: i64,
    pub(super) epoch: i64,
    pub(super) holder: String,
    pub(super) system: String,
    pub(super) lo: String,
    pub(super) hi: Option<String>,
    pub(super) pos: i64,
    pub(super) top: i64,
    pub(super) due: i64,
    pub(super) due_ord: i64,
    pub(super) sent: i64,
}

/// The newest row, and how long its holder still counts.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) cursor: Cursor,
    pub(super) free: bool,
    pub(super) remaining: Duration,
}

impl Cursor {
    pub(super) async fn newest(db: &Pooled, sql: &Sql) -> Result<Newest, Error> {
        let row = db.query_one(&sql.newest, &[]).await;
        let row = row.map_err(|error| failed("cannot read how far the outbox is", error))?;
        Self::read(&row).map_err(unreadable)
    }

    fn read(row: &Row) -> Result<Newest, tokio_postgres::Error> {
        let remaining: i64 = row.try_get(4)?;
        Ok(Newest {
            free: row.try_get(3)?,
            remaining: Duration::from_micros(u64::try_from(remaining).unwrap_or(0)),
            cursor: Self {
                n: row.try_get(0)?,
                epoch: row.try_get(1)?,
                holder: row.try_get(2)?,
                system: row.try_get(5)?,
                lo: row.try_get(6)?,
                hi: row.try_get(7)?,
                pos: row.try_get(8)?,
                top: row.try_get(9)?,
                due: row.try_get(10)?,
                due_ord: row.try_get(11)?,
                sent: row.try_get(12)?,
            },
        })
    }

    /// Adds `next` behind this row, if this one is still there and the newest; `next` has its number then.
    ///
    /// The check that this row exists is for what a crash of the server forgot: commits of the relay need not be on disk, and
    /// a step that stands on one that was lost would leave out what was lost with it.
    ///
    /// # Errors
    ///
    /// [`Fenced`](pgfleet_events::ErrorKind::Fenced) when somebody else was there first.
    pub(super) async fn step(&self, db: &Pooled, sql: &Sql, next: &mut Self, ttl: Duration) -> Result<(), Error> {
        let child = usize::from((self.n + 1) / HALF % 2 == 1);
        let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        let values: &[&(dyn pgfleet_postgres::ToSql + Sync)] = &[
            &self.n,
            &self.holder,
            &next.epoch,
            &next.holder,
            &ttl,
            &next.system,
            &next.lo,
            &next.hi,
            &next.pos,
            &next.top,
            &next.due,
            &next.due_ord,
            &next.sent,
        ];
        match db.execute(&sql.step[child], values).await {
            Ok(1) => {
                next.n = self.n + 1;
                Ok(())
            }
            Ok(_) => Err(Error::fenced("the outbox")),
            Err(error) if error.sql_state() == Some("23505") => Err(Error::fenced("the outbox").because(error)),
            Err(error) => Err(failed("cannot store how far the outbox is", error)),
        }
    }

    /// Whether the half that is not written to should be emptied around here.
    pub(super) fn may_forget(&self) -> bool {
        self.n % HALF >= HALF / 2
    }

    /// Which half this row is in, counted from the first.
    pub(super) fn half(&self) -> i64 {
        self.n / HALF
    }
}
