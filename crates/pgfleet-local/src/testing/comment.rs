//! What the comment on a database says: that it is ours, and until when.
//!
//! A database without one is never touched on a server that is not ours alone.

const DATABASE: &str = "pgfleet test database";
const TEMPLATE: &str = "pgfleet test template";

/// What is known of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TemplateMark {
    /// The day of its last use, as `2026-07-02`.
    pub(super) used: String,
    /// Its size, which decides how it is copied.
    pub(super) bytes: u64,
    /// What it is replaced by: a newer one of the same program. None for one that only files decide on.
    pub(super) family: Option<String>,
}

impl TemplateMark {
    /// The comment of that template, as it was used on that day.
    pub(super) fn text(&self) -> String {
        let family = self.family.as_deref().map(|family| format!("; of {family}")).unwrap_or_default();
        format!("{TEMPLATE}; used {}; bytes {}{family}", self.used, self.bytes)
    }

    /// Reads a comment; none for one that is not of a template.
    pub(super) fn read(comment: &str) -> Option<Self> {
        let mut parts = comment.strip_prefix(TEMPLATE)?.strip_prefix("; ")?.split("; ");
        let used = parts.next()?.strip_prefix("used ")?.to_owned();
        let bytes = parts.next()?.strip_prefix("bytes ")?.parse().ok()?;
        let family = parts.next().and_then(|part| part.strip_prefix("of ")).map(str::to_owned);
        Some(Self { used, bytes, family })
    }
}

/// The comment of a database that goes away with its test.
pub(super) fn of_database() -> &'static str {
    DATABASE
}

/// The comment of a database that somebody wants to look at.
pub(super) fn of_kept(day: &str) -> String {
    format!("{DATABASE}; kept {day}")
}

/// Whether the comment is one of a test's database.
pub(super) fn is_database(comment: &str) -> bool {
    comment == DATABASE || kept(comment).is_some()
}

/// Since when it is kept.
pub(super) fn kept(comment: &str) -> Option<&str> {
    comment.strip_prefix(DATABASE)?.strip_prefix("; kept ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_read_as_they_were_written() {
        for family in [None, Some("0f0f".to_owned())] {
            let mark = TemplateMark { used: "2026-07-02".to_owned(), bytes: 8_000_000, family };
            assert_eq!(TemplateMark::read(&mark.text()), Some(mark));
        }
        assert_eq!(kept(&of_kept("2026-07-02")), Some("2026-07-02"));
        assert!(is_database(of_database()) && is_database(&of_kept("2026-07-02")));
    }

    #[test]
    fn comments_of_others_are_not_ours() {
        for other in ["", "pgfleet", "pgfleet test databases of somebody", "solution masar"] {
            assert!(!is_database(other) && TemplateMark::read(other).is_none(), "{other}");
        }
    }
}
