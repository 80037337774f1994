//! Versions of migrations, ordered as numbers of any length.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use thiserror::Error;

/// The version of a migration.
///
/// Equality, order and hash go by the numbers: `01` is `1`, `1.10` comes after `1.9`, and `1.0` is `1`. The text is
/// kept as it was written, except for what the tools themselves normalise: `1_10` is `1.10`, and the dashes of
/// `2026-07-30-140000-0000` are dropped.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    /// The numbers without leading zeros, and without zeros at the end; of equal length they sort as text does.
    parts: Vec<Box<str>>,
}

impl Version {
    /// Returns the version as text, which parses to an equal version.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let text = if text.contains('-') && text.split('-').all(digits) {
            text.replace('-', "")
        } else if text.split(['.', '_']).all(digits) {
            text.replace('_', ".")
        } else {
            return Err(VersionError { text: text.to_owned() });
        };
        let mut parts: Vec<Box<str>> = text.split('.').map(|part| part.trim_start_matches('0').into()).collect();
        while parts.pop_if(|part| part.is_empty()).is_some() {}
        Ok(Self { text, parts })
    }
}

/// A text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not a version")]
pub struct VersionError {
    text: String,
}

impl VersionError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        "a version is made of digits, such as 7, 0007 or 20260730140000"
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = self.parts.iter().map(|part| (part.len(), part));
        numbers.cmp(other.parts.iter().map(|part| (part.len(), part)))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts.hash(state);
    }
}
