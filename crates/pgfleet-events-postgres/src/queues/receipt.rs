//! What a delivery is known by.

use std::io::Write as _;

use pgfleet_events::Receipt;

/// Two numbers of 16 digits, two of 8, and what is between them.
const LONGEST: usize = 51;

/// A claim with its token, how many messages it is about, and one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handle {
    pub(super) claim: i64,
    pub(super) token: i32,
    pub(super) messages: i32,
    pub(super) seq: i64,
}

impl Handle {
    pub(super) fn receipt(self) -> Receipt {
        let mut text = [0; LONGEST];
        let mut rest = &mut text[..];
        // Enough for the longest numbers, so that it does not fail; and nothing is allocated but the receipt.
        let _ = write!(rest, "{:x}.{:x}.{:x}.{:x}", self.claim, self.token, self.messages, self.seq);
        let length = LONGEST - rest.len();
        Receipt(std::str::from_utf8(&text[..length]).unwrap_or_default().into())
    }

    /// Reads receipts; sorted, each once.
    pub(super) fn all(receipts: &[Receipt]) -> Vec<Self> {
        let mut all: Vec<Self> = receipts.iter().filter_map(Self::of).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Reads a receipt; none for what is none of ours, which nobody holds.
    pub(super) fn of(receipt: &Receipt) -> Option<Self> {
        let mut parts = receipt.0.split('.');
        let long = |text: Option<&str>| text.and_then(|text| i64::from_str_radix(text, 16).ok());
        let (claim, token, messages, seq) =
            (long(parts.next())?, long(parts.next())?, long(parts.next())?, long(parts.next())?);
        let (token, messages) = (i32::try_from(token).ok()?, i32::try_from(messages).ok()?);
        parts.next().is_none().then_some(Self { claim, token, messages, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_written_and_read() {
        for handle in [
            Handle { claim: 1_234_567, token: i32::MAX, messages: 100, seq: i64::MAX },
            Handle { claim: i64::MAX, token: i32::MAX, messages: i32::MAX, seq: i64::MAX },
            Handle { claim: 1, token: 0, messages: 1, seq: 1 },
        ] {
            assert_eq!(Handle::of(&handle.receipt()), Some(handle));
        }
    }

    #[test]
    fn what_is_no_receipt_is_nobodys() {
        for text in ["", "1.2.3", "1.2.3.4.5", "x.2.3.4", "1.ffffffffff.3.4"] {
            assert_eq!(Handle::of(&Receipt(text.into())), None, "{text}");
        }
    }
}
