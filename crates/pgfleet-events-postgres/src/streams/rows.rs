//! Events as rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_events::{Event, Meta, Position};
use tokio_postgres::Row;

use crate::wire::{At, Id, Jsonb, Xid};

/// The columns of an event, as [`Stored::of`] reads them.
pub(super) const COLUMNS: &str = "e.stream, e.version, e.seq, e.xid, e.at, e.id, e.type, e.data, e.correlation_id, \
                                  e.causation_id, e.traceparent, e.tracestate, e.tenant, e.headers";

/// How many columns there are; what else a statement returns comes behind them.
pub(super) const COUNT: usize = 14;

/// An event with what says where it belongs.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) event: Event,
    pub(super) seq: i64,
    pub(super) xid: Xid,
}

impl Stored {
    /// Reads a row; names that the row before has, too, are shared with it.
    pub(super) fn of(row: &Row, before: Option<&Event>) -> Self {
        let shared = |text: &str, known: Option<&Arc<str>>| match known {
            Some(known) if **known == *text => Arc::clone(known),
            _ => Arc::from(text),
        };
        let text = |column: usize| row.get::<_, Option<&str>>(column).map(Arc::from);
        let headers: Option<Jsonb<&str>> = row.get(13);
        let event = Event {
            stream: shared(row.get(0), before.map(|event| &event.stream)),
            version: row.get::<_, i64>(1).unsigned_abs(),
            position: None,
            at: row.get::<_, At>(4).0,
            id: row.get::<_, Id>(5).0,
            kind: shared(row.get(6), before.map(|event| &event.kind)),
            data: row.get::<_, Jsonb<&str>>(7).json(),
            meta: Meta {
                correlation_id: text(8),
                causation_id: text(9),
                traceparent: text(10),
                tracestate: text(11),
                tenant: text(12),
                headers: headers.map_or_else(BTreeMap::new, |headers| headers_of(headers.0)),
            },
        };
        Self { event, seq: row.get(2), xid: row.get(3) }
    }

    pub(super) fn placed(mut self, tick: i64) -> Event {
        self.event.position = Some(place(tick, self.seq));
        self.event
    }
}

/// Headers are an object of texts; what somebody else has written there is shown as it is.
fn headers_of(json: &str) -> BTreeMap<String, String> {
    let read: BTreeMap<String, serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    read.into_iter().map(|(name, value)| (name, text(value))).collect()
}

pub(super) fn place(tick: i64, seq: i64) -> Position {
    Position::new(tick.unsigned_abs(), seq.unsigned_abs())
}
