//! Points in time as text, in the proleptic Gregorian calendar.
//!
//! Days are counted as in Howard Hinnant's `days_from_civil`: years that begin in March, so that the leap day is a
//! year's last.

use std::fmt;

/// Microseconds of a second and of a day.
pub(super) const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The digits of a microsecond.
const DIGITS: usize = 6;

/// Writes microseconds since 1970 as `2026-11-22T08:30:00.25Z`.
pub(super) fn write(f: &mut fmt::Formatter<'_>, micros: i64) -> fmt::Result {
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let time = micros.rem_euclid(DAY);
    let (seconds, fraction) = (time / SECOND, time % SECOND);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
    if fraction != 0 {
        write!(f, ".{fraction:06}")?;
    }
    f.write_str("Z")
}

/// Reads a point in time; the reason why it is none.
///
/// Years have four digits and may be any. Digits below the microsecond are cut off.
pub(super) fn read(text: &str) -> Result<i64, &'static str> {
    let bytes = text.as_bytes();
    let mut reader = Reader { rest: bytes };
    let year = reader.number(4)?;
    reader.one_of(b"-")?;
    let month = reader.number(2)?;
    reader.one_of(b"-")?;
    let day = reader.number(2)?;
    reader.one_of(b"Tt ")?;
    let hour = reader.number(2)?;
    reader.one_of(b":")?;
    let minute = reader.number(2)?;
    reader.one_of(b":")?;
    let second = reader.number(2)?;
    let fraction = if reader.one_of(b".").is_ok() { reader.fraction()? } else { 0 };
    let offset = reader.offset()?;
    if !reader.rest.is_empty() {
        return Err("something stands behind it");
    }
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return Err("there is no such day");
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err("there is no such time of day");
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok(seconds * SECOND + fraction)
}

const FORM: &str = "the form is 2026-11-22T08:30:00Z";

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn number(&mut self, digits: usize) -> Result<i64, &'static str> {
        let (number, rest) = self.rest.split_at_checked(digits).ok_or(FORM)?;
        if !number.iter().all(u8::is_ascii_digit) {
            return Err(FORM);
        }
        self.rest = rest;
        Ok(number.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn one_of(&mut self, bytes: &[u8]) -> Result<u8, &'static str> {
        let (&byte, rest) = self.rest.split_first().filter(|(byte, _)| bytes.contains(byte)).ok_or(FORM)?;
        self.rest = rest;
        Ok(byte)
    }

    fn fraction(&mut self) -> Result<i64, &'static str> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Err(FORM);
        }
        let micros = self.number(digits.min(DIGITS))?;
        self.rest = &self.rest[digits.saturating_sub(DIGITS)..];
        let missing = DIGITS.saturating_sub(digits);
        Ok((0..missing).fold(micros, |micros, _| micros * 10))
    }

    /// In seconds, east of Greenwich.
    fn offset(&mut self) -> Result<i64, &'static str> {
        let sign = match self.one_of(b"Zz+-") {
            Ok(b'+') => 1,
            Ok(b'-') => -1,
            Ok(_) => return Ok(0),
            Err(_) if self.rest.is_empty() => return Err("it does not say Z or how far from UTC it is"),
            Err(form) => return Err(form),
        };
        let hours = self.number(2)?;
        // PostgreSQL leaves minutes out where there are none.
        let minutes = if self.one_of(b":").is_ok() { self.number(2)? } else { 0 };
        if hours > 23 || minutes > 59 {
            return Err("there is no such distance from UTC");
        }
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of an era, which is 400 years, and from the era's first of March to 1970.
const ERA: i64 = 146_097;
const EPOCH: i64 = 719_468;

/// Days since 1970.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    year.div_euclid(400) * ERA + day_of_era - EPOCH
}

/// Year, month and day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let day_of_era = days.rem_euclid(ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + days.div_euclid(ERA) * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = (1, 1, 1);
        for number in days(1, 1, 1)..=days(9999, 12, 31) {
            assert_eq!(civil(number), expected);
            assert_eq!(days(expected.0, expected.1, expected.2), number);
            let (year, month, day) = expected;
            expected = match (day == days_in(year, month), month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
        assert_eq!(days(1970, 1, 1), 0);
    }
}
