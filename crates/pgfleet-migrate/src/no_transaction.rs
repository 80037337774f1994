//! Files without a transaction around them, statement by statement.

use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::failure::Failure;
use crate::locate::{Located, locate};
use crate::unit::Unit;
use crate::work::{Work, failure_of, hint};

/// A row of `pgfleet.attempts` that says that a file is begun.
struct Journal {
    id: String,
    /// When it began, in seconds of the server's clock.
    began: String,
    /// Oids of the indexes that were invalid before.
    invalid: String,
}

impl Work<'_> {
    /// Applies a file that has no transaction around it, statement by statement.
    ///
    /// Before the first statement a row in `pgfleet.attempts` says that the file is begun, and it
    /// is kept up to date: what a crash leaves behind is known to the statement.
    pub(crate) async fn without_transaction(&self, unit: &Unit<'_>) -> Result<(), Error> {
        let connected = |error| Error::connection(unit.action.sentence(&unit.label, self.target), error);
        let began = Instant::now();
        self.tell(&Event::Started { label: unit.label.clone() });
        let journal = self.begin_journal(unit).await.map_err(connected)?;
        for (index, statement) in unit.statements.iter().enumerate() {
            if index > 0 && self.options.stop.is_asked() {
                return Err(Self::partly(self.stopped(unit), unit, index));
            }
            let sql = &unit.sql[statement.start..statement.end];
            let Some(done) = self.or_cancel(self.connection.execute_all(sql)).await else {
                return Err(self.unanswered());
            };
            if let Err(error) = done {
                if error.server().is_none() || error.is_unreachable() {
                    return Err(connected(error));
                }
                return Err(self.fail_alone(unit, index, error, &journal).await);
            }
            // The file may act as another role, which does not own the journal.
            self.surely(&format!(
                "SELECT pg_catalog.set_config('pgfleet.role', pg_catalog.current_setting('role'), false); RESET ROLE; \
                 UPDATE pgfleet.attempts SET statement_number = {} WHERE id = {}; \
                 SELECT pg_catalog.set_config('role', pg_catalog.current_setting('pgfleet.role'), false)",
                index + 1,
                journal.id
            ))
            .await
            .map_err(connected)?;
        }
        self.surely(&format!(
            "ROLLBACK; RESET ROLE; RESET ALL; BEGIN; SET LOCAL synchronous_commit = on; \
             SET LOCAL pgfleet.started = '{}'; {}; DELETE FROM pgfleet.attempts WHERE id = {}; COMMIT",
            journal.began, unit.record, journal.id
        ))
        .await
        .map_err(connected)?;
        self.done(unit, began);
        Ok(())
    }

    async fn begin_journal(&self, unit: &Unit<'_>) -> Result<Journal, pgfleet_postgres::Error> {
        let begun = Failure {
            action: unit.action.word().to_owned(),
            version: unit.version.clone(),
            description: unit.description.clone(),
            message: "begun; statement_number counts the finished statements".to_owned(),
            ..Failure::default()
        };
        let rows = self
            .connection
            .simple(&format!(
                "SET synchronous_commit = on; SET lock_timeout = '{}ms'; {} RETURNING id, extract(epoch FROM at), \
                 (SELECT coalesce(pg_catalog.string_agg(indexrelid::text, ','), '0') \
                 FROM pg_catalog.pg_index WHERE NOT indisvalid)",
                unit.lock_timeout.as_millis(),
                self.table.failure_sql(&begun, "interrupted", &self.options.who, self.run)
            ))
            .await?;
        let text = |at: usize| rows.first().and_then(|row| row.get(at)).unwrap_or("0").to_owned();
        Ok(Journal { id: text(0), began: text(1), invalid: text(2) })
    }

    /// Records that a statement failed and makes the error that the user sees.
    async fn fail_alone(
        &self,
        unit: &Unit<'_>,
        index: usize,
        error: pgfleet_postgres::Error,
        journal: &Journal,
    ) -> Error {
        let sentence = unit.action.sentence(&unit.label, self.target);
        let statement = &unit.statements[index];
        let sql = &unit.sql[statement.start..statement.end];
        let located = error.server().map_or(Located { statement: Some(index), place: None }, |server| {
            let mut located = locate(unit, server, sql, &(0..0), index);
            located.statement = Some(index);
            if let Some(position) = server.position {
                let byte = pgfleet_sql::position::byte_of_char(sql, position.saturating_sub(1) as usize);
                located.place = Some(crate::set::place(unit.script, unit.source_offset(statement.start + byte)));
            }
            located
        });
        let failure = failure_of(unit, &error, &located);
        if let Err(lost) = self.surely("RESET ROLE; RESET ALL").await {
            return Error::connection(sentence, lost);
        }
        let left = match self.new_invalid_indexes(journal).await {
            Ok(left) => left,
            Err(lost) => return Error::connection(sentence, lost),
        };
        // Nothing is left half done when the very first statement failed and left no index.
        let outcome = if index == 0 && left.is_empty() { "failed" } else { "interrupted" };
        let recorded = self
            .surely(&format!(
                "ROLLBACK; BEGIN; SET LOCAL synchronous_commit = on; DELETE FROM pgfleet.attempts WHERE id = {}; {}; \
                 COMMIT",
                journal.id,
                self.table.failure_sql(&failure, outcome, &self.options.who, self.run)
            ))
            .await;
        if let Err(lost) = recorded {
            return Error::connection(sentence, lost);
        }
        let stopped = self.options.stop.is_asked() && error.sql_state() == Some("57014");
        let mut own =
            if stopped { self.stopped(unit) } else { Error::new(ErrorKind::Statement, sentence).failed(failure) };
        if index > 0 {
            own = Self::partly(own, unit, index);
        }
        for index in &left {
            own = own.cause(format!("the index {index} is left INVALID"));
        }
        if let Some(index) = left.first() {
            own = own.hinted(format!("drop it before you try again: DROP INDEX CONCURRENTLY {index}"));
        } else if let Some(hint) = hint(unit, &error, &located) {
            own = own.hinted(hint);
        }
        if let Some(place) = located.place {
            own = own.at(place);
        }
        own.caused_by(error)
    }

    /// Returns the names of the indexes that this file's failed statement left behind.
    async fn new_invalid_indexes(&self, journal: &Journal) -> Result<Vec<String>, pgfleet_postgres::Error> {
        // Not those that somebody else is building, and not those of a partitioned table, which
        // are invalid until each partition has one.
        let rows = self
            .connection
            .simple(&format!(
                "SELECT i.indexrelid::regclass FROM pg_catalog.pg_index i \
                 JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' \
                 WHERE NOT i.indisvalid AND i.indexrelid NOT IN ({}) AND NOT EXISTS (SELECT FROM \
                 pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)",
                journal.invalid
            ))
            .await?;
        Ok(rows.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect())
    }

    fn stopped(&self, unit: &Unit<'_>) -> Error {
        Error::new(ErrorKind::Stopped, format!("{}: stopped", unit.action.sentence(&unit.label, self.target)))
    }

    fn partly(error: Error, unit: &Unit<'_>, done: usize) -> Error {
        error.cause(format!("{done} of {} statements are applied and stay", unit.statements.len()))
    }
}
