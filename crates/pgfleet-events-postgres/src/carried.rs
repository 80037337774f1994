//! Messages as columns, the same for the tables of outbox and inbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_events::{Error, Json, Message, Meta, Moment};
use tokio_postgres::Row;
use uuid::Uuid;

/// The columns that a message has wherever it lies, but for its times.
pub(crate) const COLUMNS: &str = "id, topic, type, key, source, data, correlation_id, causation_id, traceparent, \
                                  tracestate, tenant, headers";

/// Those columns as they are read, of the table or query `m`, with the time that it was written.
pub(crate) fn read_columns(time: &str) -> String {
    format!(
        "m.id::text, m.topic, m.type, m.key, m.source, m.data::text, m.correlation_id, m.causation_id, m.traceparent, \
         m.tracestate, m.tenant, m.headers::text, {}",
        micros(time)
    )
}

/// How many columns [`read_columns`] has.
pub(crate) const READ: usize = 13;

/// A time as microseconds since 1970.
pub(crate) fn micros(time: &str) -> String {
    format!("(extract(epoch FROM {time}) * 1000000)::int8")
}

/// Reads [`read_columns`] that begin at a column.
pub(crate) fn message(row: &Row, from: usize) -> Result<Message, Error> {
    let text = |at: usize| row.try_get::<_, &str>(from + at).map_err(unreadable);
    let maybe = |at: usize| {
        row.try_get::<_, Option<&str>>(from + at).map(|text| text.map(Arc::<str>::from)).map_err(unreadable)
    };
    let headers: Option<&str> = row.try_get(from + 11).map_err(unreadable)?;
    Ok(Message {
        id: Uuid::parse_str(text(0)?).map_err(|error| Error::invalid("a message's id is none").because(error))?,
        topic: text(1)?.into(),
        kind: text(2)?.into(),
        key: maybe(3)?,
        source: text(4)?.into(),
        data: Json::trusted(text(5)?),
        meta: Meta {
            correlation_id: maybe(6)?,
            causation_id: maybe(7)?,
            traceparent: maybe(8)?,
            tracestate: maybe(9)?,
            tenant: maybe(10)?,
            headers: match headers {
                Some(text) => read_headers(text)?,
                None => BTreeMap::new(),
            },
        },
        time: Moment::from_micros(row.try_get(from + 12).map_err(unreadable)?),
    })
}

/// Reads [`read_columns`] whose times are texts, that begin at a column.
pub(crate) fn message_of_cells(cells: &[Option<String>], from: usize) -> Result<Message, Error> {
    let maybe = |at: usize| cells.get(from + at).and_then(Option::as_deref);
    let text = |at: usize| maybe(at).unwrap_or_default();
    let id = Uuid::parse_str(text(0)).map_err(|error| Error::invalid("a message's id is none").because(error))?;
    let time: i64 = text(12).parse().map_err(|error| Error::invalid("a message's time is none").because(error))?;
    Ok(Message {
        id,
        topic: text(1).into(),
        kind: text(2).into(),
        key: maybe(3).map(Arc::from),
        source: text(4).into(),
        data: Json::trusted(text(5)),
        meta: Meta {
            correlation_id: maybe(6).map(Arc::from),
            causation_id: maybe(7).map(Arc::from),
            traceparent: maybe(8).map(Arc::from),
            tracestate: maybe(9).map(Arc::from),
            tenant: maybe(10).map(Arc::from),
            headers: match maybe(11) {
                Some(text) => read_headers(text)?,
                None => BTreeMap::new(),
            },
        },
        time: Moment::from_micros(time),
    })
}

pub(crate) fn unreadable(error: tokio_postgres::Error) -> Error {
    Error::new(pgfleet_events::ErrorKind::Failed, "a row cannot be read").because(error)
}

fn read_headers(text: &str) -> Result<BTreeMap<String, String>, Error> {
    serde_json::from_str(text).map_err(|error| Error::invalid("a message's headers cannot be read").because(error))
}

/// Headers as they are stored; nothing where there are none.
pub(crate) fn write_headers(headers: &BTreeMap<String, String>) -> Option<String> {
    // A map of texts to texts can always be written.
    (!headers.is_empty()).then(|| serde_json::to_string(headers).unwrap_or_default())
}

/// The lane that a message is in: that of its key, or one of its own.
pub(crate) fn lane(message: &Message) -> String {
    match &message.key {
        Some(key) => format!("k{key}"),
        None => format!("i{}", message.id),
    }
}

/// Keeps text out of a column that takes no end of it: an error with its causes, cut where it becomes long.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    shortened(&text)
}

/// The first 1,000 characters, without what a text column refuses.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().filter(|&c| c != '\0').take(1_000).collect()
}
