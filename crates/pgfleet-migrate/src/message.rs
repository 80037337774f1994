//! Many migrations in one message to the server, each in a transaction of its own.
//!
//! One message, because the server stops reading a message at the first error: what stands behind
//! a failed migration is never run. Sent one by one and pipelined, a migration whose *parsing*
//! fails would open no transaction block, and the next message would be applied over the gap.
//!
//! Each step begins with a row that carries its number, so that the answers can be told apart
//! whatever the file's own statements return: the row's column bears the run's random id.

use pgfleet_postgres::quote_literal;
use pgfleet_sql::lexer;

use crate::unit::Unit;

/// Statements of ours before a file's first, counted from the one that completes next to the row
/// with the number: `BEGIN`, what returned the row and what flushes it.
pub(crate) const BEFORE: usize = 3;

/// Statements of ours behind a file's last, besides those that record it.
const BEHIND: usize = 4;

/// Makes the server send at once what it has answered so far.
///
/// It keeps its answers until 8 kB are full or the whole message is done, so that nobody would see
/// which migration runs; but it flushes after each notice. This is the cheapest statement that
/// raises one for everybody and at the level that servers do not log: an empty text search. Not by
/// a cast, whose notice has a position: the server counts it from the start of the message, which
/// made 2,000 migrations ten times slower.
const FLUSH: &str = "SELECT pg_catalog.tsqueryin('')";

/// Most bytes in one message; a larger file makes a message of its own.
const LARGEST: usize = 4 << 20;

/// One message.
pub(crate) struct Message {
    pub(crate) text: String,
    /// For each unit where its SQL stands in `text`.
    pub(crate) parts: Vec<std::ops::Range<usize>>,
    /// For each unit how many of the `BEFORE` statements have completed when its row comes.
    pub(crate) completed: Vec<usize>,
    /// The name of the column that carries the number of a step.
    pub(crate) column: String,
}

/// Returns how many statements the server completes for one unit, its `COMMIT` included; `restore`
/// as in [`Message::compose`].
pub(crate) fn completions(unit: &Unit<'_>, restore: &str) -> usize {
    BEFORE + unit.statements.len() + unit.record_statements + BEHIND + usize::from(!restore.is_empty())
}

/// Whether the first statement chooses the transaction's properties, which the server allows
/// before the first query only.
fn sets_transaction(unit: &Unit<'_>) -> bool {
    let Some(first) = unit.statement(0) else { return false };
    let mut words = lexer::significant(first).take(3).map(|token| token.text(first));
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("set"))
        && words.any(|word| {
            let word = word.to_ascii_lowercase();
            word == "transaction" || word.starts_with("transaction_")
        })
}

impl Message {
    /// Composes one message of as many units as fit.
    ///
    /// `run`: the run's id. `flush_last`: the last unit's commit must be on disk, with everything
    /// before it. `restore`: a statement that makes the connection's settings again after a
    /// `RESET ALL` that does not come back to them; else empty.
    pub(crate) fn compose(units: &[Unit<'_>], run: &str, flush_last: bool, restore: &str) -> Self {
        let column = format!("pgfleet_step.s{}", run.replace('-', ""));
        let mut text = String::new();
        let mut parts = Vec::new();
        let mut completed = Vec::new();
        for (number, unit) in units.iter().enumerate() {
            if number > 0 && text.len() + unit.sql.len() > LARGEST {
                break;
            }
            let lock_timeout = unit.lock_timeout.as_millis();
            let path = unit.schema.map(|schema| quote_literal(&crate::target::search_path(schema)));
            if sets_transaction(unit) {
                // No query may come first, so the row is that of a `SHOW`; the time at which the
                // step began stays unknown, and the row comes when the server sends it.
                completed.push(BEFORE - 1);
                text.push_str(&format!("BEGIN;SET LOCAL lock_timeout='{lock_timeout}ms';"));
                if let Some(schema) = unit.schema {
                    text.push_str(&format!("SET LOCAL search_path={};", crate::target::search_path(schema)));
                }
                text.push_str(&format!("SET LOCAL {column}='{number}';SHOW {column};\n"));
            } else {
                completed.push(BEFORE - 2);
                text.push_str(&format!(
                    "BEGIN;SELECT {number} AS \"{column}\",\
                     pg_catalog.set_config('lock_timeout','{lock_timeout}ms',true),{}\
                     pg_catalog.set_config('pgfleet.started',\
                     extract(epoch FROM pg_catalog.clock_timestamp())::text,true);{FLUSH};\n",
                    path.map_or_else(String::new, |path| format!("pg_catalog.set_config('search_path',{path},true),"))
                ));
            }
            let start = text.len();
            text.push_str(&unit.sql);
            parts.push(start..text.len());
            // The line break ends a comment on the file's last line. A role that the file left
            // behind must not write the record, and its time-out must not end it; its other
            // settings go after it, since ours hold the time at which the step began.
            text.push_str("\n;RESET ROLE;RESET statement_timeout;");
            text.push_str(&unit.record);
            text.push_str(";RESET ALL;");
            if !restore.is_empty() {
                text.push_str(restore);
                text.push(';');
            }
            if flush_last && number + 1 == units.len() {
                // Behind the `RESET ALL`, which would undo it.
                text.push_str("SET LOCAL synchronous_commit=on;");
            }
            text.push_str("COMMIT;\n");
        }
        Self { text, parts, completed, column }
    }
}
