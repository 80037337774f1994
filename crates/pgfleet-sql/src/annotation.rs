//! What a migration file says about itself, in comments at its top.
//!
//! `-- pgfleet: no-transaction`, `-- pgfleet: lock_timeout=10s` and `-- pgfleet: requires identity@3` are read from the
//! comments before the first statement; so is sqlx's `-- no-transaction` on the first line. An annotation that is
//! misspelt or stands too late would be a comment that does nothing, so both are errors.

use crate::check;
use crate::layout::Layout;
use crate::lexer::{self, Token, TokenKind};
use std::time::Duration;
use thiserror::Error;

/// What the annotations of a file ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The file runs outside of a transaction, statement by statement.
    pub no_transaction: bool,
    /// That it does so follows from its statements, and nobody wrote it down. Then it counts in no checksum: which
    /// statements it follows from can change.
    pub implied: bool,
    /// How long the file waits for a lock before it is tried again; zero waits for ever.
    pub lock_timeout: Option<Duration>,
    /// What must be applied before, in the order of the file.
    pub requires: Vec<Requirement>,
}

impl Annotations {
    /// Adds what another part of the same file says; a lock timeout given there wins.
    pub(crate) fn merge(&mut self, other: Self) {
        self.implied = (self.implied || other.implied) && !self.written() && !other.written();
        self.no_transaction |= other.no_transaction;
        self.lock_timeout = other.lock_timeout.or(self.lock_timeout);
        self.requires.extend(other.requires);
    }

    /// Takes down that the file runs outside of a transaction, which stands elsewhere than in an annotation.
    pub(crate) fn run_without_transaction(&mut self) {
        self.no_transaction = true;
        self.implied = false;
    }

    /// Whether somebody wrote that the file runs outside of a transaction.
    fn written(&self) -> bool {
        self.no_transaction && !self.implied
    }

    /// The annotations in the one form that the checksum is taken of.
    pub(crate) fn normalised(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.written() {
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

/// The words of which one is in every file that runs outside of a transaction without saying so.
const TELLTALE: [&str; 12] = [
    "call",
    "cluster",
    "commit",
    "concurrently",
    "database",
    "do",
    "end",
    "reindex",
    "subscription",
    "system",
    "tablespace",
    "vacuum",
];

/// Reads the annotations of a text.
///
/// A text whose statements leave no other choice runs outside of a transaction without an annotation: all of them work
/// only there, or they commit before the end.
///
/// # Errors
///
/// If an annotation is unknown, malformed, given twice, or stands behind the first statement.
pub fn parse(text: &str) -> Result<Annotations, AnnotationError> {
    parse_of(text, Layout::Pgfleet)
}

/// Reads the annotations of a text in a layout.
pub(crate) fn parse_of(text: &str, layout: Layout) -> Result<Annotations, AnnotationError> {
    let mut annotations =
        Annotations { no_transaction: text.starts_with("-- no-transaction"), ..Annotations::default() };
    let mut at_top = true;
    let mut named = false;
    let mut telltale = false;
    for token in lexer::tokens(text) {
        telltale =
            telltale || (token.kind == TokenKind::Identifier && TELLTALE.iter().any(|word| token.is_word(text, word)));
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
    if telltale && !annotations.no_transaction && check::implies_no_transaction(text, layout) {
        (annotations.no_transaction, annotations.implied) = (true, true);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::tests::tricky_text;
    use proptest::prelude::*;

    fn fails(text: &str) -> (String, usize, String) {
        let error = parse(text).unwrap_err();
        (error.to_string(), error.offset, error.hint().to_owned())
    }

    #[test]
    fn annotations_are_read_from_the_comments_at_the_top() {
        let text = "-- Adds the index.\n\n--pgfleet: no-transaction\r\n/* x */ -- PGFLEET:  lock_timeout = 10s \n\
                    -- pgfleet: requires identity@3, billing@1.2\n-- pgfleet: requires audit@007\nselect 1; -- pgfleet";
        let requirement = |set: &str, version: &str| Requirement { set: set.into(), version: version.into() };
        assert_eq!(
            parse(text).unwrap(),
            Annotations {
                no_transaction: true,
                implied: false,
                lock_timeout: Some(Duration::from_secs(10)),
                requires: vec![
                    requirement("identity", "3"),
                    requirement("billing", "1.2"),
                    requirement("audit", "007")
                ],
            }
        );
        assert_eq!(parse("select 1").unwrap(), Annotations::default());
        assert_eq!(parse("").unwrap(), Annotations::default());
    }

    #[test]
    fn the_first_line_of_sqlx_counts_only_as_the_first_line() {
        assert!(parse("-- no-transaction\nselect 1").unwrap().no_transaction);
        assert!(!parse("\n-- no-transaction\nselect 1").unwrap().no_transaction);
        assert!(parse("-- no-transaction\n-- pgfleet: no-transaction").unwrap().no_transaction);
    }

    #[test]
    fn statements_that_leave_no_choice_stand_for_the_annotation() {
        let text = "create index concurrently i on t (a)";
        let implied = parse(text).unwrap();
        assert!(implied.no_transaction && implied.implied);
        assert!(implied.normalised().is_empty());
        assert!(parse("begin; select 1; commit; select 2").unwrap().implied);
        let commit = "select 1; commit; select 2";
        assert!(!parse(commit).unwrap().no_transaction && parse_of(commit, Layout::Dbmate).unwrap().implied);
        assert_eq!(parse("select 1; -- commit\nselect 2").unwrap(), Annotations::default());
        let written = parse(&format!("-- pgfleet: no-transaction\n{text}")).unwrap();
        assert!(written.no_transaction && !written.implied);
        assert_eq!(written.normalised(), ["no-transaction"]);
        for (a, b, is_implied) in [(&implied, &written, false), (&written, &implied, false), (&implied, &implied, true)]
        {
            let mut merged = a.clone();
            merged.merge(b.clone());
            assert_eq!((merged.no_transaction, merged.implied), (true, is_implied));
        }
    }

    #[test]
    fn misspelt_annotations_are_corrected() {
        let (message, offset, hint) = fails("-- a\n-- pgfleet: no_transactoin\n");
        assert_eq!((message.as_str(), offset), ("unknown annotation `no_transactoin`", 5));
        assert_eq!(hint, "did you mean `no-transaction`?");
        assert_eq!(fails("-- pgfleet: lock-timeout=1s").2, "did you mean `lock_timeout`?");
        assert_eq!(fails("-- pgfleet: require a@1").2, "did you mean `requires`?");
        assert_eq!(fails("-- pgfleet: statement=1s").2, FORMS);
    }

    #[test]
    fn annotations_that_cannot_be_followed_are_errors() {
        assert_eq!(fails("-- pgfleet:").0, "the annotation is empty");
        assert_eq!(fails("-- pgfleet: no-transaction yes").0, "`no-transaction` takes no value");
        assert_eq!(
            fails("-- pgfleet: no-transaction\n-- pgfleet: no-transaction").0,
            "`no-transaction` is given twice"
        );
        assert_eq!(
            fails("-- pgfleet: lock_timeout=1s\n-- pgfleet: lock_timeout=1s").0,
            "`lock_timeout` is given twice"
        );
        assert_eq!(fails("-- pgfleet: lock_timeout").0, "`` is not a duration, such as 500ms, 10s, 5min or 1h");
        assert_eq!(fails("-- pgfleet: lock_timeout=25d").0, "a lock timeout is at most 24 days");
        assert_eq!(fails("-- pgfleet: requires identity").0, "`identity` does not name a set and a version");
        assert_eq!(fails("-- pgfleet: requires a@1 b@2").0, "`a@1 b@2` does not name a set and a version");
    }

    #[test]
    fn an_annotation_behind_a_statement_is_no_comment() {
        let (message, offset, _) = fails("select 1;\n-- pgfleet: no-transaction");
        assert_eq!((message.as_str(), offset), ("the annotation `no-transaction` comes too late", 10));
        assert!(parse("select '\n-- pgfleet: nonsense'; /*\n-- pgfleet: nonsense\n*/").is_ok());
    }

    #[test]
    fn durations_need_a_unit() {
        let millis = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis(" 10 s "), Ok(10_000));
        assert_eq!(millis("5min"), Ok(300_000));
        assert_eq!(millis("1h"), Ok(3_600_000));
        assert_eq!(millis("2d"), Ok(172_800_000));
        assert_eq!(millis("0"), Ok(0));
        for (text, part) in [
            ("10", "no unit"),
            ("5m", "5min"),
            ("", "not a duration"),
            ("1.5s", "not a duration"),
            ("-1s", "not a duration"),
            ("99999999999999999999s", "not a duration"),
            ("9999999999999999999d", "too long"),
            ("1 fortnight", "not a duration"),
        ] {
            assert!(millis(text).unwrap_err().contains(part), "{text}");
        }
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        ("[a-z][a-z_0-9-]{0,8}", "[0-9][0-9._-]{0,6}").prop_map(|(set, version)| Requirement { set, version })
    }

    fn annotations() -> impl Strategy<Value = Annotations> {
        let lock_timeout = prop::option::of((0..=i32::MAX as u64).prop_map(Duration::from_millis));
        (any::<bool>(), lock_timeout, prop::collection::vec(requirement(), 0..4)).prop_map(
            |(no_transaction, lock_timeout, requires)| Annotations {
                no_transaction,
                lock_timeout,
                requires,
                implied: false,
            },
        )
    }

    /// The longest unit that says the duration exactly, or a shorter one.
    fn written(duration: Duration, unit: usize) -> String {
        let millis = duration.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")];
        let mut fitting = units.iter().filter(|(length, _)| millis.is_multiple_of(*length)).cycle().skip(unit);
        let (length, name) = fitting.next().unwrap();
        format!("{}{name}", millis / length)
    }

    proptest! {
        #[test]
        fn annotations_come_back_as_they_were_written(
            annotations in annotations(),
            order in Just([0, 1, 2]).prop_shuffle(),
            gaps in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\n\n-- a comment: x\n", "\n/* pgfleet: x */\n", "\n\t "]), 8),
            prefix in prop::sample::select(vec!["-- pgfleet: ", "--pgfleet:", "--- PgFleet:\t", "--   pgfleet:  "]),
            unit in 0usize..5,
            one_line: bool,
            rest in prop::sample::select(vec!["", "select 1; -- pgfleet", "\n;", "do $$\n-- pgfleet: nonsense\n$$"]),
        ) {
            let mut lines: Vec<String> = Vec::new();
            for kind in order {
                match kind {
                    0 if annotations.no_transaction => lines.push("no-transaction".into()),
                    1 => lines.extend(annotations.lock_timeout.map(|timeout| format!("lock_timeout={}", written(timeout, unit)))),
                    2 => {
                        let each = annotations.requires.iter().map(|r| format!("{}@{}", r.set, r.version));
                        if one_line && !annotations.requires.is_empty() {
                            lines.push(format!("requires {}", each.collect::<Vec<_>>().join(" ,\t")));
                        } else {
                            lines.extend(each.map(|requirement| format!("requires {requirement}")));
                        }
                    }
                    _ => {}
                }
            }
            let header: String = lines.iter().zip(&gaps).flat_map(|(line, gap)| [prefix, line.as_str(), gap]).collect();
            let text = format!("{header}{rest}");
            prop_assert_eq!(parse(&text).unwrap(), annotations, "{}", text);
        }

        #[test]
        fn any_text_has_annotations_or_an_error_at_a_comment(
            text in prop_oneof![
                tricky_text(),
                "(-- ?(pgfleet:|PGFLEET: ?)?(no-transaction|lock_timeout|requires|x)?[= @,0-9a-zä]{0,8}(\n|\r\n|;)){0,5}",
            ],
        ) {
            if let Err(error) = parse(&text) {
                prop_assert!(text[error.offset..].starts_with("--"));
                prop_assert!(!error.hint().is_empty() && !error.message.is_empty());
            }
        }

        #[test]
        fn any_text_is_a_duration_or_not(text in "[0-9]{0,22} ?[a-zµ]{0,4}|\\PC{0,8}") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert_eq!(parse_duration(&written(duration, 4)).unwrap(), duration);
            }
        }
    }
}
