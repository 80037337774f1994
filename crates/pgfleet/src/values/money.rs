//! Exact amounts of money.

use std::fmt;
use std::ops::Neg;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::ValueError;
use super::text;

/// An exact amount with two decimals, from -99,999,999.99 to 99,999,999.99, as a column `numeric(10,2)` holds it.
///
/// It knows no currency. Nothing rounds by itself: what could overflow returns none, and what does not come out even
/// asks how to round. As a text, and in JSON, it is `"12.50"`; numbers are refused in JSON, since many programs would
/// read them as binary fractions.
///
/// ```
/// use pgfleet::values::{Money, Rounding};
///
/// let fare: Money = "12.5".parse()?;
/// assert_eq!(fare.to_string(), "12.50");
/// let three = fare.checked_mul(3).unwrap();
/// assert_eq!(three.to_string(), "37.50");
/// // Nothing is lost: the first get what does not divide.
/// let parts: Vec<String> = Money::from_cents(1000)?.split(3).iter().map(Money::to_string).collect();
/// assert_eq!(parts, ["3.34", "3.33", "3.33"]);
/// let fee = fare.percent(7, Rounding::HalfEven).unwrap();
/// assert_eq!(fee.to_string(), "0.88");
/// # Ok::<(), pgfleet::values::ValueError>(())
/// ```
///
/// A `sum` over a column may be greater than an amount can be; read as one it is an error then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(i64);

/// What becomes of the part of a cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest cent, the half away from zero: 0.125 becomes 0.13, and -0.125 becomes -0.13. So does PostgreSQL.
    HalfUp,
    /// To the nearest cent, the half to the even one: 0.125 becomes 0.12, and 0.135 becomes 0.14.
    HalfEven,
    /// Away from zero.
    Up,
    /// Towards zero.
    Down,
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The greatest amount, 99,999,999.99.
    pub const MAX: Self = Self(9_999_999_999);

    /// The least amount, -99,999,999.99.
    pub const MIN: Self = Self(-Self::MAX.0);

    /// The amount of that many hundredths.
    ///
    /// # Errors
    ///
    /// When it is greater than [`MAX`](Self::MAX) or less than [`MIN`](Self::MIN).
    pub fn from_cents(cents: i64) -> Result<Self, ValueError> {
        Self::checked(i128::from(cents)).ok_or_else(too_large)
    }

    /// Returns the amount in hundredths.
    pub const fn cents(self) -> i64 {
        self.0
    }

    /// Whether it is less than nothing.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Returns the amount without its sign.
    #[must_use]
    pub const fn abs(self) -> Self {
        Self(self.0.abs())
    }

    /// Adds; none if the sum is out of range.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::checked(i128::from(self.0) + i128::from(other.0))
    }

    /// Subtracts; none if the difference is out of range.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Self::checked(i128::from(self.0) - i128::from(other.0))
    }

    /// Multiplies by a whole number; none if the product is out of range.
    #[must_use]
    pub fn checked_mul(self, factor: i64) -> Option<Self> {
        Self::checked(i128::from(self.0) * i128::from(factor))
    }

    /// Adds all of them; none if the sum is out of range, whatever it was in between.
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        Self::checked(amounts.into_iter().map(|amount| i128::from(amount.0)).sum())
    }

    /// Returns that many percent of it, rounded to the cent; none if that is out of range.
    #[must_use]
    pub fn percent(self, percent: i64, rounding: Rounding) -> Option<Self> {
        self.fraction(percent, 100, rounding)
    }

    /// Returns `numerator / denominator` of it, rounded to the cent: 7.25 percent are `fraction(725, 10_000, …)`.
    ///
    /// None if that is out of range or the denominator is zero.
    #[must_use]
    pub fn fraction(self, numerator: i64, denominator: i64, rounding: Rounding) -> Option<Self> {
        let (product, divisor) = (i128::from(self.0) * i128::from(numerator), i128::from(denominator));
        if divisor == 0 {
            return None;
        }
        let (whole, rest) = (product / divisor, product % divisor);
        let away = if (product < 0) == (divisor < 0) { 1 } else { -1 };
        let half = (rest.abs() * 2).cmp(&divisor.abs());
        let rounds_away = rest != 0
            && match rounding {
                Rounding::Up => true,
                Rounding::Down => false,
                Rounding::HalfUp => half.is_ge(),
                Rounding::HalfEven => half.is_gt() || (half.is_eq() && whole % 2 != 0),
            };
        Self::checked(if rounds_away { whole + away } else { whole })
    }

    /// Splits it into parts that differ by at most a cent; their sum is the amount. The greater ones come first.
    /// It is lost if there are no parts.
    #[must_use]
    pub fn split(self, parts: u16) -> Vec<Self> {
        self.allocate(&vec![1; usize::from(parts)]).unwrap_or_default()
    }

    /// Splits it in proportion to the weights; the sum of the parts is the amount.
    ///
    /// Each part is cut off to the cent. The cents that are left go, one each, to the first parts with a weight. None
    /// if no part has a weight.
    #[must_use]
    pub fn allocate(self, weights: &[u32]) -> Option<Vec<Self>> {
        let total: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
        if total == 0 {
            return None;
        }
        let part = |&weight: &u32| i128::from(self.0) * i128::from(weight) / total;
        let left = i128::from(self.0) - weights.iter().map(part).sum::<i128>();
        let mut given = 0;
        let parts = weights.iter().map(|weight| {
            // Less than a cent was cut off of each part with a weight, so there are enough of them.
            let more = *weight > 0 && given < left.abs();
            given += i128::from(more);
            Self::checked(part(weight) + if more { left.signum() } else { 0 })
        });
        parts.collect()
    }

    fn checked(cents: i128) -> Option<Self> {
        let amount = Self(i64::try_from(cents).ok()?);
        (Self::MIN..=Self::MAX).contains(&amount).then_some(amount)
    }
}

#[cold]
pub(super) fn too_large() -> ValueError {
    ValueError::new("an amount of money is at most 99999999.99")
}

impl Neg for Money {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl fmt::Display for Money {
    /// As `-12.50`: always two decimals, no separators.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.0.unsigned_abs();
        f.pad_integral(!self.is_negative(), "", &format!("{}.{:02}", cents / 100, cents % 100))
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Money {
    type Err = ValueError;

    /// Reads `-12`, `12.5`, `12.50` and, as PostgreSQL writes a `numeric` of more decimals, `12.5000`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let not = |why: &str| ValueError::text(text, format!("an amount of money: {why}"));
        let form = || not("the form is 12.50");
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, decimals) = match digits.split_once('.') {
            Some((_, "")) => return Err(form()),
            Some((whole, decimals)) => (whole, decimals),
            None => (digits, ""),
        };
        if whole.is_empty() || !whole.bytes().chain(decimals.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err(form());
        }
        let (cents, beyond) = decimals.split_at(decimals.len().min(2));
        if beyond.bytes().any(|byte| byte != b'0') {
            return Err(not("it has more than two decimals"));
        }
        let zeros = [b'0'; 2];
        let digits = whole.bytes().chain(cents.bytes()).chain(zeros.into_iter().skip(cents.len()));
        // Beyond the range it stays beyond.
        let cents =
            digits.fold(0_i128, |cents, digit| cents.saturating_mul(10).saturating_add(i128::from(digit - b'0')));
        Self::checked(if negative { -cents } else { cents }).ok_or_else(|| not("the greatest is 99999999.99"))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer, "an amount of money as a text, as \"12.50\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn a_text_is_an_amount_or_says_why_not() {
        for (text, cents) in [
            ("0", 0),
            ("-0.00", 0),
            ("12", 1200),
            ("12.5", 1250),
            ("-12.05", -1205),
            ("0.01", 1),
            ("007.50", 750),
            ("12.5000", 1250),
            ("99999999.99", 9_999_999_999),
            ("-99999999.99", -9_999_999_999),
        ] {
            assert_eq!(money(text).cents(), cents, "{text}");
        }
        for (text, why) in [
            ("", "the form"),
            ("-", "the form"),
            (".5", "the form"),
            ("5.", "the form"),
            ("+5", "the form"),
            ("--5", "the form"),
            ("1,000.00", "the form"),
            ("1 000", "the form"),
            ("1e3", "the form"),
            ("NaN", "the form"),
            ("١", "the form"),
            ("5.-1", "the form"),
            ("0.001", "more than two"),
            ("12.505", "more than two"),
            ("100000000", "the greatest"),
            ("-100000000.00", "the greatest"),
        ] {
            let error = text.parse::<Money>().unwrap_err().to_string();
            assert!(error.contains("is not an amount of money: ") && error.contains(why), "{text}: {error}");
        }
        assert!("9".repeat(500).parse::<Money>().is_err());
    }

    #[test]
    fn json_has_texts_and_no_numbers() {
        assert_eq!(serde_json::to_string(&money("-12.5")).unwrap(), "\"-12.50\"");
        assert_eq!(serde_json::from_str::<Money>("\"12.50\"").unwrap(), money("12.5"));
        for number in ["12", "12.5", "-1"] {
            let error = serde_json::from_str::<Money>(number).unwrap_err().to_string();
            assert!(error.contains("expected an amount of money as a text, as \"12.50\""), "{error}");
        }
    }

    #[test]
    fn parts_of_a_cent_are_rounded_as_asked() {
        use Rounding::{Down, HalfEven, HalfUp, Up};
        for (amount, expected) in [
            // 12.5, 13.5, 12.4 and 12.6 cents.
            ("1.25", [13, 12, 13, 12]),
            ("1.35", [14, 14, 14, 13]),
            ("1.24", [12, 12, 13, 12]),
            ("1.26", [13, 13, 13, 12]),
            ("1.20", [12, 12, 12, 12]),
        ] {
            let cents = |amount: Money, percent| {
                [HalfUp, HalfEven, Up, Down].map(|rounding| amount.percent(percent, rounding).unwrap().cents())
            };
            let amount = money(amount);
            assert_eq!(cents(amount, 10), expected, "{amount}");
            assert_eq!(cents(-amount, 10), expected.map(|cents| -cents), "-{amount}");
            assert_eq!(cents(amount, -10), expected.map(|cents| -cents), "{amount}, negative");
        }
        assert_eq!(money("100").fraction(725, 10_000, HalfUp), Some(money("7.25")));
        assert_eq!(money("1").fraction(1, 0, HalfUp), None);
        assert_eq!(Money::MAX.fraction(i64::MAX, i64::MIN, HalfUp), Some(Money::MIN));
        assert_eq!(Money::MAX.percent(101, Down), None);
    }

    #[test]
    fn what_is_out_of_range_is_none() {
        let cent = money("0.01");
        assert_eq!(Money::MAX.checked_add(cent), None);
        assert_eq!(Money::MIN.checked_sub(cent), None);
        assert_eq!(Money::MAX.checked_mul(i64::MAX), None);
        assert_eq!(Money::sum([Money::MAX, cent, -cent]), Some(Money::MAX));
        assert_eq!(Money::sum([Money::MAX, cent]), None);
        assert!(Money::from_cents(i64::MIN).is_err());
        assert_eq!(Money::ZERO.allocate(&[]), None);
        assert_eq!(Money::ZERO.allocate(&[0, 0]), None);
        assert!(Money::MAX.split(0).is_empty());
    }

    #[test]
    fn an_amount_is_aligned_like_a_number() {
        assert_eq!(format!("{:>8}|{:<8}|{:+}", money("-1.5"), money("2"), money("3")), "   -1.50|2.00    |+3.00");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cents in Money::MIN.0..=Money::MAX.0) {
            let amount = Money::from_cents(cents).unwrap();
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }

        #[test]
        fn no_cent_is_lost(cents in Money::MIN.0..=Money::MAX.0, weights in proptest::collection::vec(0_u32.., 1..20)) {
            let amount = Money::from_cents(cents).unwrap();
            if let Some(parts) = amount.allocate(&weights) {
                prop_assert_eq!(Money::sum(parts.iter().copied()), Some(amount));
                let total: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
                for (part, &weight) in parts.iter().zip(&weights) {
                    let exact = i128::from(cents) * i128::from(weight);
                    prop_assert!((i128::from(part.0) * total - exact).abs() <= total, "{part} of {weight}");
                    prop_assert!(weight > 0 || part.0 == 0);
                }
            }
            let parts = amount.split(7);
            prop_assert_eq!(Money::sum(parts.iter().copied()), Some(amount));
            prop_assert!(parts.iter().max().unwrap().0 - parts.iter().min().unwrap().0 <= 1);
        }
    }
}
