//! Reading: one stream by its versions, all streams by ticks.

use std::sync::Arc;

use pgfleet_events::{Direction, Error, Event, Filter, Moment, Page, Position};
use pgfleet_postgres::pool::Pooled;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::rows::{self, Stored, place};
use super::select::Conditions;
use super::tick::Tick;
use crate::error::failed;
use crate::store::Inner;
use crate::wire::At;

/// The most events of a tick. Reading does not depend on it; it bounds how long making one takes.
pub(super) const TICK_EVENTS: i64 = 100_000;

/// The most ticks that are fetched at once.
const TICKS: i64 = 1_000;

/// How many events one statement looks at, at most, where a filter leaves most of them out.
const WIDEST: usize = 100_000;

/// How many events one call looks at before it answers with what it has.
const LONGEST: usize = 1_000_000;

impl Inner {
    /// Reads one stream.
    pub(super) async fn read_stream(
        &self,
        stream: &str,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Event>, Error> {
        let sql = match direction {
            Direction::Forward => &self.streams.sql.read_forward,
            Direction::Backward => &self.streams.sql.read_backward,
        };
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let db = self.connection().await?;
        let rows = db
            .query(sql, &[&stream, &from, &limit])
            .await
            .map_err(|error| failed(format!("stream {stream} could not be read"), error))?;
        let mut events: Vec<Event> = Vec::with_capacity(rows.len());
        for row in &rows {
            let stored = Stored::of(row, events.last());
            events.push(match row.get::<_, Option<i64>>(rows::COUNT) {
                Some(tick) => stored.placed(tick),
                None => stored.event,
            });
        }
        Ok(events)
    }

    /// Reads all streams.
    pub(super) async fn read_ticks(&self, after: Position, limit: usize, filter: &Filter) -> Result<Page, Error> {
        let limit = limit.max(1);
        let mut page = Page { events: Vec::new(), next: after, at_end: false };
        let (mut width, mut looked) = (limit, 0);
        let db = self.connection().await?;
        while page.events.len() < limit && looked < LONGEST {
            let (ticks, first) = match self.ticks_behind(&db, page.next, page.events.is_empty()).await? {
                Behind::Ticks(ticks, first) => (ticks, first),
                Behind::Unknown => break,
                Behind::Nothing => {
                    page.at_end = true;
                    break;
                }
            };
            let ticks = &ticks[first..];
            let wanted = limit - page.events.len();
            let together = together(ticks, page.next, if filter.is_all() { wanted } else { width.max(wanted) });
            let window = Window { after: page.next, ticks: &ticks[..together.max(1)], filter, limit: wanted };
            looked += window.events();
            if together == 0 {
                self.read_one(&db, &window, &mut page).await?;
            } else {
                self.read_whole(&db, &window, &mut page).await?;
            }
            width = (width * 4).min(WIDEST.max(limit));
        }
        Ok(page)
    }

    /// Finds the ticks in which there is something behind a position, as far as they are known without asking, and asks
    /// then; makes one where there is none, if `make`.
    async fn ticks_behind(&self, db: &Pooled, after: Position, make: bool) -> Result<Behind, Error> {
        let tick = i64::try_from(after.tick).unwrap_or(i64::MAX);
        let seq = i64::try_from(after.seq).unwrap_or(i64::MAX);
        let runs = &self.streams.runs;
        let (run, index) = if let Some(known) = runs.from(tick) {
            known
        } else {
            let rows = db
                .query(&self.streams.sql.ticks_from, &[&tick, &TICKS])
                .await
                .map_err(|error| failed("ticks could not be read", error))?;
            let run: Arc<[Arc<Tick>]> = Tick::all(&rows).into();
            if !run.is_empty() {
                runs.keep(Arc::clone(&run));
            }
            // A row may begin before it.
            let index = run.partition_point(|known| known.number < tick);
            (run, index)
        };
        // The first may be read to its end.
        let done = run.get(index).is_some_and(|first| first.number == tick && seq >= first.top());
        let index = index + usize::from(done);
        if index < run.len() {
            return Ok(Behind::Ticks(run, index));
        }
        if !make {
            return Ok(Behind::Unknown);
        }
        let rows = db
            .query(&self.streams.sql.next_ticks, &[&tick, &TICK_EVENTS, &TICKS])
            .await
            .map_err(|error| failed("no tick could be made", error))?;
        if rows.is_empty() {
            return Ok(Behind::Nothing);
        }
        let mut found = Tick::all(&rows);
        // With the one before, so that who is behind that finds it here, too. A row that begins before it has it.
        if let (Some(last), Some(first)) = (run.last(), found.first())
            && last.number == tick
            && first.number > tick
        {
            found.insert(0, Arc::clone(last));
        }
        let index = found.partition_point(|known| known.number <= tick);
        let run: Arc<[Arc<Tick>]> = found.into();
        runs.keep(Arc::clone(&run));
        Ok(Behind::Ticks(run, index))
    }

    /// Reads of one tick, in pages.
    async fn read_one(&self, db: &Pooled, window: &Window<'_>, page: &mut Page) -> Result<(), Error> {
        let tick = &window.ticks[0];
        let done = window.done();
        let late: Vec<i64> = tick.late.iter().copied().filter(|seq| *seq > done).collect();
        let looked = &late[..late.len().min(window.limit)];
        let mut found = self.late(db, looked, window.filter).await?;
        found.sort_unstable_by_key(|stored| stored.seq);
        let is_cut = late.len() >= window.limit;
        let mut last = looked.last().copied().unwrap_or(done);
        let limit = window.limit - found.len();
        page.events.extend(found.into_iter().map(|stored| stored.placed(tick.number)));
        if !is_cut {
            let from = tick.from_seq.max(done);
            let rows = self.main(db, tick, tick, from, i64::try_from(limit).unwrap_or(i64::MAX), window.filter).await?;
            page.events.reserve(rows.len());
            for row in &rows {
                // Decoded where they stay: most of what is read is read here.
                let stored = Stored::of(row, page.events.last());
                last = stored.seq;
                page.events.push(stored.placed(tick.number));
            }
            if rows.len() < limit {
                last = tick.top();
            }
        }
        page.next = place(tick.number, last);
        Ok(())
    }

    /// Reads ticks whole, all in one statement.
    async fn read_whole(&self, db: &Pooled, window: &Window<'_>, page: &mut Page) -> Result<(), Error> {
        let [first, ..] = window.ticks else { return Ok(()) };
        let last = window.ticks.last().unwrap_or(first);
        let done = window.done();
        // What is late in a later tick, and above what had been seen before the first, is in the main part.
        let late = window.ticks.iter().flat_map(|tick| tick.late.iter().copied());
        let late: Vec<i64> = late.filter(|seq| *seq <= first.lo_seq).collect();
        let mut found = self.late(db, &late, window.filter).await?;
        found.extend(stored(&self.main(db, first, last, first.from_seq, i64::MAX, window.filter).await?));
        let mut placed: Vec<(i64, Stored)> = found
            .into_iter()
            .filter_map(|stored| {
                let index = window.ticks.partition_point(|tick| !tick.holds(stored.xid, stored.seq));
                window.ticks.get(index).map(|tick| (tick.number, stored))
            })
            .filter(|(tick, stored)| *tick > first.number || stored.seq > done)
            .collect();
        placed.sort_unstable_by_key(|(tick, stored)| (*tick, stored.seq));
        page.next = place(last.number, last.top());
        if placed.len() > window.limit {
            placed.truncate(window.limit);
            if let Some((tick, stored)) = placed.last() {
                page.next = place(*tick, stored.seq);
            }
        }
        page.events.extend(placed.into_iter().map(|(tick, stored)| stored.placed(tick)));
        Ok(())
    }

    /// The events above what had been seen before the first tick, in order of their seqs.
    async fn main(
        &self,
        db: &Pooled,
        first: &Tick,
        last: &Tick,
        from: i64,
        limit: i64,
        filter: &Filter,
    ) -> Result<Vec<Row>, Error> {
        let top = last.top();
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&from, &top, &*last.hi, &first.lo_seq, &*first.lo, &limit];
        let conditions = Conditions::of(filter, values.len() + 1);
        values.extend(conditions.values());
        let sql = &self.streams.sql;
        let with;
        let text = if conditions.sql.is_empty() {
            &sql.main
        } else {
            with = sql.main.replace(CONDITIONS, &conditions.sql);
            &with
        };
        db.query(text, &values).await.map_err(|error| failed("events could not be read", error))
    }

    async fn late(&self, db: &Pooled, seqs: &[i64], filter: &Filter) -> Result<Vec<Stored>, Error> {
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&seqs];
        let conditions = Conditions::of(filter, values.len() + 1);
        values.extend(conditions.values());
        let text = self.streams.sql.late.replace(CONDITIONS, &conditions.sql);
        let rows = db.query(&text, &values).await.map_err(|error| failed("events could not be read", error))?;
        Ok(stored(&rows))
    }

    /// Makes ticks until there is nothing left, and returns a position behind all of it.
    pub(super) async fn read_head(&self) -> Result<Position, Error> {
        let db = self.connection().await?;
        loop {
            let rows = db
                .query(&self.streams.sql.make_tick, &[&TICK_EVENTS])
                .await
                .map_err(|error| failed("no tick could be made", error))?;
            if rows.is_empty() {
                break;
            }
        }
        let rows = db
            .query(&self.streams.sql.last_tick, &[])
            .await
            .map_err(|error| failed("the last tick could not be read", error))?;
        Ok(Tick::all(&rows).last().map_or(Position::START, |tick| place(tick.number, tick.top())))
    }

    /// Finds the position right before the first event of a time or later.
    pub(super) async fn read_position_at(&self, time: Moment) -> Result<Position, Error> {
        let head = self.read_head().await?;
        let filter = Filter { since: Some(time), ..Filter::default() };
        // What a tick holds is older than the tick.
        let tick: Option<i64> = {
            let db = self.connection().await?;
            db.query_one(&self.streams.sql.tick_at, &[&At(time)])
                .await
                .map_err(|error| failed("ticks could not be read", error))?
                .get(0)
        };
        let Some(tick) = tick else { return Ok(head) };
        let mut after = Position::new(tick.unsigned_abs(), 0);
        loop {
            let page = self.read_ticks(after, 1, &filter).await?;
            if let Some(position) = page.events.first().and_then(|event| event.position) {
                return Ok(Position::new(position.tick, position.seq - 1));
            }
            if page.at_end {
                return Ok(page.next);
            }
            after = page.next;
        }
    }
}

/// Where the conditions of a filter go.
pub(super) const CONDITIONS: &str = "/*and*/";

/// What is behind a position.
enum Behind {
    /// These ticks, from this one on.
    Ticks(Arc<[Arc<Tick>]>, usize),
    /// Nothing that is known; nobody asked.
    Unknown,
    Nothing,
}

/// What is read by one statement.
struct Window<'a> {
    after: Position,
    ticks: &'a [Arc<Tick>],
    filter: &'a Filter,
    limit: usize,
}

impl Window<'_> {
    /// The seq up to which the first tick is done.
    fn done(&self) -> i64 {
        let is_begun = self.ticks[0].number.unsigned_abs() == self.after.tick;
        if is_begun { i64::try_from(self.after.seq).unwrap_or(i64::MAX) } else { 0 }
    }

    fn events(&self) -> usize {
        self.ticks.iter().map(|tick| usize::try_from(tick.events).unwrap_or(0)).sum()
    }
}

/// How many ticks can be read together without having more than so many events; 0 when the first one must be read by
/// itself, in pages.
fn together(ticks: &[Arc<Tick>], after: Position, most: usize) -> usize {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let (mut count, mut events) = (0, 0_i64);
    for tick in ticks {
        // A tick that shares its window with the next one, or whose late events are not listed, is read by itself.
        let is_plain = !tick.is_cut() && tick.from_seq >= tick.lo_seq && tick.epoch == ticks[0].epoch;
        events = events.saturating_add(tick.events);
        if !is_plain || events > most {
            break;
        }
        count += 1;
    }
    let is_begun = ticks[0].number.unsigned_abs() == after.tick;
    if is_begun && count == 1 { 0 } else { count }
}

fn stored(rows: &[Row]) -> Vec<Stored> {
    let mut stored: Vec<Stored> = Vec::with_capacity(rows.len());
    for row in rows {
        let next = Stored::of(row, stored.last().map(|last| &last.event));
        stored.push(next);
    }
    stored
}
