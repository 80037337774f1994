//! Versions of migrations, ordered as numbers of any length, or as text where a tool does so.

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
///
/// Diesel compares its versions as text, so that `20260730140000` stands among those of its newer form with four digits
/// more. A version made by [`Version::as_text`] is equal to, before or behind another by its digits as they are written.
/// Versions of both kinds do not belong in one collection; one that a user typed can be compared with either.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    /// Whether the text is compared, and not the numbers.
    textual: bool,
    /// The numbers without leading zeros, and without zeros at the end; of equal length they sort as text does.
    parts: Vec<Box<str>>,
}

impl Version {
    /// Returns the version as text, which parses to an equal version.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Makes it one that is compared as text.
    #[must_use]
    pub fn as_text(mut self) -> Self {
        self.textual = true;
        self
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
        Ok(Self { text, textual: false, parts })
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
        if self.textual || other.textual {
            return self.text.cmp(&other.text);
        }
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
        if self.textual || other.textual { self.text == other.text } else { self.parts == other.parts }
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Texts that are equal have equal parts, too.
        self.parts.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn hash(version: &Version) -> u64 {
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let ascending = [
            "0",
            "0.1",
            "1",
            "01.1",
            "1.9",
            "1_10",
            "2",
            "10",
            "20240620151514",
            "2026-07-30-140000-0000",
            "99999999999999999999999",
        ];
        for pair in ascending.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn leading_and_trailing_zeros_do_not_count() {
        for (a, b) in [("01", "1"), ("1.0", "1"), ("1.0.0", "1_0"), ("000", "0"), ("1.010", "1.10")] {
            assert_eq!(version(a), version(b));
            assert_eq!(hash(&version(a)), hash(&version(b)));
        }
        assert_ne!(version("10"), version("1"));
        assert_ne!(version("1.10"), version("1.1"));
    }

    #[test]
    fn versions_of_diesel_are_compared_as_text() {
        let ascending =
            ["00000000000000", "2020-12-16-000000", "2020-12-7-190800", "20230523170000", "2023-05-23-1715"]
                .into_iter()
                .chain(["2025-09-19-132648-0000", "2025-09-20-000000", "3"]);
        let ascending: Vec<_> = ascending.map(|text| version(text).as_text()).collect();
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:?}");
        let typed = version("20250919132648");
        assert!(typed < ascending[5] && typed > ascending[4] && typed != ascending[5]);
        assert_ne!(version("01").as_text(), version("1"));
        assert_eq!(version("2020-12-7"), version("2020127").as_text());
        assert_eq!(hash(&version("2020-12-7")), hash(&version("2020127").as_text()));
    }

    #[test]
    fn the_text_is_kept_but_for_what_tools_normalise() {
        assert_eq!(version("0007").to_string(), "0007");
        assert_eq!(version("1_10").as_str(), "1.10");
        assert_eq!(version("2026-07-30-140000-0000").as_str(), "202607301400000000");
        assert_eq!(format!("{:>4}", version("7")), "   7");
    }

    #[test]
    fn what_is_not_digits_is_no_version() {
        for text in ["", "a", "1a", "1.", ".1", "1..2", "-1", "1-", "1-2.3", "1 ", "+1", "\u{661}"] {
            let error = text.parse::<Version>().unwrap_err();
            assert_eq!(error.to_string(), format!("`{text}` is not a version"));
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_agrees_with_equality_and_hash(
            texts in prop::collection::vec("[0-2]{1,3}([._][0-2]{1,2}){0,3}", 3),
        ) {
            let [a, b, c] = [0, 1, 2].map(|i| version(&texts[i]));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            if a == b {
                prop_assert_eq!(hash(&a), hash(&b));
            }
            let (text, other) = (a.clone().as_text(), b.clone().as_text());
            prop_assert_eq!(text.cmp(&other), a.as_str().cmp(b.as_str()));
            prop_assert_eq!(text == other, text.cmp(&other) == Ordering::Equal);
            prop_assert_eq!(version(a.as_str()), a);
        }

        #[test]
        fn single_numbers_sort_as_numbers(a: u64, b: u64, zeros in 0usize..4) {
            let padded = format!("{}{a}", "0".repeat(zeros));
            prop_assert_eq!(version(&padded).cmp(&version(&b.to_string())), a.cmp(&b));
        }
    }
}
