//! Points in time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::ValueError;
use super::{rfc3339, text};

/// Where PostgreSQL counts from: 2000-01-01, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800 * rfc3339::SECOND;

/// A point in time, to the microsecond, in UTC.
///
/// For columns of type `timestamptz`, and for those of type `timestamp` that hold UTC: both are read and written as
/// UTC. sqlx sends it as `timestamptz`; for a column of type `timestamp` the server then converts it into the session's
/// time zone, which is UTC unless somebody changed it, since sqlx sets it so.
///
/// From the year 1 to 9999, as RFC 3339 can write it. PostgreSQL's `infinity` and what is outside of these years is an
/// error when it is read.
///
/// ```
/// use std::time::Duration;
/// use pgfleet::values::Timestamp;
///
/// let departure: Timestamp = "2026-11-22T09:30:00.25+01:00".parse()?;
/// assert_eq!(departure.to_string(), "2026-11-22T08:30:00.250000Z");
/// let arrival = departure.checked_add(Duration::from_secs(90)).unwrap();
/// assert_eq!(arrival.since(departure), Some(Duration::from_secs(90)));
/// assert!("2026-11-22T09:30:00".parse::<Timestamp>().is_err(), "of which time zone?");
/// # Ok::<(), pgfleet::values::ValueError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first one: 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800 * rfc3339::SECOND);

    /// The last one: 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_800 * rfc3339::SECOND - 1);

    /// Returns the current time, by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        // A clock that is wrong by eight thousand years is not told from one at the limit.
        Self::try_from(SystemTime::now()).unwrap_or(Self::MAX)
    }

    /// The point that many microseconds after 1970-01-01T00:00:00Z, or before it when negative.
    ///
    /// # Errors
    ///
    /// When it is outside of the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, ValueError> {
        let this = Self(micros);
        if (Self::MIN..=Self::MAX).contains(&this) {
            return Ok(this);
        }
        Err(ValueError::new("a point in time outside of the years 1 to 9999"))
    }

    /// Returns the microseconds since 1970-01-01T00:00:00Z.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Returns the point that much later; none after the year 9999. Parts of a microsecond are cut off.
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let micros = i64::try_from(duration.as_micros()).ok()?;
        Self::from_micros(self.0.checked_add(micros)?).ok()
    }

    /// Returns the point that much earlier; none before the year 1. Parts of a microsecond are cut off.
    #[must_use]
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        let micros = i64::try_from(duration.as_micros()).ok()?;
        Self::from_micros(self.0.checked_sub(micros)?).ok()
    }

    /// Returns the time that has passed since an earlier point; none if that is the later one.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        u64::try_from(self.0 - earlier.0).ok().map(Duration::from_micros)
    }

    /// As PostgreSQL sends it.
    pub(super) fn from_postgres(raw: i64) -> Result<Self, ValueError> {
        match raw {
            i64::MAX => Err(ValueError::new("infinity is not a point in time")),
            i64::MIN => Err(ValueError::new("-infinity is not a point in time")),
            _ => Self::from_micros(raw.saturating_add(POSTGRES_EPOCH)),
        }
    }

    /// As PostgreSQL takes it.
    pub(super) const fn to_postgres(self) -> i64 {
        self.0 - POSTGRES_EPOCH
    }
}

impl fmt::Display for Timestamp {
    /// As RFC 3339 in UTC; microseconds are left out where there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rfc3339::write(f, self.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = ValueError;

    /// Reads RFC 3339 with any distance from UTC; digits below the microsecond are cut off.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let not = |why: &str| ValueError::text(text, format!("a point in time: {why}"));
        let micros = rfc3339::read(text).map_err(not)?;
        Self::from_micros(micros).map_err(|_| not("it is outside of the years 1 to 9999"))
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = ValueError;

    fn try_from(time: SystemTime) -> Result<Self, ValueError> {
        let (duration, is_before) = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => (after, false),
            Err(before) => (before.duration(), true),
        };
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        if is_before {
            // Cut off towards the past, as it is after 1970.
            let rest = i64::from(!duration.subsec_nanos().is_multiple_of(1000));
            return Self::from_micros((-micros).saturating_sub(rest));
        }
        Self::from_micros(micros)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let distance = Duration::from_micros(time.0.unsigned_abs());
        if time.0 < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer, "a point in time as a text, as \"2026-11-22T08:30:00Z\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_says_one_point_in_time_or_why_not() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00.000001z", 1),
            ("1969-12-31 23:59:59.999999Z", -1),
            ("1970-01-01T00:00:00.0000019Z", 1),
            ("1970-01-01T01:30:00+01:30", 0),
            ("1970-01-01 00:00:00+00", 0),
            ("1969-12-31T22:00:00-02:00", 0),
            ("2000-02-29T00:00:00Z", POSTGRES_EPOCH + 59 * 86_400 * 1_000_000),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().micros(), micros, "{text}");
        }
        for (text, why) in [
            ("", "the form is"),
            ("now", "the form is"),
            ("infinity", "the form is"),
            ("2026-11-22", "the form is"),
            ("2026-11-22T08:30Z", "the form is"),
            ("2026-11-22T08:30:00.Z", "the form is"),
            ("2026-11-22T08:30:00", "does not say Z"),
            ("2026-11-22T08:30:00 UTC", "the form is"),
            ("2026-11-22T08:30:00ZZ", "something stands behind"),
            ("2026-11-22T08:30:60Z", "no such time"),
            ("2026-11-22T24:00:00Z", "no such time"),
            ("2026-02-29T00:00:00Z", "no such day"),
            ("2026-13-01T00:00:00Z", "no such day"),
            ("2026-11-00T00:00:00Z", "no such day"),
            ("2026-11-22T08:30:00+24:00", "no such distance"),
            ("0000-12-31T23:59:59Z", "outside of the years"),
            ("0001-01-01T00:00:00+01:00", "outside of the years"),
            ("+2026-11-22T08:30:00Z", "the form is"),
        ] {
            let error = text.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains("is not a point in time: ") && error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_limits_are_written_and_read() {
        for time in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(time.to_string().parse(), Ok(time));
            assert_eq!(Timestamp::from_postgres(time.to_postgres()), Ok(time));
            assert_eq!(Timestamp::try_from(SystemTime::from(time)), Ok(time));
        }
        assert_eq!(Timestamp::MAX.checked_add(Duration::from_micros(1)), None);
        assert_eq!(Timestamp::MIN.checked_sub(Duration::from_micros(1)), None);
        assert_eq!(Timestamp::MIN.since(Timestamp::MAX), None);
        for raw in [i64::MAX, i64::MIN] {
            assert!(Timestamp::from_postgres(raw).unwrap_err().to_string().contains("infinity is not"));
        }
        for raw in [i64::MAX - 1, i64::MIN + 1] {
            assert!(Timestamp::from_postgres(raw).unwrap_err().to_string().contains("outside of"));
        }
    }

    #[test]
    fn a_time_is_a_text_in_json() {
        let time: Timestamp = "2026-11-22T08:30:00Z".parse().unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2026-11-22T08:30:00Z\"");
        let error = serde_json::from_str::<Timestamp>("1700000000").unwrap_err().to_string();
        assert!(error.contains("expected a point in time as a text"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let time = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            prop_assert_eq!(Timestamp::try_from(SystemTime::from(time)), Ok(time));
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
