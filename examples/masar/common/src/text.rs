//! Texts that fit into their columns.

use serde::{Deserialize, Serialize};

/// A text of 1 to `MOST` characters without blanks around it: what a column `varchar(MOST)` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Text<const MOST: usize>(String);

impl<const MOST: usize> Text<MOST> {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MOST: usize> TryFrom<String> for Text<MOST> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        match text.chars().count() {
            0 => Err("a text is missing".to_owned()),
            // PostgreSQL has no such character.
            _ if text.contains('\0') => Err("a text has a character with the number zero".to_owned()),
            count if count > MOST => Err(format!("a text has {count} characters, and {MOST} at most are taken")),
            _ => Ok(Self(text.to_owned())),
        }
    }
}
