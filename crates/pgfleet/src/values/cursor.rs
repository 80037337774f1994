//! Where a page of a list ends, as a text that clients hand back.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::ValueError;
use super::keys::Keys;

/// What stands before the key: the form's version, the direction, and which list it is of.
const VERSION: u8 = 1;
const LIST: usize = 4;

/// How much of a hash stands behind it.
const CHECK: usize = 4;

/// The longest text that is looked at.
const LONGEST: usize = 4096;

/// A place in a list, to go on from: a text for the client to hand back, opaque to it.
///
/// It holds the key of a row, not the place's number, so rows that come and go meanwhile make no difference. It is
/// neither secret nor signed: a client can find out what is in it, and make up another. All it can reach that way is
/// another place of the same list, whose conditions are not part of it. A text that was cut or mixed up is found out by
/// a checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

/// Which way a list goes on from a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

impl Cursor {
    /// A text that a client sent; whether it is a cursor is seen when a page is asked for.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text: letters, digits, `-` and `_`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn encode<K: Keys>(direction: Direction, list: [u8; LIST], key: &K) -> Self {
        let mut bytes = vec![VERSION, u8::from(direction == Direction::Backward)];
        bytes.extend_from_slice(&list);
        // Values that are columns' keys; a map with keys that are no texts is not among them.
        serde_json::to_writer(&mut bytes, key).expect("the key of a row can be written as JSON");
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn decode<K: Keys>(&self, list: [u8; LIST]) -> Result<(Direction, K), ValueError> {
        let broken = || ValueError::new("this is not a cursor as it was handed out");
        if self.0.len() > LONGEST {
            return Err(broken());
        }
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).map_err(|_| broken())?;
        let (content, sum) = bytes.split_last_chunk::<CHECK>().ok_or_else(broken)?;
        if check(content) != *sum {
            return Err(broken());
        }
        let (&[version, direction], rest) = content.split_first_chunk().ok_or_else(broken)?;
        if version != VERSION {
            return Err(ValueError::new("this cursor is of another version of the program; begin again"));
        }
        let (of, key) = rest.split_first_chunk::<LIST>().ok_or_else(broken)?;
        let other = || ValueError::new("this cursor is of another list");
        if *of != list {
            return Err(other());
        }
        let direction = match direction {
            0 => Direction::Forward,
            1 => Direction::Backward,
            _ => return Err(broken()),
        };
        // The checksum was right: the columns have other types now.
        let key = serde_json::from_slice(key).map_err(|_| other())?;
        Ok((direction, key))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells a list from others: by what it is ordered by.
pub(super) fn list<'a>(order: impl Iterator<Item = (&'a str, bool)>) -> [u8; LIST] {
    let mut hash = Sha256::new();
    for (column, descending) in order {
        hash.update(column.as_bytes());
        hash.update([0, u8::from(descending)]);
    }
    first(&hash.finalize())
}

fn check(content: &[u8]) -> [u8; CHECK] {
    first(&Sha256::digest(content))
}

fn first<const N: usize>(hash: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Two = (i64, String);

    const HERE: [u8; LIST] = [1, 2, 3, 4];

    #[test]
    fn a_cursor_is_of_one_list() {
        let cursor = Cursor::encode(Direction::Backward, HERE, &(7_i64, "x".to_owned()));
        assert_eq!(cursor.decode::<Two>(HERE), Ok((Direction::Backward, (7, "x".to_owned()))));
        let error = |error: ValueError| error.to_string();
        let of_other = "this cursor is of another list";
        assert_eq!(cursor.decode::<Two>([0; LIST]).map_err(error), Err(of_other.to_owned()));
        assert_eq!(cursor.decode::<(i64, i64)>(HERE).map_err(error), Err(of_other.to_owned()));
        assert_eq!(cursor.decode::<(i64,)>(HERE).map_err(error), Err(of_other.to_owned()));
        let newer = [&[2, 0][..], &HERE, b"[]"].concat();
        let newer = Cursor(URL_SAFE_NO_PAD.encode([&newer[..], &check(&newer)].concat()));
        assert!(newer.decode::<Two>(HERE).unwrap_err().to_string().contains("of another version"));
    }

    #[test]
    fn a_mangled_cursor_is_none() {
        let cursor = Cursor::encode(Direction::Forward, HERE, &(7_i64, "x".to_owned()));
        let text = cursor.as_str();
        for at in 0..text.len() {
            let cut = Cursor::new(&text[..at]);
            assert!(cut.decode::<Two>(HERE).unwrap_err().to_string().contains("not a cursor"), "{cut}");
            let mut other = text.to_owned();
            let with = if &text[at..=at] == "A" { "B" } else { "A" };
            other.replace_range(at..=at, with);
            assert!(Cursor::new(other).decode::<Two>(HERE).is_err(), "{at}");
        }
        assert!(Cursor::new(format!("{text}A")).decode::<Two>(HERE).is_err());
        assert!(Cursor::new("x".repeat(1_000_000)).decode::<Two>(HERE).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(number in any::<i64>(), text in ".*") {
            let key = (number, text);
            let cursor = Cursor::encode(Direction::Forward, HERE, &key);
            prop_assume!(cursor.as_str().len() <= LONGEST);
            prop_assert_eq!(cursor.decode::<Two>(HERE), Ok((Direction::Forward, key)));
        }

        #[test]
        fn no_text_is_too_strange(text in ".*") {
            prop_assert!(Cursor::new(text).decode::<Two>(HERE).is_err());
        }
    }
}
