//! Values: what kinds of settings there are, and how they are read from TOML and from text.

use std::fmt;
use std::time::Duration;

use toml_edit::Item;

use super::name::closest;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Path,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// An integer, or the word `auto`.
    IntegerOrAuto {
        min: i64,
        max: i64,
    },
    /// How long something may take; PostgreSQL must be able to hold it.
    Duration,
    /// How long something is kept.
    Period,
    Words(&'static [&'static str]),
    List,
}

/// A value of the right kind. It may be a secret: no `Debug`, and `Display` is for what the schema says is none.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Integer(i64),
    Auto,
    Duration(Duration),
    List(Vec<String>),
}

/// Why a value was refused: what was expected, what was found.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Kind {
    /// Reads what a file holds.
    pub(super) fn read_item(self, item: &Item) -> Result<Value, Refusal> {
        let value = match self {
            Self::Text | Self::Path => item.as_str().map(str::to_owned).map(Value::Text),
            Self::Bool => item.as_bool().map(Value::Bool),
            Self::IntegerOrAuto { .. } if item.as_str() == Some("auto") => Some(Value::Auto),
            Self::Integer { .. } | Self::IntegerOrAuto { .. } => item.as_integer().map(Value::Integer),
            Self::Duration | Self::Period | Self::Words(_) => match item.as_str() {
                Some(text) => return self.read_text(text),
                None => None,
            },
            Self::List => match item.as_array() {
                Some(array) => {
                    let mut list = Vec::with_capacity(array.len());
                    for element in array {
                        let Some(text) = element.as_str() else {
                            let found = found(&Item::Value(element.clone()));
                            return Err(self.refuse(format!("{found} among them")));
                        };
                        list.push(text.to_owned());
                    }
                    Some(Value::List(list))
                }
                None => None,
            },
        };
        let value = value.ok_or_else(|| self.refuse(found(item)))?;
        self.check(value)
    }

    /// Reads what an environment variable or a flag holds, or a default of the schema.
    pub(super) fn read_text(self, text: &str) -> Result<Value, Refusal> {
        let quoted = || format!("`{}`", text.escape_debug());
        let value = match self {
            Self::Text | Self::Path => Value::Text(text.to_owned()),
            Self::Bool => match text {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => return Err(self.refuse(quoted())),
            },
            Self::IntegerOrAuto { .. } if text == "auto" => Value::Auto,
            Self::Integer { .. } | Self::IntegerOrAuto { .. } => {
                Value::Integer(text.trim().parse().map_err(|_| self.refuse(quoted()))?)
            }
            Self::Duration | Self::Period => {
                Value::Duration(parse_duration(text).ok_or_else(|| self.refuse(quoted()))?)
            }
            Self::Words(words) if words.contains(&text) => Value::Text(text.to_owned()),
            Self::Words(words) => {
                let hint = closest(text, words.iter().copied()).map(|word| format!("did you mean `{word}`?"));
                return Err(Refusal { hint, ..self.refuse(quoted()) });
            }
            Self::List => Value::List(read_list(text).ok_or_else(|| self.refuse("something else".into()))?),
        };
        self.check(value)
    }

    fn check(self, value: Value) -> Result<Value, Refusal> {
        let nul = match &value {
            Value::Text(text) => text.contains('\0'),
            Value::List(list) => list.iter().any(|text| text.contains('\0')),
            _ => false,
        };
        if nul {
            return Err(Refusal { message: "must not contain a NUL character".into(), hint: None });
        }
        match (self, &value) {
            (Self::Integer { min, max } | Self::IntegerOrAuto { min, max }, Value::Integer(number))
                if *number < min || *number > max =>
            {
                let message = format!("must be between {min} and {max}, found {number}");
                Err(Refusal { message, hint: None })
            }
            // PostgreSQL keeps time-outs as milliseconds in 32 bits.
            (Self::Duration, Value::Duration(duration)) if duration.as_millis() > i32::MAX.unsigned_abs().into() => {
                Err(Refusal { message: "must be at most 24 days".into(), hint: None })
            }
            (Self::Period, Value::Duration(period)) if *period > LONGEST_PERIOD => {
                Err(Refusal { message: "must be at most 36500 days".into(), hint: None })
            }
            _ => Ok(value),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "every caller has just made the text")]
    fn refuse(self, found: String) -> Refusal {
        Refusal { message: format!("must be {self}, found {found}"), hint: None }
    }
}

/// Writes what is expected, as in `must be an integer`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a string"),
            Self::Path => f.write_str("a path"),
            Self::Bool => f.write_str("true or false"),
            Self::Integer { .. } => f.write_str("an integer"),
            Self::IntegerOrAuto { .. } => f.write_str("an integer or \"auto\""),
            Self::Duration => f.write_str("a duration such as \"30s\""),
            Self::Period => f.write_str("a duration such as \"7d\""),
            Self::Words([word]) => write!(f, "\"{word}\""),
            Self::Words(words) => {
                f.write_str("one of ")?;
                for (index, word) in words.iter().enumerate() {
                    write!(f, "{}\"{word}\"", if index > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Self::List => f.write_str("a list of strings"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Auto => f.write_str("auto"),
            Self::Duration(duration) => f.write_str(&write_duration(*duration)),
            Self::List(list) => f.write_str(&write_list(list)),
        }
    }
}

/// Names the type of a TOML item.
pub(super) fn found(item: &Item) -> String {
    match item.type_name() {
        name @ ("integer" | "array" | "array of tables" | "inline table") => format!("an {name}"),
        "datetime" => "a date".into(),
        name => format!("a {name}"),
    }
}

/// Writes a list as TOML does.
pub(super) fn write_list(list: &[String]) -> String {
    list.iter().collect::<toml_edit::Array>().to_string()
}

/// Reads `a, b`, or a TOML array where an element holds a comma.
fn read_list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if text.starts_with('[') {
        let value: toml_edit::Value = text.parse().ok()?;
        return value.as_array()?.iter().map(|element| element.as_str().map(str::to_owned)).collect();
    }
    Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// A hundred years, which a timestamp of PostgreSQL still takes.
const LONGEST_PERIOD: Duration = Duration::from_hours(24 * 36_500);

/// Units from the largest, with their milliseconds.
const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `30s`, `500ms`, `1m30s`, `7d`; a number without a unit is refused, because everybody guesses another one.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        rest = tail;
    }
    Some(Duration::from_millis(total))
}

fn write_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".into();
    }
    let (unit, size) = UNITS.iter().find(|(_, size)| millis.is_multiple_of(*size)).unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis, written) in [
            ("500ms", 500, "500ms"),
            ("2s", 2_000, "2s"),
            ("60s", 60_000, "1m"),
            ("1m30s", 90_000, "90s"),
            ("24h", 86_400_000, "1d"),
            ("0s", 0, "0s"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(write_duration(duration), written);
        }
    }

    #[test]
    fn a_duration_without_unit_or_number_is_none() {
        for text in
            ["", "30", "s", "-1s", "1.5s", "30 s", "30S", "5y", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn lists_are_read_from_commas_and_from_toml() {
        assert_eq!(read_list("a, b,,").unwrap(), ["a", "b"]);
        assert_eq!(read_list(r#"["a,b", "c"]"#).unwrap(), ["a,b", "c"]);
        assert!(read_list("").unwrap().is_empty());
        assert_eq!(read_list("[1]"), None);
        assert_eq!(read_list("[a"), None);
    }
}
