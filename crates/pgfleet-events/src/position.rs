//! A place in the common order of all streams.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A place in the common order of all streams of a store: that of an event, or [`Position::START`] before the first.
///
/// Positions are compared, stored and handed back; what the numbers mean is the store's business. They are the same for
/// every reader of a store, and stay the same when its database is dumped and restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The group of events that were seen together first.
    pub tick: u64,
    /// The place within it.
    pub seq: u64,
}

impl Position {
    /// Before the first event.
    pub const START: Self = Self { tick: 0, seq: 0 };

    /// The place of these numbers.
    pub fn new(tick: u64, seq: u64) -> Self {
        Self { tick, seq }
    }
}

/// As `<tick>-<seq>`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.tick, self.seq)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let (tick, seq) = text.split_once('-')?;
            Some(Self { tick: tick.parse().ok()?, seq: seq.parse().ok()? })
        };
        read().ok_or_else(|| {
            Error::invalid(format!("{text:?} is no position")).with_hint("a position looks like 12-3456")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_shown_and_read_again() {
        let position = Position::new(12, 3_456);
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        assert!("12".parse::<Position>().is_err());
        assert!(Position::START < position && position < Position::new(13, 0));
    }
}
