//! Which partition a message belongs to.

use pgfleet_events::Message;

/// The word of messages without a key.
const FREE: &str = "any";

/// A part of what is sent to a group: the messages of some keys, or those without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Partition {
    /// Messages without a key.
    Free,
    /// Messages of the keys with this number.
    Keyed(usize),
}

impl Partition {
    /// The partition of a message, where keys are dealt to so many.
    pub(crate) fn of(message: &Message, count: usize) -> Self {
        match &message.key {
            None => Self::Free,
            Some(key) => Self::of_key(key, count),
        }
    }

    fn of_key(key: &str, count: usize) -> Self {
        // FNV-1a: the same everywhere and for ever, unlike the hashes of the standard library.
        let hash = key
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        // The lower bits of FNV mix least.
        let number = (hash ^ (hash >> 32)) % count as u64;
        // Below `count`, so it fits.
        Self::Keyed(usize::try_from(number).unwrap_or_default())
    }

    pub(crate) fn all(count: usize) -> impl Iterator<Item = Self> {
        std::iter::once(Self::Free).chain(Self::keyed(count))
    }

    pub(crate) fn keyed(count: usize) -> impl Iterator<Item = Self> {
        (0..count).map(Self::Keyed)
    }

    /// Returns the partition of a word.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        if word == FREE { Some(Self::Free) } else { word.parse().ok().map(Self::Keyed) }
    }

    /// Returns its word in names of the broker.
    pub(crate) fn word(self) -> String {
        match self {
            Self::Free => FREE.to_owned(),
            Self::Keyed(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_same_partition_for_ever() {
        for (key, partition) in [("", 1), ("booking-1", 6), ("booking-2", 3), ("t_0123", 5)] {
            assert_eq!(Partition::of_key(key, 8), Partition::Keyed(partition), "{key}");
        }
    }

    #[test]
    fn keys_are_spread_evenly() {
        let mut counts = [0_usize; 8];
        for number in 0..8_000 {
            if let Partition::Keyed(partition) = Partition::of_key(&format!("booking-{number}"), 8) {
                counts[partition] += 1;
            }
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
