//! Noting messages in their handlers' transactions.

use std::collections::HashSet;
use std::sync::Arc;

use pgfleet_events::{Error, Message, Redrive};

use super::sql::Sql;
use crate::carried::{lane, write_headers};
use crate::executor::{Cells, Executor, Value};
use crate::outbox::Retry;

/// How many days an inbox can remember at most, by its tables.
const MOST_DAYS: u8 = 7;

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It was not there before: it is to be handled in this transaction.
    New,
    /// It was handled before.
    Duplicate,
    /// It was not there before, but an earlier one of its key was put aside; so it should be, too.
    Behind,
    /// It is older than what the inbox remembers, or of the day after tomorrow: it may have been handled before, and nobody
    /// knows.
    Refused,
}

/// A consumer's inbox; cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) consumer: Arc<str>,
    pub(super) sql: Sql,
    days: i64,
}

impl Inbox {
    /// The inbox whose tables are in `schema`, of a consumer: several consumers of one database each handle each message.
    pub fn new(schema: &str, consumer: impl Into<Arc<str>>) -> Self {
        Self::remembering(schema, consumer, MOST_DAYS)
    }

    /// Likewise, refusing messages that were written more than so many days ago; at most 7.
    pub fn remembering(schema: &str, consumer: impl Into<Arc<str>>, days: u8) -> Self {
        Self(Arc::new(Inner {
            consumer: consumer.into(),
            sql: Sql::new(schema),
            days: i64::from(days.clamp(1, MOST_DAYS)),
        }))
    }

    /// Returns the name of the consumer.
    pub fn consumer(&self) -> &str {
        &self.0.consumer
    }

    /// Notes a message in the transaction that it is to be handled in, and says whether it is.
    ///
    /// Whoever handles the same message at the same time is waited for.
    ///
    /// # Errors
    ///
    /// What the statement fails with; the transaction has failed then.
    pub async fn begin<E: Executor + ?Sized>(&self, tx: &mut E, message: &Message) -> Result<Begun, Error> {
        let begun = self.begin_all(tx, &[message]).await?;
        Ok(begun.first().copied().unwrap_or(Begun::Refused))
    }

    /// Notes messages and says what is to be done with each; one round trip for all.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub async fn begin_all<E: Executor + ?Sized>(
        &self,
        tx: &mut E,
        messages: &[&Message],
    ) -> Result<Vec<Begun>, Error> {
        let ids: Vec<String> = messages.iter().map(|message| message.id.to_string()).collect();
        let lanes: Vec<String> = messages.iter().map(|message| lane(message)).collect();
        let days: Vec<i64> = messages.iter().map(|message| message.time.micros().div_euclid(86_400_000_000)).collect();
        let ids_given: Vec<_> = ids.iter().map(|id| Some(id.as_str())).collect();
        let lanes_given: Vec<_> = lanes.iter().map(|lane| Some(lane.as_str())).collect();
        let values = [
            Value::Text(&self.0.consumer),
            Value::Texts(&ids_given),
            Value::Longs(&days),
            Value::Texts(&lanes_given),
            Value::Long(self.0.days),
        ];
        let rows = tx.fetch(&self.0.sql.begin, &values).await?;
        let is = |row: &Cells, at: usize| row.get(at).and_then(Option::as_deref) == Some("true");
        // The same message twice in a batch is new once.
        let mut seen = HashSet::new();
        let begun = rows.iter().zip(messages).map(|(row, message)| match (is(row, 0), is(row, 1), is(row, 2)) {
            (false, ..) => Begun::Refused,
            (true, false, _) => Begun::Duplicate,
            _ if !seen.insert(message.id) => Begun::Duplicate,
            (true, true, true) => Begun::Behind,
            (true, true, false) => Begun::New,
        });
        Ok(begun.collect())
    }

    /// Has dead letters handled again, each key's in the order in which they came, before what waits behind them; whatever
    /// their age.
    ///
    /// # Errors
    ///
    /// What the database fails with.
    pub async fn retry<E: Executor + ?Sized>(&self, tx: &mut E, which: &Redrive) -> Result<Retry, Error> {
        let (kind, key, ids) = match which {
            Redrive::All => ("all", "", Vec::new()),
            Redrive::Key(key) => ("key", &**key, Vec::new()),
            Redrive::Ids(ids) => ("ids", "", ids.iter().map(ToString::to_string).collect()),
        };
        let ids: Vec<_> = ids.iter().map(|id| Some(id.as_str())).collect();
        let values = [Value::Text(&self.0.consumer), Value::Text(kind), Value::Text(key), Value::Texts(&ids)];
        let rows = tx.fetch(&self.0.sql.retry, &values).await?;
        let count = |at: usize| {
            rows.first().and_then(|row| row.get(at)?.as_deref()).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        Ok(Retry { messages: count(0), keys: count(1) })
    }

    /// Runs a statement whose last values are a message's columns.
    pub(super) async fn store<E: Executor + ?Sized>(
        &self,
        tx: &mut E,
        sql: &str,
        before: &[Value<'_>],
        message: &Message,
    ) -> Result<(), Error> {
        let id = message.id.to_string();
        let headers = write_headers(&message.meta.headers);
        let maybe = |text: &Option<Arc<str>>| text.clone();
        let meta = [
            maybe(&message.key),
            maybe(&message.meta.correlation_id),
            maybe(&message.meta.causation_id),
            maybe(&message.meta.traceparent),
            maybe(&message.meta.tracestate),
            maybe(&message.meta.tenant),
        ];
        let mut values = before.to_vec();
        values.extend([
            Value::Text(&id),
            Value::Text(&message.topic),
            Value::Text(&message.kind),
            Value::MaybeText(meta[0].as_deref()),
            Value::Text(&message.source),
            Value::Text(message.data.as_str()),
            Value::MaybeText(meta[1].as_deref()),
            Value::MaybeText(meta[2].as_deref()),
            Value::MaybeText(meta[3].as_deref()),
            Value::MaybeText(meta[4].as_deref()),
            Value::MaybeText(meta[5].as_deref()),
            Value::MaybeText(headers.as_deref()),
            Value::Long(message.time.micros()),
        ]);
        tx.fetch(sql, &values).await?;
        Ok(())
    }
}
