//! Where in a text something is, in the ways that people and servers count.

use std::fmt;

/// A place as editors show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineColumn {
    /// The line, from 1.
    pub line: u32,
    /// The character in the line, from 1.
    pub column: u32,
}

impl fmt::Display for LineColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Returns the line and column of a byte offset.
///
/// Lines end with `\n`, also as part of `\r\n`. An offset behind the text counts as its end, one inside a character as
/// that character.
pub fn line_column(text: &str, byte_offset: usize) -> LineColumn {
    let offset = text.floor_char_boundary(byte_offset);
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    LineColumn {
        line: count(before.bytes().filter(|&b| b == b'\n').count()),
        column: count(before[line_start..].chars().count()),
    }
}

/// Returns the byte offset of the character with the given index, which counts from 0.
///
/// PostgreSQL gives error positions in characters, counted from 1: take one off first. An index behind the text gives
/// the text's length.
pub fn byte_of_char(text: &str, char_offset: usize) -> usize {
    text.char_indices().nth(char_offset).map_or(text.len(), |(offset, _)| offset)
}

/// Turns a number of things before into a number from 1.
fn count(before: usize) -> u32 {
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let text = "ä\r\nb\u{1F600}c\n";
        let places: Vec<_> = [0, 2, 4, 5, 9, 10, 11, 99].iter().map(|&o| line_column(text, o).to_string()).collect();
        assert_eq!(places, ["1:1", "1:2", "2:1", "2:2", "2:3", "2:4", "3:1", "3:1"]);
        assert_eq!(line_column(text, 1).to_string(), "1:1");
        assert_eq!(line_column("", 0).to_string(), "1:1");
    }

    #[test]
    fn server_positions_become_byte_offsets() {
        let text = "ä\u{1F600}x";
        assert_eq!((0..5).map(|i| byte_of_char(text, i)).collect::<Vec<_>>(), [0, 2, 6, 7, 7]);
    }
}
