//! Publishing in the caller's transaction.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{Error, Message, NewMessage};
use tokio::sync::Notify;

use super::sql::Sql;
use crate::carried::write_headers;
use crate::executor::{Executor, Value};

/// A service's outbox in one database; cheap to clone, and all clones wake the same relay.
#[derive(Debug, Clone)]
pub struct Outbox(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    /// The service that messages come from.
    source: Arc<str>,
    pub(super) sql: Sql,
    pub(super) woken: Notify,
}

impl Outbox {
    /// The outbox whose tables are in `schema`, of the service `source`.
    pub fn new(schema: &str, source: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Inner { source: source.into(), sql: Sql::new(schema), woken: Notify::new() }))
    }

    /// Publishes a message when the transaction commits.
    ///
    /// # Errors
    ///
    /// What the statement fails with; the transaction has failed then. An error that can be tried again is one of the
    /// connection or of contention, and what is tried again is the transaction.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the row was added, so the transaction should be rolled back.
    pub async fn publish<E: Executor + ?Sized>(&self, tx: &mut E, message: NewMessage) -> Result<(), Error> {
        self.publish_all(tx, std::slice::from_ref(&message)).await
    }

    /// Publishes messages, in this order, when the transaction commits; one round trip for all.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_all<E: Executor + ?Sized>(&self, tx: &mut E, messages: &[NewMessage]) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let rows = Columns::of(messages);
        let column = |texts: fn(&Columns) -> &Vec<Option<String>>| -> Vec<Option<&str>> {
            texts(&rows).iter().map(Option::as_deref).collect()
        };
        let given = |text: for<'a> fn(&'a NewMessage) -> Option<&'a str>| -> Vec<Option<&str>> {
            messages.iter().map(text).collect()
        };
        let ids = column(|rows| &rows.ids);
        let headers = column(|rows| &rows.headers);
        let topics = given(|message| Some(message.topic.as_deref().unwrap_or(&message.kind)));
        let kinds = given(|message| Some(&message.kind));
        let keys = given(|message| message.key.as_deref());
        let data = given(|message| Some(message.data.as_str()));
        let correlations = given(|message| message.meta.correlation_id.as_deref());
        let causations = given(|message| message.meta.causation_id.as_deref());
        let parents = given(|message| message.meta.traceparent.as_deref());
        let states = given(|message| message.meta.tracestate.as_deref());
        let tenants = given(|message| message.meta.tenant.as_deref());
        let values = [
            Value::Text(&self.0.source),
            Value::Texts(&ids),
            Value::Texts(&topics),
            Value::Texts(&kinds),
            Value::Texts(&keys),
            Value::Texts(&data),
            Value::Texts(&correlations),
            Value::Texts(&causations),
            Value::Texts(&parents),
            Value::Texts(&states),
            Value::Texts(&tenants),
            Value::Texts(&headers),
            Value::Longs(&rows.delays),
            Value::Longs(&rows.limits),
        ];
        tx.fetch(&self.0.sql.publish, &values).await?;
        let this = self.clone();
        // Where nobody tells of the commit, the caller does, or the relay finds it.
        let _told = tx.after_commit(Box::new(move || this.wake()));
        Ok(())
    }

    /// Tells this process's relay that something was committed; without it the relay looks by itself from time to time.
    ///
    /// A transaction of pgfleet's own calls it when it has committed; with those of the client libraries the caller does.
    pub fn wake(&self) {
        self.0.woken.notify_one();
    }
}

/// What must be made to be stored.
struct Columns {
    ids: Vec<Option<String>>,
    headers: Vec<Option<String>>,
    delays: Vec<i64>,
    limits: Vec<i64>,
}

impl Columns {
    fn of(messages: &[NewMessage]) -> Self {
        Self {
            ids: messages.iter().map(|message| Some(message.id.to_string())).collect(),
            headers: messages.iter().map(|message| write_headers(&message.meta.headers)).collect(),
            delays: messages.iter().map(|message| micros(message.delay)).collect(),
            limits: messages.iter().map(|message| message.deliver_within.map_or(-1, micros)).collect(),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Has a message that a handler publishes say what caused it: whatever is not said yet of correlation, causation, trace and
/// tenant is taken from the message being handled.
pub fn following(mut new: NewMessage, cause: &Message) -> NewMessage {
    let id: Arc<str> = cause.id.to_string().into();
    let meta = &mut new.meta;
    meta.correlation_id = meta.correlation_id.take().or_else(|| cause.meta.correlation_id.clone()).or(Some(id.clone()));
    meta.causation_id = meta.causation_id.take().or(Some(id));
    if meta.traceparent.is_none() {
        meta.traceparent.clone_from(&cause.meta.traceparent);
        meta.tracestate.clone_from(&cause.meta.tracestate);
    }
    if meta.tenant.is_none() {
        meta.tenant.clone_from(&cause.meta.tenant);
    }
    new
}
