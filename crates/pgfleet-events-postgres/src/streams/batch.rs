//! Appends as the server is given them: one call, whatever is appended to how many streams.

use pgfleet_events::{Append, Appended, Error, ErrorKind, Expected, Filter, Meta};
use pgfleet_postgres::ToSql;
use pgfleet_postgres::pool::Pooled;

use super::sql::Sql;
use crate::error::failed;
use crate::wire::{Id, Jsonb};

/// A stream whose name is longer cannot be indexed.
const LONGEST: usize = 1_000;

/// What the server answers for a stream that is archived, and for one whose lock somebody holds.
const ARCHIVED: i64 = i64::MIN;
const BUSY: i64 = i64::MIN + 1;

/// What became of the append to one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Appended behind this version.
    Behind(u64),
    /// The stream has this version.
    Wrong(u64),
    Archived,
    /// Somebody holds its lock, and was not waited for.
    Busy,
}

impl Outcome {
    fn of(code: i64) -> Self {
        match code {
            ARCHIVED => Self::Archived,
            BUSY => Self::Busy,
            0.. => Self::Behind(code.unsigned_abs()),
            _ => Self::Wrong((-1 - code).unsigned_abs()),
        }
    }

    /// What the caller of one append is told.
    pub(super) fn answer(self, append: &Append) -> Result<Appended, Error> {
        match self {
            Self::Behind(version) => Ok(Appended { first: version + 1, last: version + append.events.len() as u64 }),
            Self::Wrong(actual) => Err(Error::wrong_version(&append.stream, append.expected, actual)),
            Self::Archived => Err(archived(&append.stream)),
            Self::Busy => {
                Err(Error::new(ErrorKind::Unavailable, format!("stream {} is being appended to", append.stream)))
            }
        }
    }
}

pub(super) fn archived(stream: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("stream {stream} is archived"))
        .with_hint("open it again before appending to it")
}

/// Checks what can be checked here.
pub(super) fn check(append: &Append) -> Result<(), Error> {
    check_name(&append.stream)?;
    if append.events.is_empty() {
        return Err(Error::invalid(format!("nothing is to be appended to stream {}", append.stream)));
    }
    if let Some(event) = append.events.iter().find(|event| event.kind.is_empty() || event.kind.contains('\0')) {
        return Err(Error::invalid(format!("event {} has no usable type", event.id)));
    }
    Ok(())
}

pub(super) fn check_name(stream: &str) -> Result<(), Error> {
    if stream.is_empty() || stream.len() > LONGEST || stream.contains('\0') {
        return Err(Error::invalid(format!("a stream's name has 1 to {LONGEST} bytes, none of them zero")));
    }
    Ok(())
}

/// The hash of a stream's name of which [`Filter::part_of`] takes the upper bits: an event's column `part`.
pub(crate) fn hash_of(stream: &str) -> i32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in stream.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let upper = u32::try_from(hash >> 32).unwrap_or(0);
    debug_assert_eq!(
        u32::try_from((u64::from(upper) * 7) >> 32).unwrap_or(0),
        Filter::part_of(stream, 7),
        "the hash is that of the filter"
    );
    upper.cast_signed()
}

/// Appends in one statement what most appends are: one event, to a stream that nobody else appends to just now, that was
/// never emptied, and that has the version that is expected. None when it is another one; nothing has been done then.
///
/// It spares the function that can do everything, which is a tenth of an append. Who archives the stream meanwhile does
/// not wait for it: the event may come in just behind.
pub(super) async fn event(db: &Pooled, sql: &Sql, append: &Append) -> Result<Option<Outcome>, Error> {
    let [event] = &append.events[..] else { return Ok(None) };
    let (part, expected, meta) = (hash_of(&append.stream), expected(append), &event.meta);
    let headers = headers(meta)?;
    let values: [&(dyn ToSql + Sync); 12] = [
        &&*append.stream,
        &part,
        &expected,
        &Id(event.id),
        &&*event.kind,
        &Jsonb(event.data.as_str()),
        &meta.correlation_id.as_deref(),
        &meta.causation_id.as_deref(),
        &meta.traceparent.as_deref(),
        &meta.tracestate.as_deref(),
        &meta.tenant.as_deref(),
        &headers,
    ];
    let row = db.query_opt(&sql.append_event, &values).await;
    let row = row.map_err(|error| failed("events could not be appended", error))?;
    Ok(row.map(|row| Outcome::of(row.get(0))))
}

fn headers(meta: &Meta) -> Result<Option<Jsonb<String>>, Error> {
    let written = (!meta.headers.is_empty()).then(|| serde_json::to_string(&meta.headers)).transpose();
    Ok(written.map_err(|error| Error::invalid("unusable headers").because(error))?.map(Jsonb))
}

/// The version that is expected, as the statements take it.
fn expected(append: &Append) -> i64 {
    match append.expected {
        Expected::Any => -1,
        Expected::NoStream => 0,
        Expected::Exact(version) => i64::try_from(version).unwrap_or(i64::MAX),
    }
}

/// Runs appends in one statement. `whole`: all or nothing; `wait`: for whoever holds the lock of a stream.
pub(super) async fn run(
    db: &Pooled,
    sql: &Sql,
    appends: &[&Append],
    whole: bool,
    wait: bool,
) -> Result<Vec<Outcome>, Error> {
    let count = appends.iter().map(|append| append.events.len()).sum();
    let names: Vec<&str> = appends.iter().map(|append| &*append.stream).collect();
    let parts: Vec<i32> = names.iter().map(|name| hash_of(name)).collect();
    let expected: Vec<i64> = appends.iter().map(|append| expected(append)).collect();
    let (mut of, mut step) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut ids, mut kinds) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut data = Vec::with_capacity(count);
    let mut said = Said::default();
    for (index, append) in appends.iter().enumerate() {
        for (place, event) in append.events.iter().enumerate() {
            of.push(i32::try_from(index + 1).unwrap_or(i32::MAX));
            step.push(i32::try_from(place + 1).unwrap_or(i32::MAX));
            ids.push(Id(event.id));
            kinds.push(&*event.kind);
            data.push(Jsonb(event.data.as_str()));
            let meta = &event.meta;
            said.correlation.push(meta.correlation_id.as_deref());
            said.causation.push(meta.causation_id.as_deref());
            said.traceparent.push(meta.traceparent.as_deref());
            said.tracestate.push(meta.tracestate.as_deref());
            said.tenant.push(meta.tenant.as_deref());
            said.headers.push(headers(meta)?);
        }
    }
    let headers = some(said.headers);
    let [correlation, causation, traceparent, tracestate, tenant] =
        [said.correlation, said.causation, said.traceparent, said.tracestate, said.tenant].map(some);
    let broken = |error| failed("events could not be appended", error);
    // The events, which both statements take behind what they take of the streams.
    let events: [&(dyn ToSql + Sync); 9] =
        [&ids, &kinds, &data, &correlation, &causation, &traceparent, &tracestate, &tenant, &headers];
    if let ([name], [part], [expected], true) = (&names[..], &parts[..], &expected[..], wait) {
        let stream: [&(dyn ToSql + Sync); 3] = [name, part, expected];
        let row = db.query_one(&sql.append_one, &[&stream[..], &events[..]].concat()).await.map_err(broken)?;
        return Ok(vec![Outcome::of(row.get(0))]);
    }
    let streams: [&(dyn ToSql + Sync); 7] = [&names, &parts, &expected, &whole, &wait, &of, &step];
    let row = db.query_one(&sql.append, &[&streams[..], &events[..]].concat()).await.map_err(broken)?;
    let codes: Vec<i64> = row.get(0);
    Ok(codes.into_iter().map(Outcome::of).collect())
}

/// What is said about the events, by column.
#[derive(Default)]
struct Said<'a> {
    correlation: Vec<Option<&'a str>>,
    causation: Vec<Option<&'a str>>,
    traceparent: Vec<Option<&'a str>>,
    tracestate: Vec<Option<&'a str>>,
    tenant: Vec<Option<&'a str>>,
    headers: Vec<Option<Jsonb<String>>>,
}

/// A column in which nothing is said is not sent.
fn some<T>(values: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    values.iter().any(Option::is_some).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_filter() {
        for name in (0..2_000).map(|number| format!("order-{number}")).chain([String::new(), "ä".to_owned()]) {
            for parts in [1, 2, 3, 16, 1_000, u32::MAX] {
                let hash = u64::from(hash_of(&name).cast_unsigned());
                assert_eq!((hash * u64::from(parts)) >> 32, u64::from(Filter::part_of(&name, parts)));
            }
        }
    }

    #[test]
    fn codes_are_told_apart() {
        assert_eq!(Outcome::of(0), Outcome::Behind(0));
        assert_eq!(Outcome::of(-1), Outcome::Wrong(0));
        assert_eq!(Outcome::of(-6), Outcome::Wrong(5));
        assert_eq!(Outcome::of(i64::MIN), Outcome::Archived);
        assert_eq!(Outcome::of(i64::MIN + 1), Outcome::Busy);
    }
}
