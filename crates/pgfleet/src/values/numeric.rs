//! Amounts of money in PostgreSQL's binary format of `numeric`.
//!
//! Four numbers of 16 bits: how many groups there are, the weight of the first one, the sign, and how many decimals are
//! shown. Then the groups, each four decimal digits; the one with weight 0 stands right before the decimal point.

use super::error::ValueError;
use super::money::{Money, too_large};

const GROUP: i64 = 10_000;
const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITE: [u16; 2] = [0xD000, 0xF000];

/// The weight of the first group of the greatest amount.
const GREATEST: i16 = 1;

/// Encodes an amount, as the server itself would: without groups of zeros at either end.
pub(super) fn encode(amount: Money) -> Vec<u8> {
    let cents = i64::try_from(amount.cents().unsigned_abs()).unwrap_or(i64::MAX);
    let (whole, hundredths) = (cents / 100, cents % 100);
    let mut groups = vec![whole / GROUP, whole % GROUP, hundredths * 100];
    let mut weight = GREATEST;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if amount.is_negative() { NEGATIVE } else { POSITIVE };
    // Three groups of less than 10,000: everything fits.
    let count = i16::try_from(groups.len()).unwrap_or(i16::MAX);
    let groups = groups.iter().map(|&group| i16::try_from(group).unwrap_or(i16::MAX).to_be_bytes());
    let mut bytes = Vec::with_capacity(14);
    for part in [count.to_be_bytes(), weight.to_be_bytes(), sign.to_be_bytes(), 2_i16.to_be_bytes()] {
        bytes.extend_from_slice(&part);
    }
    groups.for_each(|group| bytes.extend_from_slice(&group));
    bytes
}

/// Decodes a `numeric`; decimals beyond the second must be zeros.
pub(super) fn decode(raw: &[u8]) -> Result<Money, ValueError> {
    let broken = || ValueError::new("a numeric that cannot be read");
    let (parts, rest) = raw.as_chunks::<2>();
    let (&[count, weight, sign, _], groups) = parts.split_first_chunk::<4>().ok_or_else(broken)?;
    let (count, weight, sign) = (u16::from_be_bytes(count), i16::from_be_bytes(weight), u16::from_be_bytes(sign));
    match sign {
        POSITIVE | NEGATIVE => {}
        NAN => return Err(ValueError::new("NaN is not an amount of money")),
        _ if INFINITE.contains(&sign) => return Err(ValueError::new("Infinity is not an amount of money")),
        _ => return Err(broken()),
    }
    if !rest.is_empty() || groups.len() != usize::from(count) {
        return Err(broken());
    }
    let mut cents = 0_i64;
    for (at, &group) in groups.iter().enumerate() {
        let group = i64::from(u16::from_be_bytes(group));
        if group >= GROUP {
            return Err(broken());
        }
        let weight = i64::from(weight) - i64::try_from(at).unwrap_or(i64::MAX);
        cents += match weight {
            _ if group == 0 => 0,
            2.. => return Err(too_large()),
            1 => group * GROUP * 100,
            0 => group * 100,
            -1 if group % 100 == 0 => group / 100,
            _ => return Err(ValueError::new("a numeric with more than two decimals is not an amount of money")),
        };
    }
    Money::from_cents(if sign == NEGATIVE { -cents } else { cents })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(cents in Money::MIN.cents()..=Money::MAX.cents(), small in -20_000_i64..20_000) {
            for cents in [cents, small, cents / 100 * 100, cents / 1_000_000 * 1_000_000] {
                let amount = Money::from_cents(cents).unwrap();
                prop_assert_eq!(decode(&encode(amount)), Ok(amount));
            }
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}
