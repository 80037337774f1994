//! What a migration file must not hold, because the runner could not keep its promises around it.
//!
//! The runner puts a file, its history row and the commit into one message. A `COMMIT` in the middle, a `COPY` that
//! waits for rows or a released lock would break that without the server saying so; this module finds them before
//! anything is sent. Whatever the server itself refuses is left to the server.

mod alone;
mod control;
mod finding;

pub use alone::needs_no_transaction;
pub(crate) use control::implies_no_transaction;
pub(crate) use finding::copy_through_client;

use self::control::Control;
use self::finding::{Finding, Words};
use crate::lexer::{self, Token, TokenKind};
use crate::statement::Statement;
use std::borrow::Cow;
use thiserror::Error;

/// A text that may run, and the statements that do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The text to send: what the runner does itself is blanked, and every byte offset is that of the original. Error
    /// positions of the server, which count characters, are positions in this text.
    pub text: Cow<'a, str>,
    /// The statements in it, without the file's own `BEGIN` and `COMMIT`.
    pub statements: Vec<Statement>,
}

/// Something that a migration must not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The byte where it begins.
    pub offset: usize,
    /// The index of the statement it is in, if it is in one.
    pub statement: Option<usize>,
    /// Why it is refused.
    pub reason: String,
    hint: &'static str,
}

impl Refusal {
    /// Returns what to do about it.
    pub fn hint(&self) -> &str {
        self.hint
    }
}

/// Checks a migration that runs in a transaction.
///
/// A `BEGIN` and a `COMMIT` stand for the runner's own and are blanked when nothing comes behind the `COMMIT`, as are the
/// `\restrict` lines of `pg_dump`. Savepoints are allowed.
///
/// # Errors
///
/// Other transaction control, `COPY` from or to the client, psql commands, `DISCARD`, a change of the session's user
/// and the release of advisory locks are refused.
pub fn check<'a>(text: &'a str, statements: &[Statement]) -> Result<Checked<'a>, Refusal> {
    run(text, statements, false)
}

/// Checks a migration that runs outside of a transaction, statement by statement.
///
/// A `BEGIN` with its `COMMIT` and all that is between is one of the statements: the server gets it in one message.
///
/// # Errors
///
/// As for [`check`], and savepoints are refused outside of a `BEGIN … COMMIT`.
pub fn check_no_transaction<'a>(text: &'a str, statements: &[Statement]) -> Result<Checked<'a>, Refusal> {
    run(text, statements, true)
}

fn run<'a>(text: &'a str, statements: &[Statement], no_transaction: bool) -> Result<Checked<'a>, Refusal> {
    let (mut blanks, command) = meta_commands(text, statements);
    let control = Control::of(text, statements);
    let (kept, dropped) =
        if no_transaction { in_parts(statements, &control) } else { in_one(text, statements, &control)? };
    for dropped in dropped {
        blanks.push((dropped.start, dropped.end));
        blanks.extend(semicolon(text, dropped));
    }
    let statement =
        statements.iter().enumerate().filter(|&(index, _)| !control.holds(index)).find_map(|(index, statement)| {
            let Finding { offset, reason, hint } =
                finding::find(statement.text(text), no_transaction && !control.encloses(index))?;
            Some(Refusal { offset: statement.start + offset, statement: Some(index), reason, hint })
        });
    // The first in the text: behind a COPY come rows, in which anything may look like a command.
    if let Some(refusal) = command.into_iter().chain(statement).min_by_key(|refusal| refusal.offset) {
        return Err(refusal);
    }
    let text = if blanks.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(blank(text, &blanks)) };
    Ok(Checked { text, statements: kept })
}

/// The statements that run, and those that are blanked.
type Kept<'s> = (Vec<Statement>, Vec<&'s Statement>);

/// Leaves out the transactions of a file that runs in one.
fn in_one<'s>(text: &str, statements: &'s [Statement], control: &Control) -> Result<Kept<'s>, Refusal> {
    let refuse = |index: usize, reason: String, hint| {
        let offset = statements[index].start;
        Err(Refusal { offset, statement: Some(index), reason, hint })
    };
    if let Some(index) = control.commit_before_more(statements) {
        let word = Words::of(statements[index].text(text));
        return refuse(
            index,
            format!("{} inside of a migration", word.at(0)),
            "split the file in two, or put `-- pgfleet: no-transaction` at the top of a migration: each BEGIN … COMMIT is a \
             transaction then, and so is each statement outside of them",
        );
    }
    for &(index, _) in &control.blocks {
        let begin = Words::of(statements[index].text(text));
        if !begin.options().is_empty() {
            return refuse(
                index,
                format!(
                    "the file's own {} has options, and the transaction around a migration is the runner's",
                    begin.at(0)
                ),
                "remove BEGIN and COMMIT; SET TRANSACTION as the first statement sets the isolation level",
            );
        }
    }
    let (dropped, kept): (Vec<_>, Vec<_>) = statements.iter().enumerate().partition(|&(index, _)| control.holds(index));
    Ok((
        kept.into_iter().map(|(_, statement)| statement.clone()).collect(),
        dropped.into_iter().map(|(_, statement)| statement).collect(),
    ))
}

/// Makes one statement of each transaction of a file that runs in several.
fn in_parts<'s>(statements: &'s [Statement], control: &Control) -> Kept<'s> {
    let (mut kept, mut dropped) = (Vec::with_capacity(statements.len()), Vec::new());
    let mut blocks = control.blocks.iter();
    let mut index = 0;
    let mut block = blocks.next();
    while let Some(statement) = statements.get(index) {
        if let Some(&(begin, end)) = block
            && begin == index
        {
            kept.push(statement.through(&statements[end]));
            block = blocks.next();
            index = end;
        } else if control.loose.binary_search(&index).is_ok() {
            dropped.push(statement);
        } else {
            kept.push(statement.clone());
        }
        index += 1;
    }
    (kept, dropped)
}

/// Finds psql's commands: the two that pg_dump puts around its output, which are to be blanked, and the first other one.
fn meta_commands(text: &str, statements: &[Statement]) -> (Vec<(usize, usize)>, Option<Refusal>) {
    let mut blanks = Vec::new();
    // A backslash is rare, and looking for one is much faster than cutting tokens.
    if !text.contains('\\') {
        return (blanks, None);
    }
    for token in lexer::tokens(text).filter(|token| token.kind == TokenKind::MetaCommand) {
        if !is_restrict(token.text(text)) {
            return (blanks, Some(refuse_command(text, token, statements)));
        }
        blanks.push((token.start, token.end));
    }
    (blanks, None)
}

fn refuse_command(text: &str, token: Token, statements: &[Statement]) -> Refusal {
    let command = token.text(text).split_whitespace().next().unwrap_or("\\");
    Refusal {
        offset: token.start,
        statement: statements.iter().position(|s| (s.start..s.end).contains(&token.start)),
        reason: format!("`{command}` is a command of psql, not SQL"),
        hint: match command {
            "\\i" | "\\ir" | "\\include" | "\\include_relative" => {
                "put the text of the included file here, or make it a migration of its own"
            }
            "\\connect" | "\\c" => "a migration runs in the database of its target: remove the line",
            "\\copy" => "write the rows as INSERT statements",
            "\\set" => "give the value in the manifest and write it as :'name' or :\"name\"",
            _ => "remove the line: files are sent to the server, not run by psql",
        },
    }
}

/// Whether a psql command is one of those that newer versions of pg_dump write around a dump.
pub(crate) fn is_restrict(command: &str) -> bool {
    matches!(command.split_whitespace().next(), Some("\\restrict" | "\\unrestrict"))
}

/// The semicolon that ends a statement.
fn semicolon(text: &str, statement: &Statement) -> Option<(usize, usize)> {
    let rest = &text[statement.end..];
    let token = lexer::significant(rest).find(|token| token.kind == TokenKind::Semicolon)?;
    statement.terminated.then_some((statement.end + token.start, statement.end + token.end))
}

/// Puts spaces in place of the ranges, byte for byte; line ends stay.
fn blank(text: &str, ranges: &[(usize, usize)]) -> String {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable();
    let mut blanked = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in ranges {
        // A line of pg_dump can stand inside of a BEGIN that is blanked.
        let (start, end) = (start.max(done), end.max(done));
        blanked.push_str(&text[done..start]);
        blanked.extend(text[start..end].bytes().map(|b| if matches!(b, b'\n' | b'\r') { char::from(b) } else { ' ' }));
        done = end;
    }
    blanked.push_str(&text[done..]);
    blanked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::tests::tricky_text;
    use crate::statement::split;
    use proptest::prelude::*;

    fn checked(text: &str) -> Result<(String, usize), Refusal> {
        check(text, &split(text).unwrap()).map(|c| (c.text.into_owned(), c.statements.len()))
    }

    fn refused(text: &str) -> (usize, Option<usize>, String) {
        let refusal = checked(text).unwrap_err();
        assert!(!refusal.hint().is_empty());
        (refusal.offset, refusal.statement, refusal.reason)
    }

    #[test]
    fn plain_migrations_are_borrowed_as_they_are() {
        let text = "create table t (a int); insert into t values (1); savepoint s; rollback to s; rollback work to savepoint s; release s";
        let statements = split(text).unwrap();
        let checked = check(text, &statements).unwrap();
        assert!(matches!(checked.text, Cow::Borrowed(_)));
        assert_eq!(checked.statements, statements);
    }

    #[test]
    fn a_transaction_around_everything_is_blanked() {
        let (text, count) = checked("/* a */ BEGIN\nwork; select 1; -- x\nCOMMIT /* b */ ;").unwrap();
        assert_eq!((text.as_str(), count), ("/* a */      \n      select 1; -- x\n       /* b */  ", 1));
        assert_eq!(
            checked("begin\n\\restrict ä\nwork; commit").unwrap(),
            ("     \n            \n            ".into(), 0)
        );
        assert_eq!(checked("start transaction; end").unwrap(), (" ".repeat(22), 0));
        assert_eq!(checked("begin; select 1; commit and no chain").unwrap().1, 1);
    }

    #[test]
    fn other_transaction_control_is_refused_where_it_stands() {
        assert_eq!(
            refused("begin; select 1; commit; begin; select 2; commit"),
            (17, Some(2), "COMMIT inside of a migration".into())
        );
        assert_eq!(refused("select 1; end; select 2"), (10, Some(1), "END inside of a migration".into()));
        assert_eq!(refused("begin"), (0, Some(0), "BEGIN inside of a migration".into()));
        for command in [
            "begin",
            "start transaction",
            "commit",
            "end",
            "abort",
            "rollback",
            "rollback and chain",
            "prepare transaction 'a'",
            "commit prepared 'a'",
            "rollback prepared 'a'",
            "commit and chain",
        ] {
            let (offset, statement, reason) = refused(&format!("select 1; {command}; select 2"));
            assert_eq!((offset, statement), (10, Some(1)), "{command}");
            assert!(reason.ends_with(" inside of a migration"), "{reason}");
        }
        assert!(refused("begin isolation level serializable; select 1; commit").2.contains("options"));
        assert!(checked("prepare p as select 1; select 2").is_ok());
    }

    #[test]
    fn a_commit_that_nothing_follows_is_the_runners() {
        let (text, count) = checked("select 1;\nbegin; select 2; begin; select 3; end;\ncommit; -- x").unwrap();
        assert_eq!((text.as_str(), count), ("select 1;\n       select 2;        select 3;     \n        -- x", 3));
        assert_eq!(checked("select 1; commit").unwrap(), ("select 1;       ".into(), 1));
        assert_eq!(refused("commit; commit").0, 0);
    }

    fn in_parts(text: &str) -> Result<(String, Vec<String>), Refusal> {
        let checked = check_no_transaction(text, &split(text).unwrap())?;
        let parts = checked.statements.iter().map(|s| s.text(&checked.text).to_owned()).collect();
        Ok((checked.text.into_owned(), parts))
    }

    #[test]
    fn without_a_transaction_each_block_is_one_statement() {
        let text = "select 0; begin isolation level serializable; select 1; savepoint a; end; commit; select 2; begin; begin; commit";
        let (sent, parts) = in_parts(text).unwrap();
        assert_eq!(sent, text.replace(" commit; select 2", "         select 2"));
        assert_eq!(
            parts,
            [
                "select 0",
                "begin isolation level serializable; select 1; savepoint a; end",
                "select 2",
                "begin; begin; commit"
            ]
        );
        assert_eq!(in_parts("create index concurrently i on t (a)").unwrap().1.len(), 1);
    }

    /// Quadratic time would not end here.
    #[test]
    fn many_blocks_take_no_longer_for_each() {
        let blocks = 100_000;
        let text = "begin; select 1; begin; commit; commit;".repeat(blocks);
        let statements = split(&text).unwrap();
        assert_eq!(check_no_transaction(&text, &statements).unwrap().statements.len(), blocks);
        assert_eq!(check(&text, &statements).unwrap_err().statement, Some(3));
    }

    #[test]
    fn without_a_transaction_other_control_is_refused() {
        for text in ["begin; select 1", "savepoint a", "release a", "rollback to a", "rollback", "commit and chain"] {
            let refusal = in_parts(text).unwrap_err();
            assert_eq!(refusal.offset, 0);
            assert!(refusal.hint().contains("annotation"));
        }
        assert_eq!(in_parts("begin; rollback; commit").unwrap_err().statement, Some(1));
        assert_eq!(in_parts("begin; discard all; commit").unwrap_err().offset, 7);
    }

    #[test]
    fn copying_through_the_client_is_refused() {
        assert_eq!(
            refused("copy t (a, \"from\") from stdin;"),
            (24, Some(0), "COPY FROM stdin waits for rows that nobody sends".into())
        );
        assert_eq!(refused("select 1; Copy t From /* x */ STDIN with (format csv)").0, 30);
        assert!(refused("copy (select 1 from stdin) to stdout").2.contains("stdout"));
        assert!(
            checked("copy t from '/tmp/stdin'; copy t from program 'cat'; copy (select a from stdin) to '/tmp/x'")
                .is_ok()
        );
    }

    #[test]
    fn commands_of_psql_are_refused_but_for_those_of_pg_dump() {
        let text = "\\restrict 1aB\n\nselect 1;\n\\unrestrict 1aB\n";
        assert_eq!(checked(text).unwrap(), (format!("{}\n\nselect 1;\n{}\n", " ".repeat(13), " ".repeat(15)), 1));
        assert_eq!(refused("select 1;\n\\i x.sql\n"), (10, None, "`\\i` is a command of psql, not SQL".into()));
        assert_eq!(refused("select 1 \\gexec\n").1, None);
        assert_eq!(refused("select \\gset\n 1").1, Some(0));
        assert!(checked("select '\\d', E'\\\\', $$\\d$$ -- \\d\n/* \\d */").is_ok());
    }

    #[test]
    fn rows_behind_a_copy_blame_the_copy() {
        assert!(refused("copy t from stdin;\n1\t2\n\\.\nselect 1;").2.starts_with("COPY"));
        assert!(refused("\\c x\ncopy t from stdin;\n\\.\n").2.starts_with("`\\c`"));
    }

    #[test]
    fn the_session_is_left_alone() {
        for text in [
            "discard all",
            "DISCARD PLANS",
            "set session authorization x",
            "set session session authorization default",
            "set local session authorization x",
            "reset session authorization",
            "set session_authorization to x",
            "set local session_authorization = x",
            "set \"session_authorization\" to x",
            "reset session_authorization",
        ] {
            assert_eq!(refused(text).0, 0, "{text}");
        }
        assert!(checked("set search_path to session; set local role x; reset all; set session characteristics as transaction read write").is_ok());
    }

    #[test]
    fn the_release_of_locks_is_refused() {
        assert_eq!(refused("select pg_advisory_unlock(1)").0, 7);
        assert_eq!(refused("select pg_catalog.\"pg_advisory_unlock_all\" ()").0, 18);
        assert_eq!(refused("select 1; do $a$ begin perform PG_ADVISORY_UNLOCK_SHARED(1); end $a$").0, 31);
        assert_eq!(refused("do 'begin perform pg_advisory_unlock_all(); end'").0, 18);
        assert!(checked("select 'pg_advisory_unlock(1)', pg_advisory_xact_lock(1), pg_advisory_unlock from t").is_ok());
        assert!(checked("create function f() returns bool language sql as $$ select pg_advisory_unlock(1) $$").is_ok());
    }

    proptest! {
        #[test]
        fn what_is_checked_keeps_its_length_and_its_statements(text in tricky_text(), wrap in any::<bool>()) {
            let text = if wrap { format!("begin;\\restrict ä\n{text};commit;") } else { text };
            if let Ok(statements) = split(&text) {
                if let Ok(checked) = check_no_transaction(&text, &statements) {
                    prop_assert_eq!(checked.text.len(), text.len());
                    prop_assert!(checked.statements.array_windows().all(|[a, b]| a.end <= b.start));
                }
                if let Ok(checked) = check(&text, &statements) {
                    prop_assert_eq!(checked.text.len(), text.len());
                    prop_assert_eq!(split(&checked.text).unwrap(), checked.statements);
                }
            }
        }
    }
}
