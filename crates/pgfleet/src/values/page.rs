//! One page of a list.

use serde::Serialize;
use tokio_postgres::types::ToSql;

use super::cursor::{Cursor, Direction};
use super::keys::{Keys, PostgresKeys};
use super::keyset::Keyset;
use super::sql::Sql;

/// One page of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The rows, in the list's order, also after going back.
    pub items: Vec<T>,
    /// Where the list goes on; none when this was its end.
    pub next: Option<Cursor>,
    /// Where the rows before these are; none at its beginning.
    pub previous: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes something else of each row.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Page<U> {
        let Self { items, next, previous } = self;
        Page { items: items.into_iter().map(make).collect(), next, previous }
    }
}

/// A page that a client asks for, of [`Keyset::request`].
#[derive(Debug, Clone)]
pub struct PageRequest<K> {
    pub(super) keyset: Keyset<K>,
    pub(super) limit: u32,
    pub(super) from: Option<(Direction, K)>,
}

impl<K: Keys> PageRequest<K> {
    /// Returns how many rows the page has at most.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Completes a statement that ends in a condition: from where, in which order, how many rows.
    ///
    /// `first` is the number of the first placeholder that the statement does not use itself. One row more than the
    /// page has is asked for, which says whether there is a next one.
    #[must_use]
    pub fn sql(&self, mut select: Sql, first: usize) -> Sql {
        let direction = self.direction();
        if self.from.is_some() {
            select.push(" AND ").push(&self.keyset.after(direction, first));
        }
        let order = self.keyset.order(direction);
        select.push(&format!(" ORDER BY {order} LIMIT {}", u64::from(self.limit) + 1));
        select
    }

    /// Makes a page of the rows that the statement returned; `key` says the key of a row.
    pub fn page<T>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> K) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let forward = self.direction() == Direction::Forward;
        if !forward {
            rows.reverse();
        }
        // Where we came from there is something: the row of the cursor.
        let (after, before) = if forward { (more, self.from.is_some()) } else { (true, more) };
        let cursor = |direction, row: Option<&T>| row.map(|row| self.keyset.cursor(direction, &key(row)));
        let next = cursor(Direction::Forward, rows.last().filter(|_| after));
        let previous = cursor(Direction::Backward, rows.first().filter(|_| before));
        Page { items: rows, next, previous }
    }

    fn direction(&self) -> Direction {
        self.from.as_ref().map_or(Direction::Forward, |(direction, _)| *direction)
    }
}

impl<K: PostgresKeys> PageRequest<K> {
    /// Returns what tokio-postgres is to bind: the values of the statement, and behind them those of the page.
    pub fn parameters<'a>(&'a self, own: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let key = self.from.iter().flat_map(|(_, key)| key.parameters());
        own.iter().copied().chain(key).collect()
    }
}

#[cfg(feature = "sqlx")]
impl<K: super::keys::SqlxKeys> PageRequest<K> {
    /// Binds the values of the page to a query of sqlx that has those of the statement already.
    ///
    /// ```no_run
    /// # use pgfleet::values::{Id, Entity, Page, PageRequest, Table};
    /// # struct Trip;
    /// # impl Entity for Trip { const PREFIX: &'static str = "t_"; }
    /// # const TRIPS: Table = Table::new("trips");
    /// # async fn example(pool: &sqlx::PgPool, driver: &str, request: PageRequest<(Id<Trip>,)>) -> Result<(), sqlx::Error> {
    /// let sql = request.sql(TRIPS.select("id").and("driver_id = $1"), 2);
    /// let rows: Vec<(Id<Trip>,)> = request.bind(sqlx::query_as(sql).bind(driver)).fetch_all(pool).await?;
    /// let page: Page<(Id<Trip>,)> = request.page(rows, |row| *row);
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind<Q: super::sqlx::Bind>(&self, query: Q) -> Q {
        match &self.from {
            Some((_, key)) => key.bind_to(query),
            None => query,
        }
    }
}
