//! A process that works on rows of the control database, and whether it is still alive.
//!
//! A worker holds an advisory lock on its number for as long as its session lasts, and writes that
//! number into the rows that it takes. The server frees the lock whatever the worker dies of, so a row
//! whose number nobody holds has lost its worker, and goes to whoever finds it.

use pgfleet_postgres::Type;

use crate::catalogue::Catalogue;
use crate::error::Error;

/// First half of the locks, `pgfw` in ASCII.
const SPACE: i32 = 0x7067_6677;

/// Lists the numbers of the workers that are alive, as a subquery.
pub(crate) const ALIVE: &str = "(SELECT l.objid::bigint FROM pg_catalog.pg_locks l \
    WHERE l.locktype = 'advisory' AND l.classid = 1885824631 AND l.objsubid = 2 AND l.granted \
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))";

/// A worker, alive as long as the connection on which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worker {
    /// What it writes into the rows that it takes.
    pub(crate) number: i32,
}

impl Worker {
    /// Begins to work, on this connection to the control database.
    ///
    /// # Errors
    ///
    /// The control database does not answer.
    pub(crate) async fn begin(catalogue: &Catalogue) -> Result<Self, Error> {
        let failed = |error: &pgfleet_postgres::Error| Error::postgres("cannot begin to work", error);
        loop {
            // An oid is unsigned, and must read as the same number.
            let number = rand::random_range(1..=i32::MAX);
            let rows = catalogue
                .connection()
                .query("SELECT pg_catalog.pg_try_advisory_lock($1, $2)", &[(&SPACE, Type::INT4), (&number, Type::INT4)])
                .await
                .map_err(|error| failed(&error))?;
            if rows.first().is_some_and(|row| row.get(0)) {
                return Ok(Self { number });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_for_the_living_looks_at_the_same_locks() {
        assert!(ALIVE.contains(&format!("classid = {SPACE} ")));
    }
}
