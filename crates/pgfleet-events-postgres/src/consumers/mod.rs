//! Groups of consumers in tables: leases, and how far each part was read.

mod sql;

use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{Answer, ConsumerStore, Error, ErrorKind, Filter, GroupOffset, Lease, Position, StreamStore as _};
use pgfleet_postgres::pool::Pooled;

pub(crate) use self::sql::Sql;
use crate::error::failed;
use crate::store::Store;
use crate::wire::At;

/// The most parts of a group.
const PARTS: u32 = 10_000;

fn numbers(position: Position) -> (i64, i64) {
    (i64::try_from(position.tick).unwrap_or(i64::MAX), i64::try_from(position.seq).unwrap_or(i64::MAX))
}

fn position(tick: i64, seq: i64) -> Position {
    Position::new(tick.unsigned_abs(), seq.unsigned_abs())
}

fn part_of(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Store {
    /// Stores how far a part was handled, within somebody's transaction: with what its events have led to, or not at all.
    ///
    /// # Errors
    ///
    /// As [`ConsumerStore::commit`]; the transaction must not be committed then.
    pub async fn commit_in(&self, transaction: &Pooled, lease: &Lease, position: Position) -> Result<(), Error> {
        let (tick, seq) = numbers(position);
        let epoch = i64::try_from(lease.epoch).unwrap_or(i64::MAX);
        let stored = transaction
            .execute(
                &self.0.consumers.commit,
                &[&&*lease.group, &part_of(lease.part), &epoch, &tick, &seq, &&*lease.member],
            )
            .await
            .map_err(|error| failed(format!("the offset of group {} could not be stored", lease.group), error))?;
        if stored == 1 {
            return Ok(());
        }
        Err(Error::fenced(format!("part {} of group {}", lease.part, lease.group))
            .with_hint("somebody else reads it by now: take leases again"))
    }
}

impl ConsumerStore for Store {
    fn lease<'a>(
        &'a self,
        group: &'a str,
        member: &'a str,
        parts: u32,
        start: Position,
        time: Duration,
    ) -> Answer<'a, Vec<Lease>> {
        Box::pin(async move {
            for (what, name) in [("group", group), ("member", member)] {
                if name.is_empty() || name.len() > 1_000 || name.contains('\0') {
                    return Err(Error::invalid(format!("a {what}'s name has 1 to 1000 bytes, none of them zero")));
                }
            }
            if parts == 0 || parts > PARTS {
                return Err(Error::invalid(format!("a group has 1 to {PARTS} parts")));
            }
            let (tick, seq) = numbers(start);
            let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
            let db = self.0.connection().await?;
            let rows = db
                .query(&self.0.consumers.lease, &[&group, &member, &part_of(parts), &tick, &seq, &micros])
                .await
                .map_err(|error| failed(format!("no leases of group {group} could be taken"), error))?;
            let mut leases = Vec::with_capacity(rows.len());
            for row in &rows {
                let (part, parts): (i32, i32) = (row.get(0), row.get(1));
                let Ok(part) = u32::try_from(part) else {
                    return Err(Error::invalid(format!("group {group} has {parts} parts"))
                        .with_hint("the number of parts is fixed when a group is first seen"));
                };
                leases.push(Lease {
                    group: Arc::from(group),
                    part,
                    parts: parts.unsigned_abs(),
                    member: Arc::from(member),
                    epoch: row.get::<_, i64>(2).unsigned_abs(),
                    position: position(row.get(3), row.get(4)),
                    until: row.get::<_, At>(5).0,
                });
            }
            Ok(leases)
        })
    }

    fn commit<'a>(&'a self, lease: &'a Lease, position: Position) -> Answer<'a, ()> {
        Box::pin(async move { self.commit_in(&self.0.connection().await?, lease, position).await })
    }

    fn leave<'a>(&'a self, group: &'a str, member: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let db = self.0.connection().await?;
            db.execute(&self.0.consumers.leave, &[&group, &member])
                .await
                .map_err(|error| failed(format!("the leases of group {group} could not be given up"), error))?;
            Ok(())
        })
    }

    fn offsets<'a>(&'a self, group: Option<&'a str>) -> Answer<'a, Vec<GroupOffset>> {
        Box::pin(async move {
            // What is committed counts, also where no reader has come yet.
            self.head().await?;
            let rows = {
                let db = self.0.connection().await?;
                db.query(&self.0.consumers.offsets, &[&group])
                    .await
                    .map_err(|error| failed("offsets could not be read", error))?
            };
            let mut offsets = Vec::with_capacity(rows.len());
            for row in &rows {
                let position = position(row.get(5), row.get(6));
                let lag = row.get::<_, i64>(8).max(0).unsigned_abs();
                let mut oldest = None;
                let mut after = position;
                while lag > 0 && oldest.is_none() {
                    let page = self.read_all(after, 1, &Filter::default()).await?;
                    oldest = page.events.first().map(|event| event.at);
                    if page.at_end {
                        break;
                    }
                    after = page.next;
                }
                offsets.push(GroupOffset {
                    group: Arc::from(row.get::<_, &str>(0)),
                    part: row.get::<_, i32>(1).unsigned_abs(),
                    parts: row.get::<_, i32>(2).unsigned_abs(),
                    member: row.get::<_, Option<&str>>(3).map(Arc::from),
                    epoch: row.get::<_, i64>(4).unsigned_abs(),
                    position,
                    committed_at: row.get::<_, Option<At>>(7).map(|at| at.0),
                    lag: Some(lag),
                    oldest,
                });
            }
            Ok(offsets)
        })
    }

    fn reset<'a>(&'a self, group: &'a str, position: Position) -> Answer<'a, ()> {
        Box::pin(async move {
            let (tick, seq) = numbers(position);
            let db = self.0.connection().await?;
            let row = db
                .query_one(&self.0.consumers.reset, &[&group, &tick, &seq])
                .await
                .map_err(|error| failed(format!("group {group} could not be set"), error))?;
            if row.get(0) {
                return Ok(());
            }
            Err(Error::new(ErrorKind::NotFound, format!("there is no group {group}")))
        })
    }

    fn forget<'a>(&'a self, group: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let db = self.0.connection().await?;
            let row = db
                .query_one(&self.0.consumers.forget, &[&group])
                .await
                .map_err(|error| failed(format!("group {group} could not be forgotten"), error))?;
            Ok(row.get::<_, i64>(0) > 0)
        })
    }
}
