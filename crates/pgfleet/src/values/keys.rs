//! The key of a list's row: the values of the columns that it is ordered by.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::ToSql;

mod sealed {
    pub trait Sealed {}
}

/// A tuple of one to four values that order a list: `(Timestamp, Id<Trip>)`.
///
/// Each value has the type of its column, which is `NOT NULL`, and comes back from JSON as it went in: no binary
/// fractions.
pub trait Keys: sealed::Sealed + Clone + Serialize + DeserializeOwned {
    /// How many values they are.
    const COUNT: usize;
}

/// [`Keys`] that tokio-postgres can bind.
pub trait PostgresKeys: Keys {
    /// Returns the values in their order.
    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)>;
}

/// [`Keys`] that sqlx can bind.
#[cfg(feature = "sqlx")]
pub trait SqlxKeys: Keys {
    /// Binds the values in their order.
    fn bind_to<Q: super::sqlx::Bind>(&self, query: Q) -> Q;
}

macro_rules! keys {
    ($count:literal: $($name:ident $at:tt),+) => {
        impl<$($name),+> sealed::Sealed for ($($name,)+) {}

        impl<$($name: Clone + Serialize + DeserializeOwned),+> Keys for ($($name,)+) {
            const COUNT: usize = $count;
        }

        impl<$($name: Clone + Serialize + DeserializeOwned + ToSql + Sync),+> PostgresKeys for ($($name,)+) {
            fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
                vec![$(&self.$at),+]
            }
        }

        #[cfg(feature = "sqlx")]
        impl<$($name),+> SqlxKeys for ($($name,)+)
        where
            $($name: Clone + Serialize + DeserializeOwned + sqlx::Type<sqlx::Postgres> + 'static,)+
            $(for<'q> $name: sqlx::Encode<'q, sqlx::Postgres>,)+
        {
            fn bind_to<Q: super::sqlx::Bind>(&self, query: Q) -> Q {
                $(let query = query.bind_value(self.$at.clone());)+
                query
            }
        }
    };
}

keys!(1: A 0);
keys!(2: A 0, B 1);
keys!(3: A 0, B 1, C 2);
keys!(4: A 0, B 1, C 2, D 3);
