//! SQL that is made of what stands in the program.

use std::fmt;
use std::ops::Deref;

/// A statement put together from texts of the program; values are bound, and never part of it.
///
/// tokio-postgres takes it as `&*sql`, sqlx as it is.
///
/// ```
/// use pgfleet::values::{Sql, Table};
///
/// const TRIPS: Table = Table::new("trips");
///
/// let sql: Sql = TRIPS.select("id, fare").and("driver_id = $1").then("ORDER BY id");
/// assert_eq!(&*sql, "SELECT id, fare FROM \"trips\" WHERE NOT \"is_deleted\" AND (driver_id = $1) ORDER BY id");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql(String);

impl Sql {
    /// Begins with a text; one for a [page](super::Keyset) ends in a `WHERE` and its condition.
    pub fn new(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// Adds a condition, in parentheses.
    #[must_use]
    pub fn and(mut self, condition: &'static str) -> Self {
        self.push(" AND (").push(condition).push(")");
        self
    }

    /// Adds a text behind a blank.
    #[must_use]
    pub fn then(mut self, text: &'static str) -> Self {
        self.push(" ").push(text);
        self
    }

    /// Returns the text.
    pub fn into_string(self) -> String {
        self.0
    }

    pub(super) fn made(text: String) -> Self {
        Self(text)
    }

    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }
}

impl Deref for Sql {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
