//! What the tables of a service hold, as types: ids, times, money, and the small things done with rows.
//!
//! | type | in the database | in JSON |
//! |---|---|---|
//! | [`Id`] | `varchar(50)`, `text`: `d_0193…` | the same text |
//! | [`Uid`] | `uuid` | `"0193…-…"` |
//! | [`Timestamp`] | `timestamptz`, or `timestamp` in UTC | `"2026-11-22T08:30:00Z"` |
//! | [`Money`] | `numeric(10,2)` | `"12.50"` |
//!
//! All of them are bound and read by tokio-postgres and, with the feature `sqlx`, by sqlx. What cannot be read as one of
//! them, whether it comes from a request or from a table, is a [`ValueError`] that says why.
//!
//! [`Table`] writes the statements that every table with the standard columns needs: rows that are not deleted,
//! deleting without losing, an update that notices another one ([`Conflict`]). [`Keyset`] reads a list page by page.
//! Both only write SQL; the service runs it with the client that it has. [`Retry`] says when a transaction is to be
//! done again.

mod conflict;
mod cursor;
mod error;
mod id;
mod keys;
mod keyset;
mod money;
mod numeric;
mod page;
mod postgres;
mod retry;
mod rfc3339;
mod sql;
mod sql_state;
#[cfg(feature = "sqlx")]
mod sqlx;
mod table;
mod text;
mod timestamp;

pub use conflict::{Conflict, Found, UpdateRow};
pub use cursor::Cursor;
pub use error::ValueError;
pub use id::{Entity, Id, Uid};
#[cfg(feature = "sqlx")]
pub use keys::SqlxKeys;
pub use keys::{Keys, PostgresKeys};
pub use keyset::{Key, Keyset, PageQuery};
pub use money::{Money, Rounding};
pub use page::{Page, PageRequest};
pub use retry::{CommitError, EndTransaction, Retry, Tries};
pub use sql::Sql;
#[cfg(feature = "sqlx")]
pub use sqlx::Bind;
pub use table::{Columns, Table};
pub use timestamp::Timestamp;
pub use uuid::Uuid;
