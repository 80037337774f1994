//! Updates that another one was faster than.

use std::fmt;

/// An update that changed nothing, because the row is not what it was when it was read.
///
/// Optimistic concurrency: a row is read with its version, and changed only if it still has that version
/// ([`Table::update`](super::Table::update)). What to do is the caller's to say: read again and decide anew, or tell the
/// user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    table: &'static str,
    expected: i64,
    found: Found,
}

/// What an update found in place of the row that it expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No row with that id.
    Nothing,
    /// A row that is deleted, with this version.
    Deleted(i64),
    /// A row with this version.
    Version(i64),
}

/// A row of [`Table::update`](super::Table::update): the new version if it was changed, and the version and state from before.
pub trait UpdateRow {
    /// Returns the three columns; none when the row is of another statement.
    fn columns(&self) -> Option<(Option<i64>, i64, bool)>;
}

impl UpdateRow for tokio_postgres::Row {
    fn columns(&self) -> Option<(Option<i64>, i64, bool)> {
        Some((self.try_get(0).ok()?, self.try_get(1).ok()?, self.try_get(2).ok()?))
    }
}

#[cfg(feature = "sqlx")]
impl UpdateRow for sqlx::postgres::PgRow {
    fn columns(&self) -> Option<(Option<i64>, i64, bool)> {
        use sqlx::Row as _;
        Some((self.try_get(0).ok()?, self.try_get(1).ok()?, self.try_get(2).ok()?))
    }
}

impl Conflict {
    pub(super) fn unless_updated<R: UpdateRow>(
        table: &'static str,
        row: Option<&R>,
        expected: i64,
        with_deleted: bool,
    ) -> Result<i64, Self> {
        let conflict = |found| Err(Self { table, expected, found });
        let Some(row) = row else { return conflict(Found::Nothing) };
        match row.columns().expect("the row is of Table::update or Table::look") {
            (Some(new), ..) => Ok(new),
            (None, version, true) if !with_deleted => conflict(Found::Deleted(version)),
            (None, version, _) => conflict(Found::Version(version)),
        }
    }

    /// Returns the version that the row should have had.
    pub fn expected(&self) -> i64 {
        self.expected
    }

    /// Returns what was there instead.
    pub fn found(&self) -> Found {
        self.found
    }

    /// Returns the table, as it was named.
    pub fn table(&self) -> &'static str {
        self.table
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, expected, found } = self;
        match found {
            Found::Nothing => write!(f, "the row of {table} is gone: version {expected} was expected"),
            Found::Deleted(_) => write!(f, "the row of {table} is deleted: version {expected} was expected"),
            Found::Version(found) => {
                write!(f, "the row of {table} has been changed: version {expected} was expected, and it has {found}")
            }
        }
    }
}

impl std::error::Error for Conflict {}
