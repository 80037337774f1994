//! The order of a list that is read page by page.

use std::marker::PhantomData;

use pgfleet_postgres::quote_ident;
use serde::Deserialize;

use super::cursor::{self, Cursor, Direction};
use super::error::ValueError;
use super::keys::Keys;
use super::page::PageRequest;

/// Rows of a page when a client does not say, and at most.
const USUAL: u32 = 20;
const MOST: u32 = 100;

/// A column that orders a list, and which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    column: &'static str,
    descending: bool,
}

impl Key {
    /// The smallest first. The column is kept as written; `t.id` is a column of `t`.
    pub const fn ascending(column: &'static str) -> Self {
        Self { column, descending: false }
    }

    /// The greatest first.
    pub const fn descending(column: &'static str) -> Self {
        Self { column, descending: true }
    }

    fn quoted(self) -> String {
        self.column.split('.').map(quote_ident).collect::<Vec<_>>().join(".")
    }
}

/// What a client says about the page that it wants, as `?limit=20&cursor=…`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PageQuery {
    /// How many rows at most.
    pub limit: Option<u32>,
    /// Where to go on; the beginning without it.
    pub cursor: Option<Cursor>,
}

/// The order of a list, for reading it page by page from a row's key on, and not by counting rows.
///
/// Pages are found by an index on the columns, however far back in the list they are. Rows that come and go between two
/// pages neither repeat others nor hide them. The columns are `NOT NULL`, and the last one is unique, mostly the id.
///
/// ```no_run
/// use pgfleet::values::{Entity, Id, Key, Keyset, Page, PageQuery, Table, Timestamp};
/// # #[derive(Debug)] enum Error { Value(pgfleet::values::ValueError), Postgres(tokio_postgres::Error) }
/// # impl From<pgfleet::values::ValueError> for Error { fn from(e: pgfleet::values::ValueError) -> Self { Self::Value(e) } }
/// # impl From<tokio_postgres::Error> for Error { fn from(e: tokio_postgres::Error) -> Self { Self::Postgres(e) } }
///
/// struct Trip;
/// impl Entity for Trip {
///     const PREFIX: &'static str = "t_";
/// }
///
/// const TRIPS: Table = Table::new("trips");
/// const LATEST: Keyset<(Timestamp, Id<Trip>)> = Keyset::new(&[Key::descending("departs_at"), Key::ascending("id")]);
///
/// # async fn example(db: &tokio_postgres::Client, driver: &str, query: PageQuery) -> Result<(), Error> {
/// let request = LATEST.request(&query)?;
/// // What is selected has one placeholder, so those of the page begin with $2.
/// let sql = request.sql(TRIPS.select("id, departs_at").and("driver_id = $1"), 2);
/// let rows = db.query(&*sql, &request.parameters(&[&driver])).await?;
/// let page: Page<tokio_postgres::Row> = request.page(rows, |row| (row.get("departs_at"), row.get("id")));
/// // page.items, and page.next for the query of the next page
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Keyset<K> {
    columns: &'static [Key],
    usual: u32,
    most: u32,
    keys: PhantomData<fn() -> K>,
}

impl<K> Clone for Keyset<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Keyset<K> {}

impl<K: Keys> Keyset<K> {
    /// An order by columns, of which there are as many as `K` has values. Pages have 20 rows, and at most 100.
    ///
    /// # Panics
    ///
    /// When there are more or fewer columns; in a constant this does not compile.
    pub const fn new(columns: &'static [Key]) -> Self {
        assert!(columns.len() == K::COUNT, "a column for each value of the key");
        Self { columns, usual: USUAL, most: MOST, keys: PhantomData }
    }

    /// Sets how many rows a page has when a client does not say, and how many at most.
    #[must_use]
    pub const fn limits(self, usual: u32, most: u32) -> Self {
        assert!(0 < usual && usual <= most, "a page has at least one row");
        Self { usual, most, ..self }
    }

    /// Reads what a client wants. A limit of more than the most rows is the most, one of zero is one.
    ///
    /// # Errors
    ///
    /// When the cursor is none, or of another list.
    pub fn request(&self, query: &PageQuery) -> Result<PageRequest<K>, ValueError> {
        let from = query.cursor.as_ref().map(|cursor| cursor.decode(self.list())).transpose()?;
        let limit = query.limit.unwrap_or(self.usual).clamp(1, self.most);
        Ok(PageRequest { keyset: *self, limit, from })
    }

    pub(super) fn cursor(&self, direction: Direction, key: &K) -> Cursor {
        Cursor::encode(direction, self.list(), key)
    }

    fn list(&self) -> [u8; 4] {
        cursor::list(self.columns.iter().map(|key| (key.column, key.descending)))
    }

    /// What `ORDER BY` says.
    pub(super) fn order(&self, direction: Direction) -> String {
        let columns = self.columns.iter().map(|key| {
            let way = if key.descending == (direction == Direction::Forward) { "DESC" } else { "ASC" };
            format!("{} {way}", key.quoted())
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The condition that a row comes after a key, whose values are `$first` and so on.
    pub(super) fn after(&self, direction: Direction, first: usize) -> String {
        let sign = |key: &Key| if key.descending == (direction == Direction::Forward) { "<" } else { ">" };
        let columns: Vec<String> = self.columns.iter().map(|key| key.quoted()).collect();
        let Some((head, rest)) = self.columns.split_first() else { return "true".to_owned() };
        if rest.iter().all(|key| key.descending == head.descending) {
            let values: Vec<String> = (0..columns.len()).map(|at| format!("${}", first + at)).collect();
            return format!("({}) {} ({})", columns.join(", "), sign(head), values.join(", "));
        }
        // Rows are compared one way only. From the last column to the first: greater here, or equal here and greater
        // in what follows.
        let mut condition = String::new();
        for (at, key) in self.columns.iter().enumerate().rev() {
            let (column, value) = (&columns[at], first + at);
            let beyond = format!("{column} {} ${value}", sign(key));
            condition = if condition.is_empty() {
                beyond
            } else {
                format!("({beyond} OR ({column} = ${value} AND {condition}))")
            };
        }
        // Implied by the rest, and all that an index can begin with.
        format!("{} {}= ${first} AND {condition}", columns[0], sign(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: Keyset<(i64, i64)> = Keyset::new(&[Key::descending("t.a"), Key::descending("id")]);
    const MIXED: Keyset<(i64, i64, i64)> =
        Keyset::new(&[Key::ascending("a"), Key::descending("b"), Key::ascending("id")]);

    #[test]
    fn a_condition_compares_rows_or_columns() {
        assert_eq!(SAME.after(Direction::Forward, 3), r#"("t"."a", "id") < ($3, $4)"#);
        assert_eq!(SAME.after(Direction::Backward, 1), r#"("t"."a", "id") > ($1, $2)"#);
        assert_eq!(SAME.order(Direction::Backward), r#""t"."a" ASC, "id" ASC"#);
        assert_eq!(
            MIXED.after(Direction::Forward, 1),
            r#""a" >= $1 AND ("a" > $1 OR ("a" = $1 AND ("b" < $2 OR ("b" = $2 AND "id" > $3))))"#
        );
        assert_eq!(MIXED.order(Direction::Forward), r#""a" ASC, "b" DESC, "id" ASC"#);
        assert_eq!(MIXED.order(Direction::Backward), r#""a" DESC, "b" ASC, "id" DESC"#);
    }

    #[test]
    fn limits_are_kept() {
        let limit = |limit| SAME.limits(10, 50).request(&PageQuery { limit, cursor: None }).unwrap().limit();
        assert_eq!([None, Some(0), Some(7), Some(u32::MAX)].map(limit), [10, 1, 7, 50]);
    }
}
