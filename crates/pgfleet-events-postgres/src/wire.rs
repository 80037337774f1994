//! Values of PostgreSQL as the wire has them, without a detour over text.

use std::error::Error as StdError;

use bytes::{BufMut as _, BytesMut};
use pgfleet_events::{Json, Moment};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

type Failure = Box<dyn StdError + Sync + Send>;

/// Microseconds from 1970 to 2000, where PostgreSQL counts from.
const EPOCH: i64 = 946_684_800_000_000;

/// `uuid`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id(pub(crate) Uuid);

impl ToSql for Id {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(Uuid::from_slice(raw)?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

/// `timestamptz`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At(pub(crate) Moment);

impl ToSql for At {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_i64(self.0.micros().saturating_sub(EPOCH));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for At {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(Moment::from_micros(micros.saturating_add(EPOCH))))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// `jsonb`, which is text behind one byte.
#[derive(Debug)]
pub(crate) struct Jsonb<T>(pub(crate) T);

impl<T: AsRef<str> + std::fmt::Debug> ToSql for Jsonb<T> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_u8(1);
        out.put_slice(self.0.as_ref().as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Jsonb<&'a str> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(std::str::from_utf8(raw.get(1..).unwrap_or_default())?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}

impl Jsonb<&str> {
    pub(crate) fn json(&self) -> Json {
        Json::trusted(self.0)
    }
}

/// `xid8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Xid(pub(crate) u64);

impl<'a> FromSql<'a> for Xid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(u64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::XID8
    }
}

/// `pg_snapshot`: which transactions had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Snapshot {
    /// Whether a transaction had ended; as `pg_visible_in_snapshot`.
    pub(crate) fn sees(&self, xid: Xid) -> bool {
        xid.0 < self.xmin || xid.0 < self.xmax && self.running.binary_search(&xid.0).is_err()
    }
}

impl ToSql for Snapshot {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_i32(i32::try_from(self.running.len())?);
        out.put_u64(self.xmin);
        out.put_u64(self.xmax);
        for xid in &self.running {
            out.put_u64(*xid);
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::PG_SNAPSHOT
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Snapshot {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        let (count, rest) = raw.split_at_checked(4).ok_or("a snapshot is longer")?;
        let count = usize::try_from(i32::from_be_bytes(count.try_into()?))?;
        let mut numbers = rest.chunks_exact(8).map(|eight| eight.try_into().map(u64::from_be_bytes));
        let xmin = numbers.next().ok_or("a snapshot is longer")??;
        let xmax = numbers.next().ok_or("a snapshot is longer")??;
        let running = numbers.take(count).collect::<Result<Vec<u64>, _>>()?;
        Ok(Self { xmin, xmax, running })
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::PG_SNAPSHOT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_written_and_read() {
        let snapshot = Snapshot { xmin: 10, xmax: 20, running: vec![10, 15] };
        let mut out = BytesMut::new();
        assert!(matches!(snapshot.to_sql(&Type::PG_SNAPSHOT, &mut out), Ok(IsNull::No)));
        let read = Snapshot::from_sql(&Type::PG_SNAPSHOT, &out).unwrap();
        assert_eq!(read, snapshot);
        let seen: Vec<u64> = (8..22).filter(|xid| read.sees(Xid(*xid))).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 14, 16, 17, 18, 19]);
    }
}
