//! Messages as rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_events::{DeadLetter, Delivery, Json, Meta};
use tokio_postgres::Row;
use uuid::Uuid;

use super::receipt::Handle;
use crate::wire::{At, Id, Jsonb};

/// Reads a delivery; what the one before it has, too, is shared with it. None for the row that is no message.
pub(super) fn delivery(row: &Row, queue: &Arc<str>, before: Option<&Delivery>) -> Option<Delivery> {
    let id: Uuid = row.get::<_, Option<Id>>(7)?.0;
    let handle = Handle { claim: row.get(0), token: row.get(1), messages: row.get(2), seq: row.get(4) };
    let kind: &str = row.get(9);
    Some(Delivery {
        queue: Arc::clone(queue),
        id,
        receipt: handle.receipt(),
        attempt: u32::try_from(row.get::<_, i16>(5)).unwrap_or(1),
        deadline: row.get::<_, At>(3).0,
        enqueued_at: row.get::<_, At>(6).0,
        key: text(row, 11),
        priority: row.get(8),
        kind: match before {
            Some(before) if *before.kind == *kind => Arc::clone(&before.kind),
            _ => Arc::from(kind),
        },
        data: Json::trusted(row.get::<_, Jsonb<&str>>(10).0),
        meta: meta(row),
    })
}

pub(super) fn dead_letter(row: &Row) -> DeadLetter {
    DeadLetter {
        id: row.get::<_, Id>(7).0,
        key: text(row, 11),
        reason: Arc::from(row.get::<_, &str>(18)),
        attempts: u32::try_from(row.get::<_, i16>(5)).unwrap_or(0),
        enqueued_at: row.get::<_, At>(6).0,
        dead_at: row.get::<_, At>(3).0,
        kind: Arc::from(row.get::<_, &str>(9)),
        data: Json::trusted(row.get::<_, Jsonb<&str>>(10).0),
        meta: meta(row),
    }
}

fn text(row: &Row, column: usize) -> Option<Arc<str>> {
    row.get::<_, Option<&str>>(column).map(Arc::from)
}

fn meta(row: &Row) -> Meta {
    let headers: Option<Jsonb<&str>> = row.get(17);
    Meta {
        correlation_id: text(row, 12),
        causation_id: text(row, 13),
        traceparent: text(row, 14),
        tracestate: text(row, 15),
        tenant: text(row, 16),
        headers: headers.map_or_else(BTreeMap::new, |headers| serde_json::from_str(headers.0).unwrap_or_default()),
    }
}
