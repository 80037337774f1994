//! Indexes on tables without rows, built without `CONCURRENTLY` when that was asked for.
//!
//! A concurrent build waits for every transaction in the database that is older, whatever it reads:
//! a worker that always has one open makes it wait for ever. On a table without rows there is
//! nothing that a concurrent build would be better at. Rows that come between the look and the build
//! make it a little longer; it waits for their transactions no longer than any other migration.

use pgfleet_postgres::Error;
use pgfleet_sql::lexer;

use super::Built;
use crate::event::Event;
use crate::options::Concurrently;
use crate::unit::Unit;
use crate::work::Work;

/// How long looking for a row may take: a table that had many and has none is read to its end.
const LOOK_LIMIT: &str = "5s";

/// What became of a statement.
pub(super) enum Plain {
    /// It is to be run as it is written.
    AsWritten,
    /// It was run without `CONCURRENTLY`.
    Ran(Result<(), Error>),
    /// Stopping was asked for, and the server did not answer.
    Unanswered,
}

impl Work<'_> {
    /// Runs a statement without `CONCURRENTLY` if it builds an index on a table that has no row.
    pub(super) async fn plainly(&self, unit: &Unit<'_>, index: usize, sql: &str) -> Plain {
        if self.options.concurrently == Concurrently::AsWritten {
            return Plain::AsWritten;
        }
        let Some(Built::Index { table, .. }) = Built::by(sql) else { return Plain::AsWritten };
        let Some(plain) = without_concurrently(sql) else { return Plain::AsWritten };
        match self.is_empty(&table).await {
            Ok(true) => {}
            Ok(false) => return Plain::AsWritten,
            Err(error) => return Plain::Ran(Err(error)),
        }
        let lock_timeout = if unit.lock_timeout.is_zero() { self.options.lock_timeout } else { unit.lock_timeout };
        // A transaction of its own, so that the time-out goes with it, and messages of their own, so
        // that the server counts an error's position from the start of the statement.
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{}ms'", lock_timeout.as_millis());
        if let Err(error) = self.surely(&begin).await {
            return Plain::Ran(Err(error));
        }
        let Some(ran) = self.or_cancel(self.connection.execute_all(&plain)).await else { return Plain::Unanswered };
        let number = index + 1;
        match ran {
            Ok(()) => {
                let committed = self.surely("COMMIT").await;
                if committed.is_ok() {
                    self.tell(&Event::Note(format!(
                        "{}: statement {number} was run without CONCURRENTLY, since {table} has no row",
                        unit.label
                    )));
                }
                Plain::Ran(committed)
            }
            Err(error) if error.server().is_none() || error.is_unreachable() => Plain::Ran(Err(error)),
            Err(error) => match self.surely("ROLLBACK").await {
                Err(lost) => Plain::Ran(Err(lost)),
                Ok(()) if error.server().is_some_and(pgfleet_postgres::ServerError::is_contention) => {
                    self.tell(&Event::Note(format!(
                        "{}: statement {number} is run as written, since {table} is in use",
                        unit.label
                    )));
                    Plain::AsWritten
                }
                Ok(()) => Plain::Ran(Err(error)),
            },
        }
    }

    /// Whether the session's role sees that a table has no row; that it cannot see it is a no.
    async fn is_empty(&self, table: &str) -> Result<bool, Error> {
        // Rows that a policy would hide make it an error. What holds the table exclusively is waited
        // for by the build, which then is as written.
        let looked = self
            .ask(&format!(
                "BEGIN; SET LOCAL row_security = off; SET LOCAL lock_timeout = '{}ms'; \
                 SET LOCAL statement_timeout = '{LOOK_LIMIT}'; SELECT EXISTS (SELECT FROM {table}); COMMIT",
                self.options.lock_timeout.as_millis()
            ))
            .await;
        match looked {
            Ok(rows) => Ok(rows.first().and_then(|row| row.get(0)) == Some("f")),
            Err(error) if error.server().is_none() || error.is_unreachable() => Err(error),
            Err(_) => self.surely("ROLLBACK").await.map(|()| false),
        }
    }
}

/// Returns a `CREATE INDEX CONCURRENTLY` with blanks in the place of that word, so that every other
/// word stays where it was.
fn without_concurrently(sql: &str) -> Option<String> {
    let word = lexer::significant(sql).find(|token| token.is_word(sql, "CONCURRENTLY"))?;
    let blanks = " ".repeat(word.end - word.start);
    Some(format!("{}{blanks}{}", &sql[..word.start], &sql[word.end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_word_stays_where_it_was() {
        for (sql, plain) in [
            ("create index concurrently on t (id)", "create index              on t (id)"),
            (
                "CREATE /* CONCURRENTLY */ UNIQUE INDEX Concurrently\nif not exists \"concurrently\" on t (é)",
                "CREATE /* CONCURRENTLY */ UNIQUE INDEX             \nif not exists \"concurrently\" on t (é)",
            ),
        ] {
            assert_eq!(without_concurrently(sql).as_deref(), Some(plain));
        }
        assert_eq!(without_concurrently("create index on t (id)"), None);
    }
}
