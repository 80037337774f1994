//! Values as sqlx binds and reads them.

use sqlx::decode::Decode;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{Postgres, Type, TypeInfo as _, ValueRef as _};

use super::id::{Entity, Id, Uid};
use super::money::Money;
use super::numeric;
use super::sql::Sql;
use super::timestamp::Timestamp;

/// The types whose numbers sqlx knows by name only with features of its own; the numbers never change.
const UUID: Oid = Oid(2950);
const UUIDS: Oid = Oid(2951);
const TIMESTAMP: Oid = Oid(1114);
const TIMESTAMPS: Oid = Oid(1115);
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZS: Oid = Oid(1185);
const NUMERIC: Oid = Oid(1700);
const NUMERICS: Oid = Oid(1231);

/// Says of which types a value is: the first is the one it is sent as.
macro_rules! types {
    ($name:ident $(<$entity:ident>)?, [$first:ident $(, $other:ident)*], [$array:ident $(, $arrays:ident)*]) => {
        impl$(<$entity>)? Type<Postgres> for $name$(<$entity>)? {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_oid($first)
            }

            fn compatible(ty: &PgTypeInfo) -> bool {
                // Not `==`, which takes a type known by its number for any that is known by its name.
                [$first $(, $other)*].iter().any(|&oid| ty.type_eq(&PgTypeInfo::with_oid(oid)))
            }
        }

        impl$(<$entity>)? PgHasArrayType for $name$(<$entity>)? {
            fn array_type_info() -> PgTypeInfo {
                PgTypeInfo::with_oid($array)
            }

            fn array_compatible(ty: &PgTypeInfo) -> bool {
                [$array $(, $arrays)*].iter().any(|&oid| ty.type_eq(&PgTypeInfo::with_oid(oid)))
            }
        }
    };
}

types!(Uid<E>, [UUID], [UUIDS]);
types!(Timestamp, [TIMESTAMPTZ, TIMESTAMP], [TIMESTAMPTZS, TIMESTAMPS]);
types!(Money, [NUMERIC], [NUMERICS]);

impl<E> Type<Postgres> for Id<E> {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        <str as Type<Postgres>>::compatible(ty)
    }
}

impl<E> PgHasArrayType for Id<E> {
    fn array_type_info() -> PgTypeInfo {
        <&str as PgHasArrayType>::array_type_info()
    }

    fn array_compatible(ty: &PgTypeInfo) -> bool {
        <&str as PgHasArrayType>::array_compatible(ty)
    }
}

impl<E: Entity> Encode<'_, Postgres> for Id<E> {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        out.extend_from_slice(self.to_string().as_bytes());
        Ok(IsNull::No)
    }
}

impl<E: Entity> Decode<'_, Postgres> for Id<E> {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let is_padded = value.type_info().name() == "CHAR";
        let text = value.as_str()?;
        Ok(if is_padded { text.trim_end_matches(' ') } else { text }.parse()?)
    }
}

impl<E> Encode<'_, Postgres> for Uid<E> {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        out.extend_from_slice(self.uuid().as_bytes());
        Ok(IsNull::No)
    }
}

impl<E> Decode<'_, Postgres> for Uid<E> {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Self::from_uuid(uuid::Uuid::from_slice(value.as_bytes()?)?)),
            PgValueFormat::Text => Ok(value.as_str()?.parse()?),
        }
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        out.extend_from_slice(&self.to_postgres().to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Self::from_postgres(i64::from_be_bytes(value.as_bytes()?.try_into()?))?),
            PgValueFormat::Text => {
                let is_plain = value.type_info().name() == "TIMESTAMP";
                let zone = if is_plain { "Z" } else { "" };
                Ok(format!("{}{zone}", value.as_str()?).parse()?)
            }
        }
    }
}

impl Encode<'_, Postgres> for Money {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        out.extend_from_slice(&numeric::encode(*self));
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Money {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(numeric::decode(value.as_bytes()?)?),
            PgValueFormat::Text => Ok(value.as_str()?.parse()?),
        }
    }
}

/// Made of what stands in the program only, so it is as safe as a `&'static str`.
impl sqlx::SqlSafeStr for Sql {
    fn into_sql_str(self) -> sqlx::SqlStr {
        sqlx::AssertSqlSafe(self.into_string()).into_sql_str()
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A query of sqlx that values are bound to: those of `sqlx::query`, `query_as` and `query_scalar`.
pub trait Bind: sealed::Sealed + Sized {
    /// Binds the next value.
    #[must_use]
    fn bind_value<T: for<'q> Encode<'q, Postgres> + Type<Postgres> + 'static>(self, value: T) -> Self;
}

macro_rules! bind {
    ($query:ty $(, $output:ident)?) => {
        impl$(<$output>)? sealed::Sealed for $query {}

        impl$(<$output>)? Bind for $query {
            fn bind_value<T: for<'q> Encode<'q, Postgres> + Type<Postgres> + 'static>(self, value: T) -> Self {
                self.bind(value)
            }
        }
    };
}

bind!(Query<'_, Postgres, PgArguments>);
bind!(QueryAs<'_, Postgres, O, PgArguments>, O);
bind!(QueryScalar<'_, Postgres, O, PgArguments>, O);
