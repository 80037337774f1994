//! What a delivery is known by.

use std::fmt::Write as _;

use pgfleet_events::Receipt;

/// A claim with its token, how many messages it is about, and one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handle {
    pub(super) claim: i64,
    pub(super) token: i32,
    pub(super) messages: i32,
    pub(super) seq: i64,
}

impl Handle {
    pub(super) fn receipt(self) -> Receipt {
        let mut text = String::with_capacity(40);
        // Writing to a text does not fail.
        let _ = write!(text, "{:x}.{:x}.{:x}.{:x}", self.claim, self.token, self.messages, self.seq);
        Receipt(text.into())
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
        let handle = Handle { claim: 1_234_567, token: i32::MAX, messages: 100, seq: i64::MAX };
        assert_eq!(Handle::of(&handle.receipt()), Some(handle));
    }

    #[test]
    fn what_is_no_receipt_is_nobodys() {
        for text in ["", "1.2.3", "1.2.3.4.5", "x.2.3.4", "1.ffffffffff.3.4"] {
            assert_eq!(Handle::of(&Receipt(text.into())), None, "{text}");
        }
    }
}
