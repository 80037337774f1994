//! Messages that were put aside, and their next tries.

use std::time::Duration;

use pgfleet_events::{Error, Message};

use super::databases::Work;
use super::handler::Failure;
use super::inbox::Inbox;
use super::options::ConsumerOptions;
use crate::carried::{lane, message_of_cells, reason};
use crate::executor::{Executor, Value};
use crate::outbox::AfterDead;

/// The first message of a lane that is due, with the lane locked.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) lane: String,
    pub(super) attempts: i64,
    pub(super) ord: i64,
    pub(super) message: Message,
}

/// A wait as the statements take it: below zero for none.
fn micros(wait: Option<Duration>) -> i64 {
    wait.map_or(-1, |wait| i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn backoff(attempts: i64, options: &ConsumerOptions) -> Duration {
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    pgfleet_postgres::retry::backoff(attempts, options.backoff.0, options.backoff.1)
}

pub(super) fn is_hopeless(failure: &Failure, attempts: i64, options: &ConsumerOptions) -> bool {
    failure.is_hopeless() || attempts >= i64::from(options.max_attempts.max(1))
}

impl Inbox {
    /// Stores a message behind those of its key.
    pub(super) async fn park(&self, tx: &mut impl Executor, message: &Message) -> Result<(), Error> {
        let lane = lane(message);
        let before = [Value::Text(&self.0.consumer), Value::Text(&lane)];
        self.store(tx, &self.0.sql.park, &before, message).await
    }

    /// Puts a message aside that failed for the first time, and its key; or gives it up. Says how long until the next try.
    pub(super) async fn put_aside(
        &self,
        tx: &mut impl Executor,
        message: &Message,
        failure: &Failure,
        options: &ConsumerOptions,
    ) -> Result<Option<Duration>, Error> {
        let (lane, text) = (lane(message), reason(failure.error()));
        let hopeless = is_hopeless(failure, 1, options);
        if hopeless {
            self.bury(tx, message, 1, &text).await?;
            if message.key.is_none() || options.after_dead == AfterDead::GoOn {
                return Ok(None);
            }
        } else {
            self.park(tx, message).await?;
        }
        let wait = (!hopeless).then(|| backoff(1, options));
        let values = [
            Value::Text(&self.0.consumer),
            Value::Text(&lane),
            Value::MaybeText(message.key.as_deref()),
            Value::Long(i64::from(!hopeless)),
            Value::Long(micros(wait)),
            Value::Text(&text),
        ];
        tx.fetch(&self.0.sql.park_key, &values).await?;
        Ok(wait)
    }

    /// Makes a message a dead letter.
    pub(super) async fn bury(
        &self,
        tx: &mut impl Executor,
        message: &Message,
        attempts: i64,
        reason: &str,
    ) -> Result<(), Error> {
        let lane = lane(message);
        let before = [Value::Text(&self.0.consumer), Value::Text(&lane), Value::Long(attempts), Value::Text(reason)];
        self.store(tx, &self.0.sql.bury, &before, message).await
    }

    /// Locks a lane that is due and that nobody else has, and reads its first message; a lane without any is removed.
    pub(super) async fn due(&self, tx: &mut impl Executor) -> Result<Option<Head>, Error> {
        loop {
            let consumer = Value::Text(&self.0.consumer);
            let rows = tx.fetch(&self.0.sql.due_lane, &[consumer]).await?;
            let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
            let (Some(Some(lane)), attempts) = (row.next(), row.next().flatten()) else { return Ok(None) };
            let attempts = attempts.and_then(|attempts| attempts.parse().ok()).unwrap_or(0);
            let rows = tx.fetch(&self.0.sql.head, &[consumer, Value::Text(&lane)]).await?;
            if let Some(row) = rows.first() {
                let ord = row.first().and_then(Option::as_deref).and_then(|ord| ord.parse().ok()).unwrap_or(0);
                return Ok(Some(Head { lane, attempts, ord, message: message_of_cells(row, 1)? }));
            }
            tx.fetch(&self.0.sql.release_if_empty, &[consumer, Value::Text(&lane)]).await?;
        }
    }

    /// Says how long until the next lane is due; none when none is.
    pub(super) async fn next_due(&self, tx: &mut impl Executor) -> Result<Option<Duration>, Error> {
        let rows = tx.fetch(&self.0.sql.next_due, &[Value::Text(&self.0.consumer)]).await?;
        let wait = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        Ok(wait.map(Duration::from_micros))
    }

    /// Takes the first message of a lane away, which was handled in this transaction; what is behind it is due at once.
    pub(super) async fn done(&self, tx: &mut impl Executor, head: &Head) -> Result<(), Error> {
        let (consumer, lane) = (Value::Text(&self.0.consumer), Value::Text(&head.lane));
        tx.fetch(&self.0.sql.done, &[consumer, lane, Value::Long(head.ord)]).await?;
        self.again(tx, &head.lane, 0, Some(Duration::ZERO), None).await
    }

    /// Writes down that the first message of a lane failed again, unless somebody else has tried it meanwhile. Says whether
    /// it was given up.
    pub(super) async fn failed_again<W: Work>(
        &self,
        mut tx: W,
        head: &Head,
        failure: &Failure,
        options: &ConsumerOptions,
    ) -> Result<bool, Error> {
        let (consumer, lane) = (Value::Text(&self.0.consumer), Value::Text(&head.lane));
        let locked = tx.fetch(&self.0.sql.lock_lane, &[consumer, lane, Value::Long(head.attempts)]).await?;
        if locked.is_empty() {
            return Ok(false);
        }
        let (attempts, text) = (head.attempts + 1, reason(failure.error()));
        let hopeless = is_hopeless(failure, attempts, options);
        if hopeless {
            let values = [consumer, lane, Value::Long(head.ord), Value::Long(attempts), Value::Text(&text)];
            tx.fetch(&self.0.sql.bury_parked, &values).await?;
            let waits = options.after_dead == AfterDead::Wait && head.message.key.is_some();
            self.again(&mut tx, &head.lane, 0, (!waits).then_some(Duration::ZERO), Some(&text)).await?;
        } else {
            let wait = backoff(attempts, options);
            self.again(&mut tx, &head.lane, attempts, Some(wait), Some(&text)).await?;
        }
        tx.commit().await?;
        Ok(hopeless)
    }

    /// Sets a lane's next try; one that is tried and has nothing in it is removed.
    async fn again(
        &self,
        tx: &mut impl Executor,
        lane: &str,
        attempts: i64,
        wait: Option<Duration>,
        error: Option<&str>,
    ) -> Result<(), Error> {
        let (consumer, lane) = (Value::Text(&self.0.consumer), Value::Text(lane));
        let values = [consumer, lane, Value::Long(attempts), Value::Long(micros(wait)), Value::MaybeText(error)];
        tx.fetch(&self.0.sql.retry_key, &values).await?;
        if wait == Some(Duration::ZERO) {
            tx.fetch(&self.0.sql.release_if_empty, &[consumer, lane]).await?;
        }
        Ok(())
    }

    /// Empties what need not be remembered any more.
    pub(super) async fn forget(&self, tx: &mut impl Executor) -> Result<(), Error> {
        tx.fetch(&self.0.sql.forget, &[]).await?;
        Ok(())
    }
}
