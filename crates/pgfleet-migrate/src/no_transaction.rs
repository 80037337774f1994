//! Files without a transaction around them, statement by statement.

mod plain;

use std::time::Instant;

use pgfleet_postgres::quote_literal;
use pgfleet_sql::lexer::{self, Token, TokenKind};

use self::plain::Plain;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::failure::Failure;
use crate::locate::{Located, locate};
use crate::unit::Unit;
use crate::work::{Work, failure_of, hint};

/// A row of `pgfleet.attempts` that says that a file is begun.
///
/// Its `statement_number` is always the one, counted from 1, that did not finish: the one that
/// failed as well as the one that was under way when the connection was lost. One more than the
/// file has: all of it ran, and only recording it is left.
pub(crate) struct Journal {
    pub(crate) id: String,
    /// When it began, in seconds of the server's clock.
    pub(crate) began: String,
    /// Oids of the indexes that were invalid before, with commas between them.
    pub(crate) invalid: String,
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
        self.statements(unit, &journal, 0, began).await
    }

    /// Goes on with a file that an earlier run left half done: at statement `from`, counted from 0.
    ///
    /// Returns the names of the invalid indexes that were dropped first.
    pub(crate) async fn go_on(&self, unit: &Unit<'_>, journal: Journal, from: usize) -> Result<Vec<String>, Error> {
        let sentence = || unit.action.sentence(&unit.label, self.target);
        let connected = |error| Error::connection(sentence(), error);
        let began = Instant::now();
        self.tell(&Event::Started { label: unit.label.clone() });
        let rows = self
            .connection
            .simple(&format!(
                "SET synchronous_commit = on; SET lock_timeout = '{}ms'; {}\
                 SELECT extract(epoch FROM pg_catalog.clock_timestamp())",
                unit.lock_timeout.as_millis(),
                path_of(unit)
            ))
            .await
            .map_err(connected)?;
        // Else the record would count the time until somebody went on with it.
        let began_at = rows.first().and_then(|row| row.get(0)).unwrap_or("0").to_owned();
        let journal = Journal { began: began_at, ..journal };
        // What the file chose for its session (a role, a path, a time-out) ended with that session.
        for statement in &unit.statements[..from] {
            if statement.keyword().split(' ').next().is_some_and(|word| matches!(word, "SET" | "RESET")) {
                self.connection.execute_all(statement.text(&unit.sql)).await.map_err(|error| {
                    connected(error).cause("a setting that the finished statements made could not be made again")
                })?;
            }
        }
        let mut dropped = Vec::new();
        if let Some(built) = unit.statement(from).and_then(Built::by) {
            for index in self.left_by(&built, &journal).await.map_err(connected)? {
                let sql = format!("DROP INDEX CONCURRENTLY {index}");
                let Some(done) = self.or_cancel(self.connection.execute_all(&sql)).await else {
                    return Err(self.unanswered());
                };
                if self.options.stop.is_asked() && done.as_ref().is_err_and(|error| error.sql_state() == Some("57014"))
                {
                    return Err(self.stopped(unit).hinted(self.mend(unit)));
                }
                done.map_err(|error| {
                    connected(error).cause(format!("the index {index}, which is left INVALID, cannot be dropped"))
                })?;
                self.tell(&Event::Note(format!("dropped the index {index}, which was left INVALID")));
                dropped.push(index);
            }
        }
        self.statements(unit, &journal, from, began).await?;
        Ok(dropped)
    }

    /// Runs the statements from one on, then records the file and ends its journal.
    async fn statements(&self, unit: &Unit<'_>, journal: &Journal, from: usize, began: Instant) -> Result<(), Error> {
        let connected = |error| Error::connection(unit.action.sentence(&unit.label, self.target), error);
        for (index, statement) in unit.statements.iter().enumerate().skip(from) {
            if index > 0 && self.options.stop.is_asked() {
                return Err(self.partly(self.stopped(unit), unit, index));
            }
            let sql = statement.text(&unit.sql);
            let done = match self.plainly(unit, index, sql).await {
                Plain::AsWritten => self.or_cancel(self.connection.execute_all(sql)).await,
                Plain::Ran(ran) => Some(ran),
                Plain::Unanswered => None,
            };
            let Some(done) = done else { return Err(self.unanswered()) };
            if let Err(error) = done {
                if error.server().is_none() || error.is_unreachable() {
                    return Err(connected(error));
                }
                return Err(self.fail_alone(unit, index, error, journal).await);
            }
            if let Some(invalid) = self.built_nothing(sql).await.map_err(connected)? {
                return Err(self.fail_invalid(unit, index, &invalid, journal).await);
            }
            // The file may act as another role, which does not own the journal.
            self.surely(&format!(
                "SELECT pg_catalog.set_config('pgfleet.role', pg_catalog.current_setting('role'), false); RESET ROLE; \
                 UPDATE pgfleet.attempts SET statement_number = {} WHERE id = {}; \
                 SELECT pg_catalog.set_config('role', pg_catalog.current_setting('pgfleet.role'), false)",
                index + 2,
                journal.id
            ))
            .await
            .map_err(connected)?;
        }
        self.surely(&format!(
            "{}; BEGIN; SET LOCAL synchronous_commit = on; \
             SET LOCAL pgfleet.started = '{}'; {}; DELETE FROM pgfleet.attempts WHERE id = {}; COMMIT",
            self.reset(),
            journal.began,
            unit.record,
            journal.id
        ))
        .await
        .map_err(connected)?;
        self.done(unit, began);
        Ok(())
    }

    /// The statements that end what a file chose for its session.
    fn reset(&self) -> String {
        let mut sql = "ROLLBACK; RESET ROLE; RESET ALL".to_owned();
        let restore = self.connection.restore_sql();
        if !restore.is_empty() {
            sql.push_str("; ");
            sql.push_str(restore);
        }
        sql
    }

    async fn begin_journal(&self, unit: &Unit<'_>) -> Result<Journal, pgfleet_postgres::Error> {
        let begun = Failure {
            action: unit.action.word().to_owned(),
            version: unit.version.clone(),
            description: unit.description.clone(),
            statement_number: 1,
            message: "begun; statement_number is the one that did not finish".to_owned(),
            ..Failure::default()
        };
        let rows = self
            .connection
            .simple(&format!(
                "SET synchronous_commit = on; SET lock_timeout = '{}ms'; {}{}",
                unit.lock_timeout.as_millis(),
                path_of(unit),
                unit.table.journal_sql(&begun, &checksum(unit), &self.options.who, self.run)
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
        if let Err(lost) = self.surely(&self.reset()).await {
            return Error::connection(sentence, lost);
        }
        let left = match self.new_invalid_indexes(journal).await {
            Ok(left) => left,
            Err(lost) => return Error::connection(sentence, lost),
        };
        // Nothing is left half done when the very first statement failed and left no index.
        let half_done = index > 0 || !left.is_empty();
        if let Err(lost) = self.end_journal(journal, &failure, half_done).await {
            return Error::connection(sentence, lost);
        }
        let stopped = self.options.stop.is_asked() && error.sql_state() == Some("57014");
        let mut own =
            if stopped { self.stopped(unit) } else { Error::new(ErrorKind::Statement, sentence).failed(failure) };
        if let Some(hint) = hint(unit, &error, &located) {
            own = own.hinted(hint);
        } else if half_done {
            own = own.hinted(self.mend(unit));
        }
        if index > 0 {
            own = own.cause(finished(unit, index));
        }
        for index in &left {
            own = own.cause(format!("the index {index} is left INVALID"));
        }
        if let Some(place) = located.place {
            own = own.at(place);
        }
        own.caused_by(error)
    }

    /// Records that `IF NOT EXISTS` passed over an index that cannot be used.
    async fn fail_invalid(&self, unit: &Unit<'_>, index: usize, invalid: &str, journal: &Journal) -> Error {
        let sentence = unit.action.sentence(&unit.label, self.target);
        let statement = &unit.statements[index];
        let place = crate::set::place(unit.script, unit.source_offset(statement.start));
        let failure = Failure {
            action: unit.action.word().to_owned(),
            version: unit.version.clone(),
            description: unit.description.clone(),
            statement_number: i32::try_from(index + 1).unwrap_or(i32::MAX),
            statement: unit.source_statement(index).unwrap_or_default().chars().take(10_000).collect(),
            place: place.to_string(),
            message: format!("the index {invalid} was there already and is INVALID"),
            ..Failure::default()
        };
        let recorded = match self.surely(&self.reset()).await {
            Ok(()) => self.end_journal(journal, &failure, index > 0).await,
            Err(lost) => Err(lost),
        };
        if let Err(lost) = recorded {
            return Error::connection(sentence, lost);
        }
        let mut own = Error::new(ErrorKind::Statement, sentence).cause(failure.message.clone());
        if index > 0 {
            own = own.cause(finished(unit, index));
        }
        own.failed(failure).at(place).hinted(format!("drop it, then go on: DROP INDEX CONCURRENTLY {invalid}"))
    }

    /// Makes of the journal the row of a failure, which stands in the way of the next run when the
    /// file is half done.
    async fn end_journal(
        &self,
        journal: &Journal,
        failure: &Failure,
        half_done: bool,
    ) -> Result<(), pgfleet_postgres::Error> {
        let outcome = if half_done { "interrupted" } else { "failed" };
        self.surely(&format!(
            "ROLLBACK; BEGIN; SET LOCAL synchronous_commit = on; {}; COMMIT",
            crate::history::end_journal_sql(&journal.id, failure, outcome, &self.options.who, self.run)
        ))
        .await
    }

    /// Returns the names of the indexes that a statement left behind which is to be run again, as
    /// `DROP INDEX` takes them.
    async fn left_by(&self, built: &Built, journal: &Journal) -> Result<Vec<String>, pgfleet_postgres::Error> {
        self.invalid_indexes(&journal.invalid, &format!(" AND {}", built.condition())).await
    }

    /// Returns the name of the index that a statement took for the one to be made, though it is
    /// invalid.
    async fn built_nothing(&self, sql: &str) -> Result<Option<String>, pgfleet_postgres::Error> {
        let Some(Built::Index { name: Some(name), table }) = Built::by(sql) else { return Ok(None) };
        let rows = self
            .ask(&format!(
                "SELECT i.indexrelid::regclass FROM pg_catalog.pg_index i \
                 JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' \
                 JOIN pg_catalog.pg_class t ON t.relnamespace = c.relnamespace \
                 WHERE NOT i.indisvalid AND t.oid = pg_catalog.to_regclass({}) AND c.relname = {}::name",
                quote_literal(&table),
                quote_literal(&name)
            ))
            .await?;
        Ok(rows.first().and_then(|row| row.get(0)).map(str::to_owned))
    }

    /// Returns the names of the indexes that this file's failed statement left behind.
    async fn new_invalid_indexes(&self, journal: &Journal) -> Result<Vec<String>, pgfleet_postgres::Error> {
        self.invalid_indexes(&journal.invalid, "").await
    }

    /// Returns the names of invalid indexes that were not so before a file began.
    pub(crate) async fn invalid_indexes(
        &self,
        before: &str,
        condition: &str,
    ) -> Result<Vec<String>, pgfleet_postgres::Error> {
        // Not those that somebody else is building, and not those of a partitioned table, which
        // are invalid until each partition has one.
        let rows = self
            .ask(&format!(
                "SELECT i.indexrelid::regclass FROM pg_catalog.pg_index i \
                 JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' \
                 WHERE NOT i.indisvalid AND i.indexrelid NOT IN ({before}) AND NOT EXISTS (SELECT FROM \
                 pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid){condition}"
            ))
            .await?;
        Ok(rows.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect())
    }

    fn stopped(&self, unit: &Unit<'_>) -> Error {
        Error::new(ErrorKind::Stopped, format!("{}: stopped", unit.action.sentence(&unit.label, self.target)))
    }

    fn partly(&self, error: Error, unit: &Unit<'_>, done: usize) -> Error {
        error.cause(finished(unit, done)).hinted(self.mend(unit))
    }

    /// What to do about a file that is half done.
    fn mend(&self, unit: &Unit<'_>) -> String {
        crate::repair::mend(&unit.version, self.target, &unit.table.set)
    }
}

/// The statement that sets the path of a file whose schema is not the target's.
fn path_of(unit: &Unit<'_>) -> String {
    unit.schema.map_or_else(String::new, |schema| format!("SET search_path = {}; ", crate::target::search_path(schema)))
}

fn finished(unit: &Unit<'_>, done: usize) -> String {
    format!("{done} of {} statements are applied and stay", unit.statements.len())
}

/// The checksum in the journal, by which a later run knows the file again: of the text in the file,
/// since the values of placeholders may be secret.
pub(crate) fn checksum(unit: &Unit<'_>) -> String {
    pgfleet_sql::checksum::checksum(&unit.script.text)
}

/// What a statement builds concurrently, and leaves behind when it fails.
#[derive(Debug, PartialEq, Eq)]
enum Built {
    /// `CREATE INDEX CONCURRENTLY`, with the name as the catalog has it and the table as written.
    Index { name: Option<String>, table: String },
    /// `REINDEX … CONCURRENTLY`.
    Again,
}

impl Built {
    /// Reads a statement; none when it builds no index concurrently or cannot be understood.
    fn by(sql: &str) -> Option<Self> {
        let tokens: Vec<Token> = lexer::significant(sql).collect();
        let word = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(sql, word));
        if word(0, "REINDEX") {
            return (1..tokens.len()).any(|at| word(at, "CONCURRENTLY")).then_some(Self::Again);
        }
        let mut at = 1 + usize::from(word(1, "UNIQUE"));
        if !(word(0, "CREATE") && word(at, "INDEX") && word(at + 1, "CONCURRENTLY")) {
            return None;
        }
        at += 2;
        if word(at, "IF") && word(at + 1, "NOT") && word(at + 2, "EXISTS") {
            at += 3;
        }
        let mut name = None;
        if !word(at, "ON") {
            name = Some(plain(tokens.get(at)?.text(sql))?);
            at += 1;
        }
        if !word(at, "ON") {
            return None;
        }
        at += 1 + usize::from(word(at + 1, "ONLY"));
        let mut table = String::new();
        for token in tokens[at..].iter().take_while(|token| token.kind != TokenKind::OpenParen) {
            if token.is_word(sql, "USING") {
                break;
            }
            let text = token.text(sql);
            if text != "." {
                plain(text)?;
            }
            table.push_str(text);
        }
        (!table.is_empty()).then_some(Self::Index { name, table })
    }

    /// Which indexes are meant, of `i` in `pg_index` and `c` in `pg_class`.
    fn condition(&self) -> String {
        match self {
            Self::Index { name, table } => {
                let mut condition = format!("i.indrelid = pg_catalog.to_regclass({})", quote_literal(table));
                if let Some(name) = name {
                    condition.push_str(&format!(" AND c.relname = {}::name", quote_literal(name)));
                }
                condition
            }
            // By these endings the server marks what it builds beside an index. Those of a table's
            // overflow area cannot be dropped by its owner.
            Self::Again => {
                "c.relname ~ '_cc(new|old)[0-9]*$' AND c.relnamespace <> 'pg_toast'::regnamespace".to_owned()
            }
        }
    }
}

/// Returns a name as the catalog has it; none for what is no name or has escapes in it.
fn plain(text: &str) -> Option<String> {
    if let Some(quoted) = text.strip_prefix('"') {
        return Some(quoted.strip_suffix('"')?.replace("\"\"", "\""));
    }
    let is_name = text.starts_with(|c: char| c.is_alphabetic() || c == '_') && !text.contains('"');
    is_name.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_builds_is_read_from_it() {
        let index = |name: Option<&str>, table: &str| {
            Some(Built::Index { name: name.map(str::to_owned), table: table.to_owned() })
        };
        for (sql, built) in [
            ("create index concurrently I on t (id)", index(Some("i"), "t")),
            ("CREATE UNIQUE INDEX CONCURRENTLY if not exists \"A\"\"b\" ON ONLY s . \"T\" USING btree (id)", {
                index(Some("A\"b"), "s.\"T\"")
            }),
            ("create index concurrently on /* here */ t (id)", index(None, "t")),
            ("create index concurrently on_t on t(id)", index(Some("on_t"), "t")),
            ("create index concurrently U&\"x\" on t(id)", None),
            ("create index i on t (id)", None),
            ("reindex (verbose) table concurrently t", Some(Built::Again)),
            ("reindex table t", None),
            ("drop index concurrently i", None),
            ("", None),
        ] {
            assert_eq!(Built::by(sql), built, "{sql}");
        }
    }
}
