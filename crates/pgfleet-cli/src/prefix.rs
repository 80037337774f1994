//! Lines of several programs in one terminal, each with its service's name in front.

use std::io::{IsTerminal as _, Write as _};

use pgfleet_control::services::{Happened, Watcher};

use crate::talk::Talk;

/// Colours that can be told apart on light and on dark ground; not red, which says that something failed.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 96];

/// Prints what programs say.
pub(crate) struct Prefixed {
    talk: Talk,
    names: Vec<String>,
    width: usize,
    coloured: bool,
}

impl Prefixed {
    pub(crate) fn new(talk: Talk, names: impl Iterator<Item = String>) -> Self {
        let names: Vec<String> = names.collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let coloured = wanted && std::io::stdout().is_terminal();
        Self { talk, names, width, coloured }
    }

    fn prefixed(&self, service: &str, line: &str) -> String {
        let at = self.names.iter().position(|name| name == service).unwrap_or(0);
        let width = self.width;
        if !self.coloured {
            return format!("{service:width$} | {}\n", plain(line));
        }
        let colour = COLOURS[at % COLOURS.len()];
        format!("\u{1b}[{colour}m{service:width$} |\u{1b}[0m {}\u{1b}[0m\n", coloured(line))
    }
}

impl Watcher for Prefixed {
    fn line(&self, service: &str, line: &str) {
        let text = self.prefixed(service, line);
        // A reader that went away must not stop the services.
        let _gone = if self.talk.json {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes())
        };
    }

    fn happened(&self, service: &str, happened: &Happened) {
        self.talk.say(&format!("{service}: {happened}"));
    }
}

/// A line without anything that a terminal would obey.
pub(crate) fn plain(line: &str) -> String {
    clean(line, false)
}

/// The same, but colours stay.
fn coloured(line: &str) -> String {
    clean(line, true)
}

fn clean(line: &str, keep_colours: bool) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let sequence = rest.strip_prefix("\u{1b}[").map(|tail| {
            let end = tail.find(|c: char| ('@'..='~').contains(&c)).map_or(tail.len(), |end| end + 1);
            2 + end
        });
        let length = sequence.unwrap_or_else(|| rest.chars().next().map_or(0, char::len_utf8));
        let (control, tail) = rest.split_at(length);
        let is_colour = control.ends_with('m')
            && control
                .get(2..control.len() - 1)
                .is_some_and(|text| text.chars().all(|c| c.is_ascii_digit() || c == ';'));
        if keep_colours && sequence.is_some() && is_colour {
            shown.push_str(control);
        }
        rest = tail;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_passed_on_but_colours() {
        let line = "a\u{1b}[31mred\u{1b}[0m\u{1b}[2Jb\u{7}\tc\u{1b}]0;title\u{7}d\u{9b}e\u{1b}[";
        assert_eq!(plain(line), "aredb\tc]0;titlede");
        assert_eq!(coloured(line), "a\u{1b}[31mred\u{1b}[0mb\tc]0;titlede");
    }
}
