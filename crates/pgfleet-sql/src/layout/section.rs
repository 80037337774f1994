//! Files that hold the way forward and the way back in sections: those of goose and dbmate.
//!
//! Both tools look at lines, not at SQL, so this does too.

use super::Layout;

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section<'a> {
    pub(super) text: &'a str,
    /// The line of the file that the part begins with.
    pub(super) first_line: u32,
    pub(super) no_transaction: bool,
}

/// The parts of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sections<'a> {
    /// The comments before the first section.
    pub(super) header: &'a str,
    pub(super) up: Section<'a>,
    pub(super) down: Option<Section<'a>>,
    /// The lines of further markers, which dbmate does not look for.
    pub(super) passed_over: Vec<u32>,
}

/// What is wrong, in which line, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SectionError {
    pub(super) line: u32,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Up {
        no_transaction: bool,
    },
    Down {
        no_transaction: bool,
    },
    /// Of goose: the whole file runs without a transaction.
    NoTransaction,
    /// Of goose: what is between is one statement, which the lexer sees anyway.
    Ignored,
}

/// Which of the layouts with sections a text is written in.
pub(super) fn recognise(text: &str) -> Option<Layout> {
    text.lines().find_map(|line| {
        let said = line.trim_start().strip_prefix("--")?.trim();
        if goose_command(said).is_some_and(|command| command.eq_ignore_ascii_case("up")) {
            return Some(Layout::Goose);
        }
        (said == "migrate:up" || said.starts_with("migrate:up ")).then_some(Layout::Dbmate)
    })
}

/// Cuts a file into its sections.
pub(super) fn cut(text: &str, layout: Layout) -> Result<Sections<'_>, SectionError> {
    let mut starts: Vec<(Marker, usize, usize, u32)> = Vec::new();
    let mut no_transaction = false;
    let mut passed_over = Vec::new();
    let mut offset = 0;
    for (line, number) in text.split_inclusive('\n').zip(1u32..) {
        let start = offset;
        offset += line.len();
        let fail = |message: String, hint| SectionError { line: number, message, hint };
        let marker = match layout {
            Layout::Goose => goose(line),
            _ => dbmate(line),
        };
        let Some(marker) = marker.map_err(|(message, hint)| fail(message, hint))? else {
            let said = line.trim();
            if starts.is_empty() && !said.is_empty() && !said.starts_with("--") {
                return Err(fail("SQL before the first section".into(), missing_up(layout)));
            }
            continue;
        };
        match marker {
            Marker::NoTransaction => no_transaction = true,
            Marker::Ignored => {}
            // It takes the first of each kind, and what stands behind the second of these is all of the way back.
            Marker::Up { .. } | Marker::Down { .. } if layout == Layout::Dbmate && starts.len() == 2 => {
                passed_over.push(number);
            }
            Marker::Up { .. } if !starts.is_empty() => {
                return Err(fail(
                    "a second section for the way forward".into(),
                    "keep one section of each kind, the way forward first",
                ));
            }
            Marker::Down { .. } if starts.len() != 1 => {
                return Err(fail(
                    "a section for the way back that does not follow the way forward".into(),
                    "keep one section of each kind, the way forward first",
                ));
            }
            Marker::Up { .. } | Marker::Down { .. } => starts.push((marker, start, offset, number + 1)),
        }
    }
    let Some(&(marker, header_end, up_start, first_line)) = starts.first() else {
        return Err(SectionError {
            line: 1,
            message: "no section for the way forward".into(),
            hint: missing_up(layout),
        });
    };
    let up_end = starts.get(1).map_or(text.len(), |down| down.1);
    let without = |marker| {
        no_transaction || matches!(marker, Marker::Up { no_transaction: true } | Marker::Down { no_transaction: true })
    };
    Ok(Sections {
        header: &text[..header_end],
        up: Section { text: &text[up_start..up_end], first_line, no_transaction: without(marker) },
        down: starts.get(1).map(|&(marker, _, start, first_line)| Section {
            text: &text[start..],
            first_line,
            no_transaction: without(marker),
        }),
        passed_over,
    })
}

fn missing_up(layout: Layout) -> &'static str {
    match layout {
        Layout::Goose => "put the line `-- +goose Up` before the SQL",
        _ => "put the line `-- migrate:up` before the SQL",
    }
}

type Marked = Result<Option<Marker>, (String, &'static str)>;

fn goose_command(said: &str) -> Option<&str> {
    let (prefix, rest) = said.split_at_checked(6)?;
    let matches = prefix.eq_ignore_ascii_case("+goose") && rest.starts_with(char::is_whitespace);
    matches.then(|| rest.trim())
}

fn goose(line: &str) -> Marked {
    let Some(command) = line.trim().strip_prefix("--").and_then(|said| goose_command(said.trim())) else {
        return Ok(None);
    };
    let words: Vec<_> = command.split_whitespace().map(str::to_ascii_uppercase).collect();
    match words.join(" ").as_str() {
        "UP" => Ok(Some(Marker::Up { no_transaction: false })),
        "DOWN" => Ok(Some(Marker::Down { no_transaction: false })),
        "NO TRANSACTION" => Ok(Some(Marker::NoTransaction)),
        "STATEMENTBEGIN" | "STATEMENTEND" | "ENVSUB OFF" => Ok(Some(Marker::Ignored)),
        "ENVSUB ON" => Err((
            "`-- +goose ENVSUB ON` puts environment variables into SQL, which is not supported".into(),
            "write the values into the file, or use the placeholders of a seed",
        )),
        _ => Err((
            format!("unknown annotation `+goose {command}`"),
            "goose knows Up, Down, StatementBegin, StatementEnd and NO TRANSACTION",
        )),
    }
}

fn dbmate(line: &str) -> Marked {
    let Some(said) = line.strip_prefix("--").map(str::trim).and_then(|said| said.strip_prefix("migrate:")) else {
        return Ok(None);
    };
    let mut words = said.split_whitespace();
    let direction = words.next().unwrap_or_default();
    let mut no_transaction = false;
    for option in words {
        match option {
            "transaction:false" => no_transaction = true,
            "transaction:true" => no_transaction = false,
            _ => return Err((format!("unknown option `{option}`"), "dbmate knows `transaction:false`")),
        }
    }
    match direction {
        "up" => Ok(Some(Marker::Up { no_transaction })),
        "down" => Ok(Some(Marker::Down { no_transaction })),
        _ => Err((
            format!("unknown section `migrate:{direction}`"),
            "dbmate knows `-- migrate:up` and `-- migrate:down`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str, layout: Layout) -> (u32, String) {
        let error = cut(text, layout).unwrap_err();
        (error.line, error.message)
    }

    #[test]
    fn goose_sections_are_found_in_any_case_and_spacing() {
        let text = "-- header\n-- +GOOSE no transaction\r\n\n--  +goose up\r\n-- +goose StatementBegin\nselect 1;\n-- +goose StatementEnd\n-- +goose Down\nselect 2;\n";
        assert_eq!(recognise(text), Some(Layout::Goose));
        let sections = cut(text, Layout::Goose).unwrap();
        assert!(sections.header.starts_with("-- header\n"));
        let up = "-- +goose StatementBegin\nselect 1;\n-- +goose StatementEnd\n";
        assert_eq!(sections.up, Section { text: up, first_line: 5, no_transaction: true });
        assert_eq!(sections.down, Some(Section { text: "select 2;\n", first_line: 9, no_transaction: true }));
    }

    #[test]
    fn dbmate_sections_carry_their_own_options() {
        let text = "-- migrate:up transaction:false\nselect 1;\n\n-- migrate:down\n";
        assert_eq!(recognise(text), Some(Layout::Dbmate));
        let sections = cut(text, Layout::Dbmate).unwrap();
        assert_eq!(sections.up, Section { text: "select 1;\n\n", first_line: 2, no_transaction: true });
        assert_eq!(sections.down, Some(Section { text: "", first_line: 5, no_transaction: false }));
        assert_eq!(cut("-- migrate:up", Layout::Dbmate).unwrap().down, None);
    }

    #[test]
    fn dbmate_sees_the_first_marker_of_each_kind() {
        let sections =
            cut("-- migrate:up\n-- migrate:down\n-- migrate:up\nselect 1;\n-- migrate:down\n", Layout::Dbmate);
        let sections = sections.unwrap();
        assert_eq!((sections.up.text, sections.passed_over), ("", vec![3, 5]));
        assert_eq!(sections.down.unwrap().text, "-- migrate:up\nselect 1;\n-- migrate:down\n");
    }

    #[test]
    fn files_without_order_are_refused_with_their_line() {
        assert_eq!(fails("", Layout::Goose), (1, "no section for the way forward".into()));
        assert_eq!(fails("-- x\nselect 1;\n-- +goose Up\n", Layout::Goose), (2, "SQL before the first section".into()));
        assert_eq!(fails("-- +goose Up\n-- +goose Up\n", Layout::Goose).0, 2);
        assert_eq!(fails("-- migrate:down\n-- migrate:up\n", Layout::Dbmate).0, 1);
        assert_eq!(fails("-- migrate:up\n-- migrate:up\n-- migrate:down\n", Layout::Dbmate).0, 2);
        assert_eq!(fails("-- +goose Up\n-- +goose Down\n-- +goose Up\n", Layout::Goose).0, 3);
        assert_eq!(
            fails("-- migrate:up\n-- migrate:sideways\n", Layout::Dbmate),
            (2, "unknown section `migrate:sideways`".into())
        );
        assert_eq!(fails("-- migrate:up fast\n", Layout::Dbmate), (1, "unknown option `fast`".into()));
        assert_eq!(fails("-- +goose Upp\n", Layout::Goose), (1, "unknown annotation `+goose Upp`".into()));
        assert!(fails("-- +goose ENVSUB ON\n-- +goose Up\n", Layout::Goose).1.contains("not supported"));
    }
}
