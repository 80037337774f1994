//! What a migration file must not hold, because the runner could not keep its promises around it.
//!
//! The runner puts a file, its history row and the commit into one message. A `COMMIT` in the middle, a `COPY` that
//! waits for rows or a released lock would break that without the server saying so; this module finds them before
//! anything is sent. Whatever the server itself refuses is left to the server.

use crate::lexer::{self, Token, TokenKind};
use crate::statement::Statement;
use std::borrow::Cow;
use thiserror::Error;

/// A text that may run, and the statements that do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The text to send: what the runner does itself is blanked, and every byte offset is that of the original.
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
/// A `BEGIN` and a `COMMIT` around everything stand for the runner's own and are blanked, as are the `\restrict` lines
/// of `pg_dump`. Savepoints are allowed.
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
/// # Errors
///
/// As for [`check`], and any transaction control is refused.
pub fn check_no_transaction<'a>(text: &'a str, statements: &[Statement]) -> Result<Checked<'a>, Refusal> {
    run(text, statements, true)
}

fn run<'a>(text: &'a str, statements: &[Statement], no_transaction: bool) -> Result<Checked<'a>, Refusal> {
    // The data lines after a `COPY … FROM stdin` end with `\.`, which looks like a command of psql: what stands first is
    // the cause.
    let (mut blanks, meta_command) = match meta_commands(text, statements) {
        Ok(blanks) => (blanks, None),
        Err(refusal) => (Vec::new(), Some(refusal)),
    };
    let mut kept = statements;
    if !no_transaction && let Some(inner) = unwrap_transaction(text, statements)? {
        for dropped in [&statements[0], &statements[statements.len() - 1]] {
            blanks.push((dropped.start, dropped.end));
            blanks.extend(semicolon(text, dropped));
        }
        kept = inner;
    }
    let first = usize::from(kept.len() != statements.len());
    for (index, statement) in kept.iter().enumerate() {
        let words = Words::of(statement.text(text));
        let finding = transaction_control(&words, no_transaction)
            .or_else(|| copy(statement.text(text)))
            .or_else(|| session(&words))
            .or_else(|| unlock(statement.text(text), &words));
        if let Some(Finding { offset, reason, hint }) = finding {
            let found = Refusal { offset: statement.start + offset, statement: Some(first + index), reason, hint };
            return Err(match meta_command {
                Some(earlier) if earlier.offset < found.offset => earlier,
                _ => found,
            });
        }
    }
    if let Some(refusal) = meta_command {
        return Err(refusal);
    }
    let text = if blanks.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(blank(text, &blanks)) };
    Ok(Checked { text, statements: kept.to_vec() })
}

/// Something refused inside of a statement.
struct Finding {
    offset: usize,
    reason: String,
    hint: &'static str,
}

impl Finding {
    fn new(offset: usize, reason: impl Into<String>, hint: &'static str) -> Self {
        Self { offset, reason: reason.into(), hint }
    }
}

/// The leading words of a statement in upper case, as many as telling statements apart takes.
struct Words(Vec<String>);

impl Words {
    fn of(statement: &str) -> Self {
        let words = lexer::significant(statement).take(5).map(|t| {
            if t.kind == TokenKind::Identifier {
                t.text(statement).to_ascii_uppercase()
            } else {
                t.text(statement).to_owned()
            }
        });
        Self(words.collect())
    }

    fn at(&self, index: usize) -> &str {
        self.0.get(index).map_or("", String::as_str)
    }

    /// The words after the first, without the noise that transaction commands allow.
    fn options(&self) -> &[String] {
        let noise = usize::from(matches!(self.at(1), "WORK" | "TRANSACTION"));
        self.0.get(1 + noise..).unwrap_or_default()
    }

    fn begins_transaction(&self) -> bool {
        self.at(0) == "BEGIN" || (self.at(0) == "START" && self.at(1) == "TRANSACTION")
    }

    fn commits(&self) -> bool {
        matches!(self.at(0), "COMMIT" | "END")
            && (self.options().is_empty() || self.options().iter().map(String::as_str).eq(["AND", "NO", "CHAIN"]))
    }
}

/// The statements between the `BEGIN` and the `COMMIT` of a file that puts these around everything.
fn unwrap_transaction<'s>(text: &str, statements: &'s [Statement]) -> Result<Option<&'s [Statement]>, Refusal> {
    let [first, inner @ .., last] = statements else {
        return Ok(None);
    };
    let begin = Words::of(first.text(text));
    if !begin.begins_transaction() || !Words::of(last.text(text)).commits() {
        return Ok(None);
    }
    if !begin.options().is_empty() {
        return Err(Refusal {
            offset: first.start,
            statement: Some(0),
            reason: format!(
                "the file's own {} has options, and the transaction around a migration is the runner's",
                begin.at(0)
            ),
            hint: "remove BEGIN and COMMIT; SET TRANSACTION as the first statement sets the isolation level",
        });
    }
    Ok(Some(inner))
}

fn transaction_control(words: &Words, no_transaction: bool) -> Option<Finding> {
    const IN_TRANSACTION: &str = "a migration is one transaction, which the runner begins and commits: remove the statement, or split the file in two";
    const OUTSIDE: &str = "each statement of this file runs on its own: remove the statement, or remove the annotation that \
                           says the file runs without a transaction";
    let hint = if no_transaction { OUTSIDE } else { IN_TRANSACTION };
    let name = match words.at(0) {
        "BEGIN" => "BEGIN",
        "START" if words.at(1) == "TRANSACTION" => "START TRANSACTION",
        "COMMIT" if words.at(1) == "PREPARED" => "COMMIT PREPARED",
        "COMMIT" => "COMMIT",
        "END" => "END",
        "ABORT" => "ABORT",
        "PREPARE" if words.at(1) == "TRANSACTION" => "PREPARE TRANSACTION",
        "ROLLBACK" if words.at(1) == "PREPARED" => "ROLLBACK PREPARED",
        "ROLLBACK" if words.options().first().is_some_and(|w| w == "TO") => {
            return no_transaction.then(|| Finding::new(0, "ROLLBACK TO needs a transaction", hint));
        }
        "ROLLBACK" => "ROLLBACK",
        "SAVEPOINT" if no_transaction => "SAVEPOINT",
        "RELEASE" if no_transaction => "RELEASE",
        _ => return None,
    };
    let place = if no_transaction { "in a file that runs without a transaction" } else { "inside of a migration" };
    Some(Finding::new(0, format!("{name} {place}"), hint))
}

fn copy(statement: &str) -> Option<Finding> {
    const ROWS: &str = "write the rows as INSERT statements (pg_dump --inserts --rows-per-insert=1000), or COPY FROM a file or \
                        PROGRAM that the server can read";
    let (token, from) = copy_through_client(statement)?;
    Some(if from {
        Finding::new(token.start, "COPY FROM stdin waits for rows that nobody sends", ROWS)
    } else {
        Finding::new(
            token.start,
            "COPY TO stdout sends rows that nobody reads",
            "remove the statement, or COPY TO a file",
        )
    })
}

/// The `stdin` or `stdout` of a COPY, and whether rows come from the client.
pub(crate) fn copy_through_client(statement: &str) -> Option<(Token, bool)> {
    let mut tokens = lexer::significant(statement);
    tokens.next().filter(|t| t.is_word(statement, "copy"))?;
    let mut depth = 0usize;
    let mut direction = None;
    for token in tokens {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        // The server takes either word in either direction.
        if let Some(from) = direction
            && (token.is_word(statement, "stdin") || token.is_word(statement, "stdout"))
        {
            return Some((token, from));
        }
        direction = match depth {
            0 if token.is_word(statement, "from") => Some(true),
            0 if token.is_word(statement, "to") => Some(false),
            _ => None,
        };
    }
    None
}

fn session(words: &Words) -> Option<Finding> {
    const DISCARD: &str = "remove the statement: the runner resets what a file leaves behind";
    const USER: &str = "a migration runs as the owner of the service: remove the statement; SET LOCAL ROLE changes the role until the commit";
    match words.at(0) {
        "DISCARD" => Some(Finding::new(0, "DISCARD resets the session that holds the migration lock", DISCARD)),
        "SET" | "RESET" if names_session_user(words) => Some(Finding::new(
            0,
            format!("{} SESSION AUTHORIZATION changes the user of the session", words.at(0)),
            USER,
        )),
        _ => None,
    }
}

/// Whether a SET or RESET is about the user of the session, which is a command and a setting.
fn names_session_user(words: &Words) -> bool {
    let scope = usize::from(matches!(words.at(1), "SESSION" | "LOCAL"));
    let setting = |word: &str| word.trim_matches('"').eq_ignore_ascii_case("session_authorization");
    setting(words.at(1))
        || setting(words.at(1 + scope))
        || [1, 1 + scope].iter().any(|&i| words.at(i) == "SESSION" && words.at(i + 1) == "AUTHORIZATION")
}

/// Finds a call that releases advisory locks, also in the code of a `DO`; the code of functions runs some other time.
fn unlock(statement: &str, words: &Words) -> Option<Finding> {
    const HINT: &str =
        "the session's advisory locks are the runner's: use pg_advisory_xact_lock, which the commit releases";
    let is_do = words.at(0) == "DO";
    let mut tokens = lexer::significant(statement).peekable();
    while let Some(token) = tokens.next() {
        let text = token.text(statement);
        let found = match token.kind {
            TokenKind::Identifier => is_unlock(&text.to_ascii_lowercase()).then_some(0),
            TokenKind::QuotedIdentifier => is_unlock(text.trim_matches('"')).then_some(0),
            TokenKind::DollarString | TokenKind::String | TokenKind::EscapeString if is_do => code(text)
                .and_then(|(start, code)| unlock(code, &Words(Vec::new())).map(|finding| start + finding.offset)),
            _ => None,
        };
        let inside = token.kind != TokenKind::Identifier && token.kind != TokenKind::QuotedIdentifier;
        if let Some(offset) = found
            && (inside || tokens.peek().is_some_and(|next| next.kind == TokenKind::OpenParen))
        {
            return Some(Finding::new(
                token.start + offset,
                "a call of pg_advisory_unlock would release the migration lock",
                HINT,
            ));
        }
    }
    None
}

fn is_unlock(name: &str) -> bool {
    name.strip_prefix("pg_advisory_unlock").is_some_and(|rest| matches!(rest, "" | "_all" | "_shared"))
}

/// What is between the quotes of a string, and where that begins.
fn code(string: &str) -> Option<(usize, &str)> {
    let quote = string.find(['\'', '$'])?;
    let length = match string.as_bytes()[quote] {
        b'$' => string[quote + 1..].find('$')? + 2,
        _ => 1,
    };
    let start = quote + length;
    Some((start, string.get(start..string.len().checked_sub(length)?)?))
}

/// Refuses psql's commands, except for the two that pg_dump puts around its output: these are to be blanked.
fn meta_commands(text: &str, statements: &[Statement]) -> Result<Vec<(usize, usize)>, Refusal> {
    // A backslash is rare, and looking for one is much faster than cutting tokens.
    if !text.contains('\\') {
        return Ok(Vec::new());
    }
    let mut blanks = Vec::new();
    for token in lexer::tokens(text).filter(|token| token.kind == TokenKind::MetaCommand) {
        let command = token.text(text).split_whitespace().next().unwrap_or("\\");
        if is_restrict(token.text(text)) {
            blanks.push((token.start, token.end));
            continue;
        }
        return Err(Refusal {
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
        });
    }
    Ok(blanks)
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
        blanked.push_str(&text[done..start]);
        blanked.extend(text[start..end].bytes().map(|b| if matches!(b, b'\n' | b'\r') { char::from(b) } else { ' ' }));
        done = end;
    }
    blanked.push_str(&text[done..]);
    blanked
}

/// Names the kind of a statement that the server runs only outside of a transaction.
///
/// For the hint behind the server's error 25001; what is not known here is `None`, and the server decides.
pub fn needs_no_transaction(statement: &str) -> Option<&'static str> {
    let words: Vec<String> = lexer::significant(statement)
        .map(|t| match t.kind {
            TokenKind::Identifier => t.text(statement).to_ascii_uppercase(),
            TokenKind::OpenParen => "(".into(),
            TokenKind::CloseParen => ")".into(),
            // Neither a name nor a value is a keyword.
            _ => String::new(),
        })
        .take(64)
        .collect();
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let has = |wanted: &str| words.iter().any(|w| w == wanted);
    match (word(0), word(1)) {
        ("CREATE", "INDEX") if word(2) == "CONCURRENTLY" => Some("CREATE INDEX CONCURRENTLY"),
        ("CREATE", "UNIQUE") if word(2) == "INDEX" && word(3) == "CONCURRENTLY" => Some("CREATE INDEX CONCURRENTLY"),
        ("DROP", "INDEX") if word(2) == "CONCURRENTLY" => Some("DROP INDEX CONCURRENTLY"),
        ("REINDEX", _) => reindex(&words),
        ("VACUUM", _) => Some("VACUUM"),
        ("CREATE", "DATABASE") => Some("CREATE DATABASE"),
        ("DROP", "DATABASE") => Some("DROP DATABASE"),
        ("CREATE", "TABLESPACE") => Some("CREATE TABLESPACE"),
        ("DROP", "TABLESPACE") => Some("DROP TABLESPACE"),
        ("ALTER", "SYSTEM") => Some("ALTER SYSTEM"),
        ("ALTER", "DATABASE") if word(3) == "SET" && word(4) == "TABLESPACE" => Some("ALTER DATABASE SET TABLESPACE"),
        ("ALTER", "TABLE") if has("DETACH") && word(words.len() - 1) == "CONCURRENTLY" => {
            Some("DETACH PARTITION CONCURRENTLY")
        }
        ("CLUSTER", _) if cluster_everything(&words) => Some("CLUSTER without a table"),
        ("CREATE", "SUBSCRIPTION") => Some("CREATE SUBSCRIPTION"),
        ("DROP", "SUBSCRIPTION") => Some("DROP SUBSCRIPTION"),
        _ => None,
    }
}

fn reindex(words: &[String]) -> Option<&'static str> {
    let options_end = if words.get(1).is_some_and(|w| w == "(") { words.iter().position(|w| w == ")")? } else { 0 };
    let object = words.get(options_end + 1).map_or("", String::as_str);
    let concurrently = words[..=options_end].iter().any(|w| w == "CONCURRENTLY")
        || words.get(options_end + 2).is_some_and(|w| w == "CONCURRENTLY");
    match object {
        "DATABASE" => Some("REINDEX DATABASE"),
        "SYSTEM" => Some("REINDEX SYSTEM"),
        "SCHEMA" => Some("REINDEX SCHEMA"),
        _ if concurrently => Some("REINDEX CONCURRENTLY"),
        _ => None,
    }
}

fn cluster_everything(words: &[String]) -> bool {
    match words.get(1).map(String::as_str) {
        None => true,
        Some("VERBOSE") => words.len() == 2,
        Some("(") => words.last().is_some_and(|w| w == ")"),
        Some(_) => false,
    }
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
        assert_eq!(checked("start transaction; end").unwrap(), (" ".repeat(22), 0));
        assert_eq!(checked("begin; select 1; commit and no chain").unwrap().1, 1);
    }

    #[test]
    fn other_transaction_control_is_refused_where_it_stands() {
        assert_eq!(
            refused("begin; select 1; commit; begin; select 2; commit"),
            (17, Some(2), "COMMIT inside of a migration".into())
        );
        assert_eq!(refused("select 1; commit"), (10, Some(1), "COMMIT inside of a migration".into()));
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
    fn without_a_transaction_no_control_is_taken_over() {
        for text in ["begin; select 1; commit", "savepoint a", "release a", "rollback to a", "commit"] {
            let refusal = check_no_transaction(text, &split(text).unwrap()).unwrap_err();
            assert_eq!(refusal.offset, 0);
            assert!(refusal.hint().contains("annotation"));
        }
        let text = "create index concurrently i on t (a)";
        assert!(check_no_transaction(text, &split(text).unwrap()).is_ok());
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

    #[test]
    fn statements_that_need_to_be_alone_are_named() {
        for (text, expected) in [
            ("create index concurrently i on t (a)", Some("CREATE INDEX CONCURRENTLY")),
            ("create unique index /* x */ concurrently if not exists i on t (a)", Some("CREATE INDEX CONCURRENTLY")),
            ("create index \"concurrently\" on t (a)", None),
            ("drop index concurrently i", Some("DROP INDEX CONCURRENTLY")),
            ("reindex table concurrently t", Some("REINDEX CONCURRENTLY")),
            ("reindex (verbose, concurrently) index i", Some("REINDEX CONCURRENTLY")),
            ("reindex (verbose) schema s", Some("REINDEX SCHEMA")),
            ("reindex database", Some("REINDEX DATABASE")),
            ("reindex system d", Some("REINDEX SYSTEM")),
            ("reindex table t", None),
            ("vacuum (analyze) t", Some("VACUUM")),
            ("create database d", Some("CREATE DATABASE")),
            ("drop database d", Some("DROP DATABASE")),
            ("create tablespace t location 'x'", Some("CREATE TABLESPACE")),
            ("drop tablespace t", Some("DROP TABLESPACE")),
            ("alter system set a = 1", Some("ALTER SYSTEM")),
            ("alter database d set tablespace t", Some("ALTER DATABASE SET TABLESPACE")),
            ("alter database d set search_path to tablespace", None),
            ("alter table t detach partition p concurrently", Some("DETACH PARTITION CONCURRENTLY")),
            ("alter table t detach partition p", None),
            ("cluster", Some("CLUSTER without a table")),
            ("cluster verbose", Some("CLUSTER without a table")),
            ("cluster (verbose)", Some("CLUSTER without a table")),
            ("cluster (verbose) t", None),
            ("cluster verbose t using i", None),
            ("refresh materialized view concurrently v", None),
            ("", None),
        ] {
            assert_eq!(needs_no_transaction(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_checked_keeps_its_length_and_its_statements(text in tricky_text(), wrap in any::<bool>()) {
            let text = if wrap { format!("begin;\\restrict ä\n{text};commit;") } else { text };
            if let Ok(statements) = split(&text) {
                let _ = check_no_transaction(&text, &statements);
                if let Ok(checked) = check(&text, &statements) {
                    prop_assert_eq!(checked.text.len(), text.len());
                    prop_assert_eq!(split(&checked.text).unwrap(), checked.statements);
                }
            }
        }

        #[test]
        fn any_statement_can_be_asked_about(text in tricky_text()) {
            let _ = needs_no_transaction(&text);
            let _ = needs_no_transaction(&format!("reindex ({text}"));
        }
    }
}
