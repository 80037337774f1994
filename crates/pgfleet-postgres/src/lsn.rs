//! Positions in the write-ahead log, and what a reader must have seen.

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log of a cluster: `0/16B3748`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (high, low) = text.split_once('/').ok_or(TokenError)?;
        let half = |text: &str| {
            let is_plain = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_plain.then(|| u64::from_str_radix(text, 16).ok()).flatten().ok_or(TokenError)
        };
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

/// What a reader must have seen to see a write: which cluster, on which timeline, how far.
///
/// Its text, `6c1f3a2b9d8e7f60-1-0/16B3748`, can travel in a header or a message: it names nothing and opens nothing.
///
/// ```
/// use pgfleet_postgres::lsn::Token;
/// let token: Token = "6c1f3a2b9d8e7f60-1-0/16B3748".parse()?;
/// assert_eq!(token.to_string(), "6c1f3a2b9d8e7f60-1-0/16B3748");
/// # Ok::<(), pgfleet_postgres::lsn::TokenError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// The cluster's system identifier.
    pub system: u64,
    /// The timeline on which was written.
    pub timeline: u32,
    /// The end of the commit.
    pub lsn: Lsn,
}

impl Token {
    /// Returns the one of two tokens that asks for more; of two clusters' tokens the other one, which is newer here.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        let is_later = self.system == other.system && (self.timeline, self.lsn) > (other.timeline, other.lsn);
        if is_later { self } else { other }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{}", self.system, self.timeline, self.lsn)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().splitn(3, '-');
        let mut part = || parts.next().ok_or(TokenError);
        let (system, timeline, lsn) = (part()?, part()?, part()?);
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if system.len() != 16 || !is_hex(system) || !is_hex(timeline) {
            return Err(TokenError);
        }
        Ok(Self {
            system: u64::from_str_radix(system, 16).map_err(|_| TokenError)?,
            timeline: u32::from_str_radix(timeline, 16).map_err(|_| TokenError)?,
            lsn: lsn.parse()?,
        })
    }
}

/// A text that is no position or no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of a write (expected SYSTEM-TIMELINE-LSN, like 6c1f3a2b9d8e7f60-1-0/16B3748)")]
pub struct TokenError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "1-1-0/0",
            "6c1f3a2b9d8e7f60-1-16B3748",
            "6c1f3a2b9d8e7f60--0/1",
            "6c1f3a2b9d8e7f60-1-0/123456789",
            "+c1f3a2b9d8e7f60-1-0/1",
            "6c1f3a2b9d8e7f60-1-+/1",
            "6c1f3a2b9d8e7f60-1-0/1-2",
        ] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_later_of_two_tokens_is_that_of_the_newer_timeline() {
        let token = |timeline, lsn| Token { system: 1, timeline, lsn: Lsn(lsn) };
        assert_eq!(token(1, 900).later(token(2, 5)), token(2, 5));
        assert_eq!(token(2, 5).later(token(2, 4)), token(2, 5));
        let other = Token { system: 2, timeline: 1, lsn: Lsn(1) };
        assert_eq!(token(2, 5).later(other), other);
    }
}
