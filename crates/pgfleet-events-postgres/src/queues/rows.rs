//! Messages as rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_events::{DeadLetter, Delivery, Json, Meta};
use tokio_postgres::Row;

use super::receipt::Handle;
use crate::wire::{At, Id, Jsonb};

/// Reads deliveries that were handed out together, from a row that has an array for each column. None for the row that says
/// that lanes were passed by.
pub(super) fn deliveries(row: &Row, queue: &Arc<str>, taken: &mut Vec<Delivery>) -> bool {
    let Some(claims) = row.get::<_, Option<Vec<i64>>>(0) else { return false };
    let tokens: Vec<i32> = row.get(1);
    let (each, deadline) = (row.get::<_, i32>(2), row.get::<_, At>(3).0);
    let seqs: Vec<i64> = row.get(4);
    let attempts: Vec<i16> = row.get(5);
    let enqueued: Vec<At> = row.get(6);
    let ids: Vec<Id> = row.get(7);
    let priorities: Vec<i16> = row.get(8);
    let kinds: Vec<&str> = row.get(9);
    let data: Vec<Jsonb<&str>> = row.get(10);
    let keys = Texts::of(row, 11);
    let (correlations, causations) = (Texts::of(row, 12), Texts::of(row, 13));
    let (parents, states, tenants) = (Texts::of(row, 14), Texts::of(row, 15), Texts::of(row, 16));
    let headers: Option<Vec<Option<Jsonb<&str>>>> = row.get(17);
    let mut kind: Arc<str> = Arc::from("");
    taken.reserve(seqs.len());
    for (place, data) in data.into_iter().enumerate() {
        // A claim for so many each; the last one may be for fewer.
        let size = usize::try_from(each).unwrap_or(1).max(1);
        let of = (place / size).min(claims.len() - 1);
        let is_last = of > 0 && of == claims.len() - 1;
        let messages = if is_last { i32::try_from(seqs.len() - of * size).unwrap_or(each) } else { each };
        let handle = Handle { claim: claims[of], token: tokens[of], messages, seq: seqs[place] };
        if *kind != *kinds[place] {
            kind = Arc::from(kinds[place]);
        }
        let headers = headers.as_ref().and_then(|headers| headers[place].as_ref());
        taken.push(Delivery {
            queue: Arc::clone(queue),
            id: ids[place].0,
            receipt: handle.receipt(),
            attempt: u32::try_from(attempts[place]).unwrap_or(1),
            deadline,
            enqueued_at: enqueued[place].0,
            key: keys.at(place),
            priority: priorities[place],
            kind: Arc::clone(&kind),
            data: Json::trusted(data.0),
            meta: Meta {
                correlation_id: correlations.at(place),
                causation_id: causations.at(place),
                traceparent: parents.at(place),
                tracestate: states.at(place),
                tenant: tenants.at(place),
                headers: headers_of(headers),
            },
        });
    }
    true
}

/// A column of texts; none where it is empty.
struct Texts<'a>(Option<Vec<Option<&'a str>>>);

impl<'a> Texts<'a> {
    fn of(row: &'a Row, column: usize) -> Self {
        Self(row.get(column))
    }

    fn at(&self, place: usize) -> Option<Arc<str>> {
        self.0.as_ref().and_then(|texts| texts[place]).map(Arc::from)
    }
}

/// Reads a message that is looked at.
pub(super) fn delivery(row: &Row, queue: &Arc<str>) -> Delivery {
    let handle = Handle { claim: row.get(0), token: row.get(1), messages: row.get(2), seq: row.get(4) };
    Delivery {
        queue: Arc::clone(queue),
        id: row.get::<_, Id>(7).0,
        receipt: handle.receipt(),
        attempt: u32::try_from(row.get::<_, i16>(5)).unwrap_or(1),
        deadline: row.get::<_, At>(3).0,
        enqueued_at: row.get::<_, At>(6).0,
        key: text(row, 11),
        priority: row.get(8),
        kind: Arc::from(row.get::<_, &str>(9)),
        data: Json::trusted(row.get::<_, Jsonb<&str>>(10).0),
        meta: meta(row),
    }
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
        headers: headers_of(headers.as_ref()),
    }
}

/// Reads headers. They are written as a map of texts by this crate only; what somebody else put into the table and is no such
/// map must not keep the message from being handed out.
fn headers_of(headers: Option<&Jsonb<&str>>) -> BTreeMap<String, String> {
    headers.map_or_else(BTreeMap::new, |headers| serde_json::from_str(headers.0).unwrap_or_default())
}
