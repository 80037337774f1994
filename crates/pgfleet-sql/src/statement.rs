//! Cuts a text into the statements that the server sees in it.
//!
//! Progress, resume points and the naming of a failed statement count on this: the result has exactly one entry for
//! each statement that the server answers. Statements are not parsed any further than that takes.

use crate::lexer::{self, Token, TokenKind};
use thiserror::Error;

/// One statement of a text, given by its byte range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The first byte of its first token.
    pub start: usize,
    /// The byte after its last token, the semicolon not counted.
    pub end: usize,
    /// Whether a semicolon follows; only the last statement of a text can do without.
    pub terminated: bool,
    keyword: String,
}

impl Statement {
    /// Returns the words that say what kind of statement it is, in upper case: `INSERT`, `CREATE UNIQUE INDEX`.
    ///
    /// Empty when the statement does not begin with a word.
    pub fn keyword(&self) -> &str {
        &self.keyword
    }

    /// Returns the statement's part of the text it was split from.
    pub fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start..self.end]
    }

    /// Makes one of this statement, another behind it, and what is between.
    pub(crate) fn through(&self, last: &Self) -> Self {
        Self { start: self.start, end: last.end, terminated: last.terminated, keyword: self.keyword.clone() }
    }
}

/// What a text lacks to be a sequence of statements.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyntaxErrorKind {
    /// A block comment is not closed.
    OpenComment,
    /// A string is not closed.
    OpenQuote,
    /// A dollar-quoted string is not closed.
    OpenDollarQuote {
        /// What stands between the dollar signs, often nothing.
        tag: String,
    },
    /// A quoted identifier is not closed.
    OpenIdentifier,
    /// An opening parenthesis is not closed.
    OpenParen,
    /// A closing parenthesis has no partner.
    CloseParen,
    /// The body that `BEGIN ATOMIC` opens has no `END`.
    OpenBody,
}

/// A text that cannot be cut into statements.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// The byte where the thing that is never closed begins.
    pub offset: usize,
    /// What is wrong, for programs.
    pub kind: SyntaxErrorKind,
    copy_before: bool,
}

impl SyntaxError {
    /// Returns what to do about it.
    pub fn hint(&self) -> String {
        if self.copy_before {
            return "the rows after `COPY … FROM stdin` are not SQL: write them as INSERT statements (pg_dump --inserts)".into();
        }
        match &self.kind {
            SyntaxErrorKind::OpenComment => "block comments nest: each `/*` needs a `*/` of its own".into(),
            SyntaxErrorKind::OpenQuote => {
                "close the string with `'`; a quote inside of it is written twice, a backslash escapes only in E'…'"
                    .into()
            }
            SyntaxErrorKind::OpenDollarQuote { tag } => {
                format!("close the string with `${tag}$`, in the same upper and lower case")
            }
            SyntaxErrorKind::OpenIdentifier => "close the name with `\"`; a quote inside of it is written twice".into(),
            SyntaxErrorKind::OpenParen => "close the parenthesis before the statement's semicolon".into(),
            SyntaxErrorKind::CloseParen => "remove the parenthesis or open it in the same statement".into(),
            SyntaxErrorKind::OpenBody => "close the body with `END`, after the semicolon of its last statement".into(),
        }
    }

    fn new(kind: SyntaxErrorKind, offset: usize, copy_before: bool) -> Self {
        let message = match &kind {
            SyntaxErrorKind::OpenComment => "the comment that begins here is not closed".into(),
            SyntaxErrorKind::OpenQuote => "the string that begins here is not closed".into(),
            SyntaxErrorKind::OpenDollarQuote { tag } => format!("the string that `${tag}$` begins here is not closed"),
            SyntaxErrorKind::OpenIdentifier => "the quoted name that begins here is not closed".into(),
            SyntaxErrorKind::OpenParen => "the parenthesis that opens here is not closed".into(),
            SyntaxErrorKind::CloseParen => "the parenthesis that closes here was never opened".into(),
            SyntaxErrorKind::OpenBody => "the function body that begins here has no END".into(),
        };
        Self { message, offset, kind, copy_before }
    }
}

/// Splits a text into its statements.
///
/// Semicolons inside of quotes, comments, parentheses and `BEGIN ATOMIC … END` bodies do not end a statement. Empty
/// statements are left out, as the server does not answer them with a completion. Lines of psql commands count as
/// comments here; [`check`](crate::check) judges them.
///
/// # Errors
///
/// If the text ends inside a comment, a quote, a parenthesis or a body, the error gives the place where that began.
pub fn split(text: &str) -> Result<Vec<Statement>, SyntaxError> {
    let mut statements: Vec<Statement> = Vec::new();
    let mut scan = Scan::default();
    for token in lexer::tokens(text) {
        if token.kind.is_trivia() || token.kind == TokenKind::MetaCommand {
            continue;
        }
        match scan.take(text, token) {
            Ok(false) => {}
            Ok(true) => statements.extend(scan.finish(text, true)),
            Err((kind, offset)) => return Err(SyntaxError::new(kind, offset, copies_rows(text, &statements))),
        }
    }
    if let Some((kind, offset)) = scan.open() {
        return Err(SyntaxError::new(kind, offset, copies_rows(text, &statements)));
    }
    statements.extend(scan.finish(text, false));
    Ok(statements)
}

/// Whether one of the statements reads rows from the client: what follows it is data then, which looks like anything.
fn copies_rows(text: &str, statements: &[Statement]) -> bool {
    statements.iter().any(|s| s.keyword() == "COPY" && crate::check::copy_through_client(s.text(text)).is_some())
}

/// The statement being read.
#[derive(Default)]
struct Scan {
    start: Option<usize>,
    end: usize,
    /// Where the parentheses opened that are open now.
    parens: Vec<usize>,
    /// Where the bodies began that are open now.
    bodies: Vec<usize>,
    /// How far the words `CREATE [OR REPLACE] FUNCTION|PROCEDURE` have come, in the body's statement if in one.
    routine: Routine,
    previous: Previous,
    /// The start of a `BEGIN` that was the token before.
    begin: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Routine {
    #[default]
    Start,
    Create,
    Or,
    Replace,
    Yes,
    No,
}

/// What the token before was, as far as the end of a body depends on it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Previous {
    #[default]
    Other,
    Begin,
    /// `ATOMIC` after `BEGIN`, or a semicolon inside the body: only here can `END` close it. A `CASE … END` or a column
    /// called `end` never follows a semicolon, so that they need no counting.
    Boundary,
}

impl Scan {
    /// Takes the next token and says whether it ended the statement.
    fn take(&mut self, text: &str, token: Token) -> Result<bool, (SyntaxErrorKind, usize)> {
        if token.kind == TokenKind::Semicolon && self.parens.is_empty() {
            if self.bodies.is_empty() {
                return Ok(true);
            }
            self.end = token.end;
            self.previous = Previous::Boundary;
            self.routine = Routine::Start;
            return Ok(false);
        }
        self.start.get_or_insert(token.start);
        self.end = token.end;
        let previous = std::mem::take(&mut self.previous);
        match token.kind {
            TokenKind::OpenParen => self.parens.push(token.start),
            TokenKind::CloseParen if self.parens.pop().is_none() => {
                return Err((SyntaxErrorKind::CloseParen, token.start));
            }
            TokenKind::Identifier if self.parens.is_empty() => self.word(text, token, previous),
            TokenKind::UnterminatedComment => return Err((SyntaxErrorKind::OpenComment, token.start)),
            TokenKind::UnterminatedString => return Err((SyntaxErrorKind::OpenQuote, token.start)),
            TokenKind::UnterminatedIdentifier => return Err((SyntaxErrorKind::OpenIdentifier, token.start)),
            TokenKind::UnterminatedDollar => {
                let tag = token.text(text)[1..].split('$').next().unwrap_or_default().to_owned();
                return Err((SyntaxErrorKind::OpenDollarQuote { tag }, token.start));
            }
            _ => {}
        }
        if token.kind != TokenKind::Identifier && self.routine != Routine::Yes {
            self.routine = Routine::No;
        }
        Ok(false)
    }

    fn word(&mut self, text: &str, token: Token, previous: Previous) {
        let is = |word| token.is_word(text, word);
        if previous == Previous::Boundary && is("end") {
            self.bodies.pop();
            self.routine = Routine::No;
            return;
        }
        self.routine = match self.routine {
            Routine::Start if is("create") => Routine::Create,
            Routine::Create if is("or") => Routine::Or,
            Routine::Or if is("replace") => Routine::Replace,
            Routine::Create | Routine::Replace if is("function") || is("procedure") => Routine::Yes,
            Routine::Yes => Routine::Yes,
            _ => Routine::No,
        };
        if self.routine != Routine::Yes {
            return;
        }
        if is("begin") {
            self.previous = Previous::Begin;
            self.begin = token.start;
        } else if previous == Previous::Begin && is("atomic") {
            self.bodies.push(self.begin);
            self.previous = Previous::Boundary;
            // Only a routine made inside of the body has one of its own: `SELECT begin atomic FROM t` is a column.
            self.routine = Routine::Start;
        }
    }

    /// What is still open at the end of the text.
    fn open(&self) -> Option<(SyntaxErrorKind, usize)> {
        let paren = self.parens.first().map(|&offset| (SyntaxErrorKind::OpenParen, offset));
        paren.or_else(|| self.bodies.first().map(|&offset| (SyntaxErrorKind::OpenBody, offset)))
    }

    /// Ends the statement, if there is one, and makes ready for the next.
    fn finish(&mut self, text: &str, terminated: bool) -> Option<Statement> {
        let scan = std::mem::take(self);
        let start = scan.start?;
        Some(Statement { start, end: scan.end, terminated, keyword: keyword(&text[start..scan.end]) })
    }
}

/// The words after `CREATE`, `ALTER` and `DROP` that belong to the kind of the statement.
const OBJECT_WORDS: &[&str] = &[
    "OR",
    "REPLACE",
    "UNIQUE",
    "TEMP",
    "TEMPORARY",
    "LOCAL",
    "GLOBAL",
    "UNLOGGED",
    "MATERIALIZED",
    "RECURSIVE",
    "FOREIGN",
    "EVENT",
    "CONSTRAINT",
    "DEFAULT",
    "TRUSTED",
    "PROCEDURAL",
];

/// The words that end the kind of a statement about an object.
const OBJECTS: &[&str] = &[
    "ACCESS",
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "CONVERSION",
    "DATABASE",
    "DOMAIN",
    "EXTENSION",
    "FUNCTION",
    "GROUP",
    "INDEX",
    "LANGUAGE",
    "OPERATOR",
    "OWNED",
    "POLICY",
    "PRIVILEGES",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "ROUTINE",
    "RULE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "SYSTEM",
    "TABLE",
    "TABLESPACE",
    "TEXT",
    "TRANSFORM",
    "TRIGGER",
    "TYPE",
    "USER",
    "VIEW",
];

fn keyword(statement: &str) -> String {
    let mut words = lexer::significant(statement)
        .map_while(|t| (t.kind == TokenKind::Identifier).then(|| t.text(statement).to_ascii_uppercase()));
    let Some(mut keyword) = words.next() else {
        return String::new();
    };
    if matches!(keyword.as_str(), "CREATE" | "ALTER" | "DROP") {
        for word in words {
            let object = OBJECTS.contains(&word.as_str());
            if object || OBJECT_WORDS.contains(&word.as_str()) {
                keyword.push(' ');
                keyword.push_str(&word);
            }
            if object || !OBJECT_WORDS.contains(&word.as_str()) {
                break;
            }
        }
    }
    keyword
}

#[cfg(test)]
mod tests;
