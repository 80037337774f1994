//! What a program prints, line by line.

use std::collections::VecDeque;

/// A line longer than that comes in pieces, so that a program without line ends cannot fill our memory.
const LONGEST: usize = 16 * 1024;

/// How many of the last lines are kept for whoever asks why a program failed.
const KEPT: usize = 20;

/// Cuts what was read into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes what was read, and hands out the lines that are whole.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.add(&rest[..end], &mut lines);
            lines.push(text(&std::mem::take(&mut self.partial)));
            rest = &rest[end + 1..];
        }
        self.add(rest, &mut lines);
        lines
    }

    /// Hands out the last line when it has no end.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| text(&std::mem::take(&mut self.partial)))
    }

    fn add(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        self.partial.extend_from_slice(bytes);
        while self.partial.len() > LONGEST {
            let mut end = LONGEST;
            // Not in the middle of a character, which takes four bytes at most.
            while end > LONGEST - 4 && self.partial[end] & 0b1100_0000 == 0b1000_0000 {
                end -= 1;
            }
            let rest = self.partial.split_off(end);
            lines.push(text(&std::mem::replace(&mut self.partial, rest)));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last lines.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tail(VecDeque<String>);

impl Tail {
    pub(crate) fn push(&mut self, line: &str) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_reads_end() {
        let text = "first\r\nsecond \u{e9}\n\nlast";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found: Vec<String> = text.as_bytes().chunks(size).flat_map(|chunk| lines.push(chunk)).collect();
            found.extend(lines.finish());
            assert_eq!(found, ["first", "second \u{e9}", "", "last"], "{size}");
            assert_eq!(lines.finish(), None);
        }
    }

    #[test]
    fn what_is_no_utf_8_is_shown_as_well_as_it_can_be() {
        assert_eq!(Lines::default().push(b"a\xffb\n"), ["a\u{fffd}b"]);
    }

    #[test]
    fn a_line_without_end_comes_in_pieces_and_whole_characters() {
        let long = "\u{20ac}".repeat(20_000);
        let mut lines = Lines::default();
        let mut found: Vec<String> = long.as_bytes().chunks(1000).flat_map(|chunk| lines.push(chunk)).collect();
        assert!(found.len() == 3 && found.iter().all(|piece| piece.len() <= LONGEST), "{}", found.len());
        found.extend(lines.finish());
        assert_eq!(found.concat(), long);
    }

    #[test]
    fn the_last_twenty_lines_are_kept() {
        let mut tail = Tail::default();
        (0..50).for_each(|number| tail.push(&number.to_string()));
        assert_eq!((tail.lines().len(), tail.lines()[0].as_str(), tail.lines()[19].as_str()), (20, "30", "49"));
    }
}
