//! What a migration file says about itself, in comments at its top.
//!
//! `-- pgfleet: no-transaction`, `-- pgfleet: lock_timeout=10s` and `-- pgfleet: requires identity@3` are read from the
//! comments before the first statement; so is sqlx's `-- no-transaction` on the first line. An annotation that is
//! misspelt or stands too late would be a comment that does nothing, so both are errors.

use crate::lexer::{self, Token, TokenKind};
use std::time::Duration;
use thiserror::Error;

/// What the annotations of a file ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The file runs outside of a transaction, statement by statement.
    pub no_transaction: bool,
    /// How long the file waits for a lock before it is tried again; zero waits for ever.
    pub lock_timeout: Option<Duration>,
    /// What must be applied before, in the order of the file.
    pub requires: Vec<Requirement>,
}

impl Annotations {
    /// Adds what another part of the same file says; a lock timeout given there wins.
    pub(crate) fn merge(&mut self, other: Self) {
        self.no_transaction |= other.no_transaction;
        self.lock_timeout = other.lock_timeout.or(self.lock_timeout);
        self.requires.extend(other.requires);
    }

    /// The annotations in the one form that the checksum is taken of.
    pub(crate) fn normalised(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.no_transaction {
            lines.push("no-transaction".to_owned());
        }
        if let Some(timeout) = self.lock_timeout {
            lines.push(format!("lock_timeout={}", timeout.as_millis()));
        }
        let mut requires: Vec<_> = self.requires.iter().map(|r| format!("requires {}@{}", r.set, r.version)).collect();
        requires.sort();
        requires.dedup();
        lines.extend(requires);
        lines
    }
}

/// A version of another set that must be applied before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The name of the set.
    pub set: String,
    /// The version, as written.
    pub version: String,
}

/// An annotation that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct AnnotationError {
    /// What is wrong.
    pub message: String,
    /// The byte of the text where it is.
    pub offset: usize,
    hint: String,
}

impl AnnotationError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

const KNOWN: [&str; 3] = ["no-transaction", "lock_timeout", "requires"];
const FORMS: &str = "known are `no-transaction`, `lock_timeout=10s` and `requires set@version`";

/// Reads the annotations of a text.
///
/// # Errors
///
/// If an annotation is unknown, malformed, given twice, or stands behind the first statement.
pub fn parse(text: &str) -> Result<Annotations, AnnotationError> {
    let mut annotations =
        Annotations { no_transaction: text.starts_with("-- no-transaction"), ..Annotations::default() };
    let mut at_top = true;
    let mut named = false;
    for token in lexer::tokens(text) {
        if token.kind != TokenKind::LineComment {
            at_top &= token.kind.is_trivia();
            continue;
        }
        let Some((offset, body)) = body(text, token) else {
            continue;
        };
        let fail = |message: String, hint: String| AnnotationError { message, offset, hint };
        if !at_top {
            let hint = "annotations stand at the top of the file, before the first statement".to_owned();
            return Err(fail(format!("the annotation `{body}` comes too late"), hint));
        }
        let word_end = body.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(body.len());
        let (word, rest) = body.split_at(word_end);
        let rest = rest.trim();
        match word {
            "no-transaction" if !rest.is_empty() => {
                return Err(fail(
                    "`no-transaction` takes no value".into(),
                    "write `-- pgfleet: no-transaction`".into(),
                ));
            }
            "no-transaction" if named => return Err(twice(word, fail)),
            "no-transaction" => {
                named = true;
                annotations.no_transaction = true;
            }
            "lock_timeout" if annotations.lock_timeout.is_some() => return Err(twice(word, fail)),
            "lock_timeout" => {
                let value = rest.strip_prefix('=').unwrap_or(rest).trim();
                let timeout = parse_duration(value).and_then(server_duration);
                annotations.lock_timeout =
                    Some(timeout.map_err(|message| fail(message, "write `-- pgfleet: lock_timeout=10s`".into()))?);
            }
            "requires" => {
                let requirements = requirements(rest.strip_prefix('=').unwrap_or(rest));
                let form = || "write `-- pgfleet: requires identity@3`".to_owned();
                annotations.requires.extend(requirements.map_err(|message| fail(message, form()))?);
            }
            "" => return Err(fail("the annotation is empty".into(), FORMS.into())),
            _ => {
                let hint = closest(word).map_or_else(|| FORMS.to_owned(), |name| format!("did you mean `{name}`?"));
                return Err(fail(format!("unknown annotation `{word}`"), hint));
            }
        }
    }
    Ok(annotations)
}

fn twice(word: &str, fail: impl Fn(String, String) -> AnnotationError) -> AnnotationError {
    fail(format!("`{word}` is given twice"), "keep one of them".into())
}

/// What follows `-- pgfleet:` in a comment, and where the comment is.
fn body(text: &str, comment: Token) -> Option<(usize, &str)> {
    let said = comment.text(text).trim_start_matches('-').trim();
    let prefix = said.get(..8).filter(|prefix| prefix.eq_ignore_ascii_case("pgfleet:"))?;
    Some((comment.start, said[prefix.len()..].trim()))
}

fn requirements(list: &str) -> Result<Vec<Requirement>, String> {
    let part = |part: &str| match part.trim().split_once('@') {
        Some((set, version))
            if !set.is_empty() && !version.is_empty() && !part.trim().contains(char::is_whitespace) =>
        {
            Ok(Requirement { set: set.to_owned(), version: version.to_owned() })
        }
        _ => Err(format!("`{}` does not name a set and a version", part.trim())),
    };
    list.split(',').map(part).collect()
}

/// Reads a duration: digits and one of `ms`, `s`, `min`, `h` and `d`; zero needs no unit.
///
/// # Errors
///
/// If the text is anything else, the message says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let expected = || format!("`{text}` is not a duration, such as 500ms, 10s, 5min or 1h");
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let millis: u64 = match unit.trim() {
        "" if number == 0 => 1,
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("`{text}` has no unit, such as {text}ms, {text}s or {text}min")),
        "m" => return Err(format!("`{text}` could be minutes or months: write {digits}min")),
        _ => return Err(expected()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

/// The server counts timeouts in milliseconds, in 31 bits.
fn server_duration(duration: Duration) -> Result<Duration, String> {
    if duration.as_millis() > i32::MAX as u128 {
        return Err("a lock timeout is at most 24 days".into());
    }
    Ok(duration)
}

/// The known annotation that somebody who wrote `word` meant.
fn closest(word: &str) -> Option<&'static str> {
    let plain = |s: &str| s.to_ascii_lowercase().replace('_', "-");
    let word = plain(word);
    let (distance, name) = KNOWN.iter().map(|name| (distance(&word, &plain(name)), *name)).min()?;
    (distance <= name.len() / 3 || (word.len() > 3 && plain(name).starts_with(&word))).then_some(name)
}

/// The number of edits between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
