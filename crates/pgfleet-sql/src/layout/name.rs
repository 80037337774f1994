//! What the names of files and folders say.

use super::Layout;
use crate::version::Version;

/// What a name stands for in a layout.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Up(Version, String),
    Down(Version, String),
    Repeatable(String),
}

/// The shapes of names, each belonging to several layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `1_x.sql`.
    Plain,
    /// `1_x.up.sql`.
    UpDown,
    /// `V1__x.sql`.
    Prefixed,
    /// `R__x.sql`.
    Repeatable,
}

/// Whether a file is SQL by its name, in any case: `.SQL` is to be refused rather than overlooked.
pub(super) fn is_sql(name: &str) -> bool {
    name.len() >= 4 && name.as_bytes()[name.len() - 4..].eq_ignore_ascii_case(b".sql")
}

/// Which shape a file's name has, if any.
pub(super) fn shape(name: &str) -> Option<Shape> {
    if repeatable(name).is_some() {
        Some(Shape::Repeatable)
    } else if prefixed(name, 'V').or_else(|| prefixed(name, 'U')).is_some() {
        Some(Shape::Prefixed)
    } else {
        match native(name)? {
            (_, _, Some(_)) => Some(Shape::UpDown),
            _ => Some(Shape::Plain),
        }
    }
}

/// Reads a file's name as one of the layout; Diesel's names are those of folders.
pub(super) fn parse(name: &str, layout: Layout) -> Option<Name> {
    let spaces = |description: &str| description.replace('_', " ");
    match layout {
        Layout::Pgfleet | Layout::Sqlx | Layout::GolangMigrate | Layout::Dbmate | Layout::Goose => {
            if layout == Layout::Pgfleet
                && let Some(description) = repeatable(name)
            {
                return Some(Name::Repeatable(description.to_owned()));
            }
            let sections = matches!(layout, Layout::Dbmate | Layout::Goose);
            match native(name)? {
                (_, _, Some(_)) if sections => None,
                (_, _, None) if layout == Layout::GolangMigrate => None,
                (version, description, Some(Direction::Down)) => Some(Name::Down(version, description.to_owned())),
                (version, description, _) => Some(Name::Up(version, description.to_owned())),
            }
        }
        Layout::Flyway | Layout::Refinery => {
            if let Some((version, description)) = prefixed(name, 'V') {
                return Some(Name::Up(version, spaces(description)));
            }
            if let Some((version, description)) = prefixed(name, 'U') {
                return Some(match layout {
                    Layout::Flyway => Name::Down(version, spaces(description)),
                    _ => Name::Up(version, spaces(description)),
                });
            }
            match layout {
                Layout::Flyway => repeatable(name).map(|description| Name::Repeatable(spaces(description))),
                _ => None,
            }
        }
        Layout::Diesel => {
            let (version, description) = name.split_once('_')?;
            let valid = !description.is_empty() && !version.contains('.');
            Some(Name::Up(version.parse().ok()?, description.to_owned())).filter(|_| valid)
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

fn native(name: &str) -> Option<(Version, &str, Option<Direction>)> {
    let stem = name.strip_suffix(".sql")?;
    let (stem, direction) = if let Some(stem) = stem.strip_suffix(".up") {
        (stem, Some(Direction::Up))
    } else if let Some(stem) = stem.strip_suffix(".down") {
        (stem, Some(Direction::Down))
    } else {
        (stem, None)
    };
    let (version, description) = stem.split_once('_')?;
    let valid = version.bytes().all(|b| b.is_ascii_digit()) && !description.is_empty();
    Some((version.parse().ok()?, description, direction)).filter(|_| valid)
}

/// `V1_10__x.sql`, with the case that Flyway wants.
fn prefixed(name: &str, prefix: char) -> Option<(Version, &str)> {
    let (version, description) = name.strip_suffix(".sql")?.strip_prefix(prefix)?.split_once("__")?;
    let valid = !version.contains('-') && !description.is_empty();
    Some((version.parse().ok()?, description)).filter(|_| valid)
}

fn repeatable(name: &str) -> Option<&str> {
    name.strip_suffix(".sql")?.strip_prefix("R__").filter(|description| !description.is_empty())
}
