//! The caller's transaction, whatever client library it belongs to.

use pgfleet_events::{Answer, Error};
use pgfleet_postgres::pool::{AfterCommit, Pooled, Transaction};
use tokio_postgres::types::{ToSql, Type};

use crate::error::failed;

/// A value that a statement is given.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// Text or nothing.
    MaybeText(Option<&'a str>),
    /// A number.
    Long(i64),
    /// A list of texts or nothings.
    Texts(&'a [Option<&'a str>]),
    /// A list of numbers.
    Longs(&'a [i64]),
}

impl Value<'_> {
    fn sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(text) => text,
            Self::MaybeText(text) => text,
            Self::Long(number) => number,
            Self::Texts(texts) => texts,
            Self::Longs(numbers) => numbers,
        }
    }

    fn sql_type(&self) -> Type {
        match self {
            Self::Text(_) | Self::MaybeText(_) => Type::TEXT,
            Self::Long(_) => Type::INT8,
            Self::Texts(_) => Type::TEXT_ARRAY,
            Self::Longs(_) => Type::INT8_ARRAY,
        }
    }
}

/// The columns of a row, all of them texts.
pub type Cells = Vec<Option<String>>;

/// A connection, mostly in a transaction of the caller's, that outbox and inbox run their statements on.
///
/// It is implemented for what pgfleet hands out, for `tokio_postgres`, and with the feature `sqlx` for its connections and
/// transactions. One call is one round trip; where the library prepares statements by name, the first of a connection takes
/// one more.
pub trait Executor: Send {
    /// Runs a statement whose columns, if it has any, are texts.
    fn fetch<'a>(&'a mut self, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>>;

    /// Has something done right after what was run here is committed; says whether it will be.
    ///
    /// Only pgfleet's own transactions tell: the client libraries' do not.
    fn after_commit(&mut self, work: AfterCommit) -> bool {
        drop(work);
        false
    }
}

fn cells(rows: &[tokio_postgres::Row]) -> Result<Vec<Cells>, tokio_postgres::Error> {
    rows.iter().map(|row| (0..row.len()).map(|at| row.try_get(at)).collect()).collect()
}

/// What a statement on a caller's connection is called in an error.
const DOING: &str = "the messages' statement failed";

fn read(rows: &[tokio_postgres::Row]) -> Result<Vec<Cells>, Error> {
    cells(rows).map_err(|error| failed(DOING, pgfleet_postgres::Error::from_client(error, DOING, false)))
}

impl Executor for Pooled {
    fn fetch<'a>(&'a mut self, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>> {
        on_pooled(self, sql, values)
    }

    /// Each statement is committed when it has ended.
    fn after_commit(&mut self, work: AfterCommit) -> bool {
        work();
        true
    }
}

impl Executor for Transaction {
    fn fetch<'a>(&'a mut self, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>> {
        on_pooled(self, sql, values)
    }

    fn after_commit(&mut self, work: AfterCommit) -> bool {
        Self::after_commit(self, work);
        true
    }
}

impl Executor for pgfleet_route::Tx {
    fn fetch<'a>(&'a mut self, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>> {
        Box::pin(async move {
            let values: Vec<_> = values.iter().map(Value::sql).collect();
            // Through its own method, which sees when the server is no longer the primary.
            let rows = self.query(sql, &values).await.map_err(|error| failed(DOING, error))?;
            read(&rows)
        })
    }

    fn after_commit(&mut self, work: AfterCommit) -> bool {
        Self::after_commit(self, work);
        true
    }
}

fn on_pooled<'a>(db: &'a Pooled, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>> {
    Box::pin(async move {
        let values: Vec<_> = values.iter().map(Value::sql).collect();
        let rows = db.query(sql, &values).await.map_err(|error| failed(DOING, error))?;
        read(&rows)
    })
}

macro_rules! on_client {
    ($($client:ty),*) => {$(
        impl Executor for $client {
            fn fetch<'a>(&'a mut self, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>> {
                Box::pin(async move {
                    // Typed here, so that preparing it takes no round trip of its own.
                    let values: Vec<_> = values.iter().map(|value| (value.sql(), value.sql_type())).collect();
                    let rows = self.query_typed(sql, &values).await;
                    let rows = rows.map_err(|error| {
                        failed(DOING, pgfleet_postgres::Error::from_client(error, DOING, false))
                    })?;
                    read(&rows)
                })
            }
        }
    )*};
}

on_client!(tokio_postgres::Client, tokio_postgres::Transaction<'_>);

#[cfg(feature = "sqlx")]
mod with_sqlx {
    use pgfleet_events::{Answer, Error, ErrorKind};
    use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row as _};

    use super::{Cells, DOING, Executor, Value};

    impl Executor for PgConnection {
        fn fetch<'a>(&'a mut self, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>> {
            Box::pin(async move {
                // The text is ours, made of constants and quoted names; values are bound.
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for value in values {
                    query = match *value {
                        Value::Text(text) => query.bind(text),
                        Value::MaybeText(text) => query.bind(text),
                        Value::Long(number) => query.bind(number),
                        Value::Texts(texts) => query.bind(texts),
                        Value::Longs(numbers) => query.bind(numbers),
                    };
                }
                let rows = query.fetch_all(self).await.map_err(failed)?;
                rows.iter()
                    .map(|row| (0..row.len()).map(|at| row.try_get(at)).collect())
                    .collect::<Result<_, _>>()
                    .map_err(failed)
            })
        }
    }

    impl Executor for sqlx::Transaction<'_, Postgres> {
        fn fetch<'a>(&'a mut self, sql: &'a str, values: &'a [Value<'a>]) -> Answer<'a, Vec<Cells>> {
            (**self).fetch(sql, values)
        }
    }

    fn failed(error: sqlx::Error) -> Error {
        let kind = match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => ErrorKind::Unavailable,
            _ => ErrorKind::Failed,
        };
        let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        let again = kind == ErrorKind::Unavailable
            || code.is_some_and(|code| matches!(code.as_str(), "40001" | "40P01" | "55P03"));
        Error::new(kind, DOING).retryable(again).because(error)
    }
}
