//! A value that is not what it should be.

use std::fmt;

/// How much of a value an error shows.
const SHOWN: usize = 60;

/// A text or a database's value that is not an id, a time, an amount of money or a cursor.
///
/// Display is one sentence that says what was found and what is expected. Where the value came with a request, it is
/// the client's mistake; from a table, it is a row that somebody else wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError(Box<str>);

impl ValueError {
    #[cold]
    pub(super) fn new(message: impl Into<Box<str>>) -> Self {
        Self(message.into())
    }

    /// A text that is not what was expected.
    #[cold]
    pub(super) fn text(text: &str, expected: impl fmt::Display) -> Self {
        let shown: String = text.chars().take(SHOWN).collect();
        let dots = if shown.len() < text.len() { "…" } else { "" };
        Self::new(format!("{:?} is not {expected}", format!("{shown}{dots}")))
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}
