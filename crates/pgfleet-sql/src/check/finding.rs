//! What a single statement must not be or hold.

use crate::lexer::{self, Token, TokenKind};

/// Something refused inside of a statement.
pub(super) struct Finding {
    pub(super) offset: usize,
    pub(super) reason: String,
    pub(super) hint: &'static str,
}

impl Finding {
    fn new(offset: usize, reason: impl Into<String>, hint: &'static str) -> Self {
        Self { offset, reason: reason.into(), hint }
    }
}

/// The leading words of a statement in upper case, as many as telling statements apart takes.
pub(super) struct Words(Vec<String>);

impl Words {
    pub(super) fn of(statement: &str) -> Self {
        let words = tokens(statement).take(6).map(|t| {
            if t.kind == TokenKind::Identifier {
                t.text(statement).to_ascii_uppercase()
            } else {
                t.text(statement).to_owned()
            }
        });
        Self(words.collect())
    }

    pub(super) fn at(&self, index: usize) -> &str {
        self.0.get(index).map_or("", String::as_str)
    }

    /// The words after the first, without the noise that transaction commands allow.
    pub(super) fn options(&self) -> &[String] {
        let noise = usize::from(matches!(self.at(1), "WORK" | "TRANSACTION"));
        self.0.get(1 + noise..).unwrap_or_default()
    }

    pub(super) fn begins_transaction(&self) -> bool {
        self.at(0) == "BEGIN" || (self.at(0) == "START" && self.at(1) == "TRANSACTION")
    }

    pub(super) fn commits(&self) -> bool {
        matches!(self.at(0), "COMMIT" | "END")
            && (self.options().is_empty() || self.options().iter().map(String::as_str).eq(["AND", "NO", "CHAIN"]))
    }
}

/// The tokens that the server gets to see: psql's lines are blanked, or refused elsewhere.
fn tokens(statement: &str) -> impl Iterator<Item = Token> + '_ {
    lexer::significant(statement).filter(|token| token.kind != TokenKind::MetaCommand)
}

/// Returns the first thing in a statement that is refused.
pub(super) fn find(statement: &str, no_transaction: bool) -> Option<Finding> {
    let words = Words::of(statement);
    transaction_control(&words, no_transaction)
        .or_else(|| copy(statement))
        .or_else(|| session(&words))
        .or_else(|| unlock(statement, &words))
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
    let mut tokens = tokens(statement);
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
    let mut tokens = tokens(statement).peekable();
    while let Some(token) = tokens.next() {
        let text = token.text(statement);
        let found = match token.kind {
            TokenKind::Identifier => is_unlock(text).then_some(0),
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

/// In any case; quoted in upper case it is no function, which the server says as well.
fn is_unlock(name: &str) -> bool {
    ["pg_advisory_unlock", "pg_advisory_unlock_all", "pg_advisory_unlock_shared"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// The texts in a statement's strings, which in a `DO` are code.
pub(super) fn codes(statement: &str) -> impl Iterator<Item = &str> {
    tokens(statement)
        .filter(|token| matches!(token.kind, TokenKind::DollarString | TokenKind::String | TokenKind::EscapeString))
        .filter_map(|token| Some(code(token.text(statement))?.1))
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
