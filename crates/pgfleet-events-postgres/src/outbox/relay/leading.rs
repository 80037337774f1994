//! The relay while it is the one that carries.

use std::collections::HashSet;
use std::pin::Pin;
use std::time::Duration;

use pgfleet_events::{Error, ErrorKind, Message, Published};
use pgfleet_postgres::pool::{Pooled, TransactionOptions};
use pgfleet_postgres::retry;
use tokio::time::Instant;

use super::Inner;
use super::ahead::{Ahead, bodies};
use super::lanes::{LaneChange, OF_A_LANE};
use super::tend::Tended;
use crate::carried::unreadable;
use crate::error::failed;
use crate::outbox::ledger::Cursor;
use crate::outbox::row::{Item, items};
use crate::outbox::settle::{Origin, is_outage, judge, sort, write};
use crate::outbox::stats::add;

/// How many lanes are tried again at once.
const LANES: i64 = 100;

pub(super) struct Leading<'a> {
    pub(super) relay: &'a Inner,
    pub(super) cursor: Cursor,
    /// Lanes that are put aside. Only who carries changes them, so this is what the table has.
    lanes: HashSet<String>,
    /// When the cursor was stored.
    pub(super) stored: Instant,
    /// When something that was put aside is due; none when nothing is, or when it is not known.
    due: Option<Instant>,
    due_known: bool,
    /// What was read of the open window and is not carried yet.
    pub(super) ahead: Ahead,
    /// How often the broker was away, in a row.
    outages: u32,
    pub(super) tended: Tended,
}

impl<'a> Leading<'a> {
    pub(super) async fn new(relay: &'a Inner, db: &Pooled, cursor: Cursor) -> Result<Self, Error> {
        let tended = Tended::new(&cursor);
        let mut this = Self {
            relay,
            cursor,
            lanes: HashSet::new(),
            stored: Instant::now(),
            due: None,
            due_known: false,
            ahead: Ahead::default(),
            outages: 0,
            tended,
        };
        this.seal(db).await?;
        let rows = db.query(&relay.outbox.0.sql.lanes, &[]).await;
        let rows = rows.map_err(|error| failed("cannot read the keys that are put aside", error))?;
        this.lanes = rows.iter().map(|row| row.try_get(0).map_err(unreadable)).collect::<Result<_, _>>()?;
        Ok(this)
    }

    /// Carries until stopped.
    pub(super) async fn carry(
        &mut self,
        db: &Pooled,
        mut stop: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<(), Error> {
        loop {
            let worked = self.round(db).await;
            let pause = match worked {
                Ok(true) => {
                    self.outages = 0;
                    // Others of this thread, and the stop, have a turn.
                    tokio::select! {
                        biased;
                        () = &mut stop => return Ok(()),
                        () = tokio::task::yield_now() => continue,
                    }
                }
                Ok(false) => {
                    self.outages = 0;
                    None
                }
                Err(Failed::Away(error)) => {
                    self.outages += 1;
                    add(&self.relay.counters.outages, 1);
                    tracing::warn!(
                        target: "pgfleet::outbox",
                        transport = self.relay.transport.name(),
                        outages = self.outages,
                        error = error.as_deref(),
                        "the broker is away; trying again"
                    );
                    let (first, most) = self.relay.options.backoff;
                    Some(retry::backoff(self.outages, first, most))
                }
                Err(Failed::Here(error)) => return Err(error),
            };
            let woken = pause.is_none();
            let until = Instant::now() + pause.unwrap_or(self.relay.options.poll);
            let until = match self.due {
                Some(due) if woken => until.min(due),
                _ => until,
            };
            loop {
                let renew = self.renew_at();
                tokio::select! {
                    biased;
                    () = &mut stop => return Ok(()),
                    () = self.relay.outbox.0.woken.notified(), if woken => break,
                    () = tokio::time::sleep_until(until) => break,
                    () = tokio::time::sleep_until(renew) => self.renew(db).await?,
                }
            }
        }
    }

    /// Lets another relay go on at once.
    pub(super) async fn resign(&mut self, db: &Pooled) -> Result<(), Error> {
        let next = self.cursor.clone();
        self.store(db, next, Duration::ZERO).await
    }

    pub(super) async fn connection(&self) -> Result<Pooled, Error> {
        self.relay.pool.get().await.map_err(|error| failed("cannot connect to the outbox", error))
    }

    fn renew_at(&self) -> Instant {
        self.stored + self.relay.options.lease / 3
    }

    pub(super) async fn renew(&mut self, db: &Pooled) -> Result<(), Error> {
        let next = self.cursor.clone();
        self.store(db, next, self.relay.options.lease).await
    }

    pub(super) async fn store(&mut self, db: &Pooled, mut next: Cursor, ttl: Duration) -> Result<(), Error> {
        let began = Instant::now();
        self.cursor.step(db, &self.relay.outbox.0.sql, &mut next, ttl).await?;
        self.cursor = next;
        self.stored = began;
        Ok(())
    }

    /// Does what there is to do, once; returns whether there was anything.
    async fn round(&mut self, db: &Pooled) -> Result<bool, Failed> {
        self.tend(db).await?;
        if !self.due_known {
            self.look_when(db).await?;
        }
        let mut worked = false;
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due_known = false;
            worked |= self.try_lanes(db).await?;
            worked |= self.carry_delayed(db).await?;
        }
        worked |= self.carry_new(db).await?;
        if !worked && !self.due_known {
            self.look_when(db).await?;
        }
        Ok(worked)
    }

    /// Looks when something that was put aside is due.
    async fn look_when(&mut self, db: &Pooled) -> Result<(), Error> {
        let sql = &self.relay.outbox.0.sql.next_due;
        let row = db.query_one(sql, &[&self.cursor.due, &self.cursor.due_ord]).await;
        let row = row.map_err(|error| failed("cannot look when messages are due", error))?;
        let wait: Option<i64> = row.try_get(0).map_err(unreadable)?;
        self.due = wait.map(|wait| Instant::now() + Duration::from_micros(u64::try_from(wait).unwrap_or(0)));
        self.due_known = true;
        Ok(())
    }

    /// Carries the next messages of the log.
    async fn carry_new(&mut self, db: &Pooled) -> Result<bool, Failed> {
        let Some((found, mut next)) = self.read_new(db).await? else { return Ok(false) };
        next.top = found.iter().map(|item| item.place.1).fold(next.top, i64::max);
        self.publish(db, &found, Origin::Log, next).await?;
        self.ahead.took(found.len());
        if self.cursor.hi.is_none() {
            self.ahead = Ahead::default();
        }
        Ok(true)
    }

    /// Carries messages whose time has come.
    async fn carry_delayed(&mut self, db: &Pooled) -> Result<bool, Failed> {
        let batch = i64::try_from(self.relay.options.batch.max(1)).unwrap_or(i64::MAX);
        let values: &[&(dyn pgfleet_postgres::ToSql + Sync)] = &[&self.cursor.due, &self.cursor.due_ord, &batch];
        let rows = db.query(&self.relay.outbox.0.sql.due_delayed, values).await;
        let found = items(&rows.map_err(|error| failed("cannot read messages that waited", error))?)?;
        let Some(last) = found.last() else { return Ok(false) };
        let mut next = self.cursor.clone();
        (next.due, next.due_ord) = last.place;
        self.publish(db, &found, Origin::Delayed, next).await?;
        Ok(true)
    }

    /// Publishes a batch and writes down what became of it, with the cursor's next row.
    async fn publish(&mut self, db: &Pooled, found: &[Item], origin: Origin, mut next: Cursor) -> Result<(), Failed> {
        let (send, mut outcome) = sort(found, &self.lanes, origin);
        let messages: Vec<Message> = send.iter().map(|&at| found[at].message.clone()).collect();
        // While the broker confirms these, the next ones are read.
        let following = if origin == Origin::Log {
            self.ahead.following(found.len(), self.relay.options.batch)
        } else {
            Vec::new()
        };
        let read = bodies(db, &self.relay.outbox.0.sql, following);
        let (answers, read) = tokio::join!(self.send(db, &messages), read);
        let answers = answers?;
        judge(found, &send, answers, &self.relay.options, &mut outcome);
        next.sent += i64::try_from(outcome.sent).unwrap_or(0);
        // Renewed meanwhile, the number is another one.
        next.n = self.cursor.n;
        if outcome.is_plain() {
            self.store(db, next, self.relay.options.lease).await?;
        } else {
            let due = self.cursor.due;
            self.in_transaction(next, async |tx, sql| write(tx, sql, origin, &outcome, due).await).await?;
            self.lanes.extend(outcome.keys.iter().map(|key| key.lane.clone()));
            self.due_known = false;
            add(&self.relay.counters.parked, outcome.park.len());
            add(&self.relay.counters.dead, outcome.dead.len());
        }
        add(&self.relay.counters.sent, outcome.sent);
        if origin == Origin::Log {
            self.ahead.read = read?;
        }
        Ok(())
    }

    /// Stores the next row of the cursor and what belongs to it, both or none.
    async fn in_transaction(
        &mut self,
        mut next: Cursor,
        work: impl AsyncFnOnce(&Pooled, &crate::outbox::sql::Sql) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sql = &self.relay.outbox.0.sql;
        let began = Instant::now();
        let doing = |error| failed("cannot store what became of messages", error);
        let tx = self.connection().await?.begin(TransactionOptions::default()).await.map_err(doing)?;
        // The step comes first: who was overtaken fails before he touches anything.
        self.cursor.step(&tx, sql, &mut next, self.relay.options.lease).await?;
        work(&tx, sql).await?;
        tx.commit().await.map_err(doing)?;
        self.cursor = next;
        self.stored = began;
        Ok(())
    }

    /// Has the broker confirm messages; stays the one that carries meanwhile.
    async fn send(&mut self, db: &Pooled, messages: &[Message]) -> Result<Vec<Published>, Failed> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let transport = &self.relay.transport;
        let mut publishing = transport.publish(messages);
        let answers = loop {
            let renew = self.renew_at();
            tokio::select! {
                biased;
                answers = &mut publishing => break answers,
                () = tokio::time::sleep_until(renew) => self.renew(db).await?,
            }
        };
        add(&self.relay.counters.batches, 1);
        match answers {
            Ok(answers) if answers.len() != messages.len() => {
                let text =
                    format!("{} answered for {} of {} messages", transport.name(), answers.len(), messages.len());
                Err(Failed::Away(Some(Box::new(Error::new(ErrorKind::Failed, text)))))
            }
            Ok(answers) if is_outage(&answers) => {
                let first = answers.into_iter().find_map(Result::err);
                Err(Failed::Away(first.map(|error| Box::new(error) as _)))
            }
            Ok(answers) => Ok(answers),
            Err(error) => Err(Failed::Away(Some(Box::new(error)))),
        }
    }

    /// Tries keys again whose time has come.
    async fn try_lanes(&mut self, db: &Pooled) -> Result<bool, Failed> {
        let sql = &self.relay.outbox.0.sql;
        let doing = |error| failed("cannot read what was put aside", error);
        let rows = db.query(&sql.due_lanes, &[&LANES]).await.map_err(doing)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut due: Vec<(String, i64)> = Vec::with_capacity(rows.len());
        for row in &rows {
            let attempts: i32 = row.try_get(1).map_err(unreadable)?;
            due.push((row.try_get(0).map_err(unreadable)?, i64::from(attempts)));
        }
        let lanes: Vec<&str> = due.iter().map(|(lane, _)| lane.as_str()).collect();
        let rows = db.query(&sql.lane_messages, &[&lanes, &OF_A_LANE]).await.map_err(doing)?;
        let mut found = items(&rows)?;
        // A message that was parked under its key keeps the key's lane, whatever lane its row is in.
        for (item, row) in found.iter_mut().zip(&rows) {
            item.lane = row.try_get(0).map_err(unreadable)?;
        }
        let send: Vec<Message> = found.iter().filter(|item| !item.expired).map(|item| item.message.clone()).collect();
        let mut answers = self.send(db, &send).await?.into_iter();
        let mut change = LaneChange::default();
        let mut from = 0;
        for (lane, attempts) in &due {
            let count = found[from..].iter().take_while(|item| item.lane == *lane).count();
            change.lane(lane, *attempts, &found[from..from + count], &mut answers, &self.relay.options);
            from += count;
        }
        let next =
            Cursor { sent: self.cursor.sent + i64::try_from(change.sent.len()).unwrap_or(0), ..self.cursor.clone() };
        self.in_transaction(next, async |tx, sql| change.write(tx, sql).await).await?;
        for lane in &change.released {
            self.lanes.remove(lane);
        }
        add(&self.relay.counters.sent, change.sent.len());
        add(&self.relay.counters.dead, change.dead.len());
        Ok(true)
    }
}

/// Why a round failed.
enum Failed {
    /// The broker is away: nothing was lost, and it is tried again.
    Away(Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The database, or somebody else took over.
    Here(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}
