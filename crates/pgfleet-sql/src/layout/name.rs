//! What the names of files and folders say.

use super::Layout;
use crate::version::Version;

/// What a name stands for in a layout.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Up(Version, String),
    Down(Version, String),
    Repeatable(String),
    /// Of Flyway: runs when something happens. With the whole name as its description.
    Callback(Event, String),
}

/// When a callback of Flyway runs, in the order of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    AfterMigrateApplied,
    AfterMigrate,
    /// In a run that migrates, at a time that is none here.
    Within,
    /// When something failed, or in another command than `migrate`.
    Elsewhere,
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
    /// `afterMigrate__x.sql`.
    Callback,
    /// `1-x.sql` and `1.sql`.
    Numbered,
}

/// Whether a file is SQL by its name, in any case: `.SQL` is to be refused rather than overlooked.
pub(super) fn is_sql(name: &str) -> bool {
    name.len() >= 4 && name.as_bytes()[name.len() - 4..].eq_ignore_ascii_case(b".sql")
}

/// Whether a file holds settings of Flyway for the SQL file that its name begins with.
pub(super) fn is_conf(name: &str) -> bool {
    name.ends_with(".sql.conf")
}

/// Whether a file is one that Flyway or refinery finds in a folder below: a migration, a repeatable, a callback, or the
/// settings of one.
pub(super) fn is_nested(name: &str) -> bool {
    let sql = if is_conf(name) { &name[..name.len() - ".conf".len()] } else { name };
    matches!(shape(sql), Some(Shape::Prefixed | Shape::Repeatable | Shape::Callback))
}

/// Which shape a file's name has, if any.
pub(super) fn shape(name: &str) -> Option<Shape> {
    if repeatable(name).is_some() {
        Some(Shape::Repeatable)
    } else if callback(name).is_some() {
        Some(Shape::Callback)
    } else if prefixed(name, 'V').or_else(|| prefixed(name, 'U')).is_some() {
        Some(Shape::Prefixed)
    } else {
        match native(name) {
            Some((_, _, Some(_))) => Some(Shape::UpDown),
            Some(_) => Some(Shape::Plain),
            None => dbmate(name).map(|_| Shape::Numbered),
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
            let native = native(name).or_else(|| dbmate(name).filter(|_| layout == Layout::Dbmate));
            match native? {
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
                Layout::Flyway => repeatable(name)
                    .map(|description| Name::Repeatable(spaces(description)))
                    .or_else(|| callback(name).map(|(event, stem)| Name::Callback(event, stem.to_owned()))),
                _ => None,
            }
        }
        Layout::Diesel => {
            // Without an underscore all of the name is Diesel's version, of which the digits are enough to order it.
            let (version, description) = name.split_once('_').or_else(|| {
                let end = name.find(|c: char| !c.is_ascii_digit() && c != '-')?;
                Some((name[..end].strip_suffix('-')?, &name[end..]))
            })?;
            let valid = !description.is_empty() && !version.contains('.');
            Some(Name::Up(layout.version(version).ok()?, description.to_owned())).filter(|_| valid)
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

/// What dbmate takes besides `1_x.sql`: any name that begins with digits.
fn dbmate(name: &str) -> Option<(Version, &str, Option<Direction>)> {
    let stem = name.strip_suffix(".sql")?;
    let (version, rest) = stem.split_at(stem.find(|c: char| !c.is_ascii_digit()).unwrap_or(stem.len()));
    Some((version.parse().ok()?, rest.trim_start_matches(['-', '_', '.']), None))
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

/// `afterMigrate.sql` or `afterMigrate__x.sql`: the event, and the name without `.sql`.
fn callback(name: &str) -> Option<(Event, &str)> {
    let stem = name.strip_suffix(".sql")?;
    let event = stem.split_once("__").map_or(stem, |(event, _)| event);
    let event = match event {
        "afterMigrateApplied" => Event::AfterMigrateApplied,
        "afterMigrate" => Event::AfterMigrate,
        "beforeMigrate"
        | "beforeEachMigrate"
        | "afterEachMigrate"
        | "beforeEachMigrateStatement"
        | "afterEachMigrateStatement"
        | "beforeVersioned"
        | "afterVersioned"
        | "beforeRepeatables"
        | "afterRepeatables"
        | "beforeConnect"
        | "createSchema"
        | "beforeCreateSchema" => Event::Within,
        "afterMigrateError"
        | "afterEachMigrateError"
        | "afterEachMigrateStatementError"
        | "afterMigrateOperationFinish" => Event::Elsewhere,
        _ => {
            let command = event.strip_prefix("before").or_else(|| event.strip_prefix("after"))?;
            let command = command.strip_prefix("Each").unwrap_or(command);
            let others = ["Undo", "Clean", "Info", "Validate", "Baseline", "Repair"];
            others.iter().find(|other| command.starts_with(*other)).map(|_| Event::Elsewhere)?
        }
    };
    Some((event, stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn up(name: &str, layout: Layout) -> Option<(String, String)> {
        match parse(name, layout)? {
            Name::Up(version, description) => Some((version.to_string(), description)),
            _ => None,
        }
    }

    fn down(name: &str, layout: Layout) -> Option<String> {
        match parse(name, layout)? {
            Name::Down(version, _) => Some(version.to_string()),
            _ => None,
        }
    }

    fn pair(version: &str, description: &str) -> (String, String) {
        (version.into(), description.into())
    }

    #[test]
    fn names_say_version_and_description() {
        use Layout as L;
        assert_eq!(up("0001_create users.v2.sql", L::Pgfleet), Some(pair("0001", "create users.v2")));
        assert_eq!(up("1_a_b.up.sql", L::Pgfleet), Some(pair("1", "a_b")));
        assert_eq!(down("1_a_b.down.sql", L::GolangMigrate), Some("1".into()));
        assert_eq!(up("V1_10__add_big_index.sql", L::Flyway), Some(pair("1.10", "add big index")));
        assert_eq!(up("V1.2__x.sql", L::Refinery), Some(pair("1.2", "x")));
        assert_eq!(down("U1__x.sql", L::Flyway), Some("1".into()));
        assert_eq!(up("U1__x.sql", L::Refinery), Some(pair("1", "x")));
        assert_eq!(
            up("2026-07-30-140000-0000_create users", L::Diesel),
            Some(pair("202607301400000000", "create users"))
        );
        assert_eq!(up("2026-07-30-1400-create-users", L::Diesel), Some(pair("202607301400", "create-users")));
        assert_eq!(up("20260101-create_users.sql", L::Dbmate), Some(pair("20260101", "create_users")));
        assert_eq!(up("7.sql", L::Dbmate), Some(pair("7", "")));
        assert_eq!(up("7.up.sql", L::Dbmate), Some(pair("7", "up")));
        assert_eq!(parse("R__all_views.sql", L::Pgfleet), Some(Name::Repeatable("all_views".into())));
        assert_eq!(parse("R__all_views.sql", L::Flyway), Some(Name::Repeatable("all views".into())));
    }

    #[test]
    fn callbacks_of_flyway_are_told_apart() {
        let event = |name: &str| match parse(name, Layout::Flyway)? {
            Name::Callback(event, description) => Some((event, description)),
            _ => None,
        };
        assert_eq!(
            event("afterMigrateApplied__01_views.sql"),
            Some((Event::AfterMigrateApplied, "afterMigrateApplied__01_views".into()))
        );
        assert_eq!(event("afterMigrate.sql"), Some((Event::AfterMigrate, "afterMigrate".into())));
        assert_eq!(event("beforeEachMigrate__x.sql").unwrap().0, Event::Within);
        for name in ["afterMigrateError.sql", "beforeClean__x.sql", "afterEachUndoStatement.sql", "afterInfo.sql"] {
            assert_eq!(event(name).unwrap().0, Event::Elsewhere, "{name}");
            assert_eq!((shape(name), parse(name, Layout::Pgfleet)), (Some(Shape::Callback), None));
        }
        assert_eq!((event("after.sql"), event("aftermigrate.sql"), event("afterMigrations.sql")), (None, None, None));
    }

    #[test]
    fn names_that_only_look_right_are_none() {
        use Layout as L;
        for (name, layout) in [
            ("1.sql", L::Pgfleet),
            ("1_.sql", L::Pgfleet),
            ("a_b.sql", L::Pgfleet),
            ("1-2_b.sql", L::Pgfleet),
            ("1_x.SQL", L::Pgfleet),
            ("1_.up.sql", L::Pgfleet),
            ("R__.sql", L::Pgfleet),
            ("r__x.sql", L::Pgfleet),
            ("R__x.sql", L::Sqlx),
            ("1_x.sql", L::GolangMigrate),
            ("1_x.up.sql", L::Goose),
            ("v1__x.sql", L::Flyway),
            ("V1_x.sql", L::Flyway),
            ("V1__.sql", L::Flyway),
            ("V__x.sql", L::Flyway),
            ("V1-2__x.sql", L::Flyway),
            ("R__x.sql", L::Refinery),
            ("users", L::Diesel),
            ("2026_", L::Diesel),
            ("2026-07-30", L::Diesel),
            ("2026x", L::Diesel),
            ("1.2_x", L::Diesel),
        ] {
            assert_eq!(parse(name, layout), None, "{name} in {layout}");
        }
    }

    #[test]
    fn sql_is_seen_in_any_case() {
        assert!(is_sql("a.sql") && is_sql("a.SQL") && is_sql("ä.Sql"));
        assert!(!is_sql("sql") && !is_sql("a.sqlx") && !is_sql("a.sql.conf") && !is_sql("äää"));
    }

    /// Descriptions as people write them, and as they should not.
    fn description() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9_ä.~ (]{0,6}[a-z0-9ä_]".prop_filter("a direction", |text| {
            ["up", "down"].iter().all(|end| text.rsplit_once('.').is_none_or(|(_, last)| last != *end))
        })
    }

    proptest! {
        #[test]
        fn native_names_say_what_was_put_into_them(
            version in "[0-9]{1,20}",
            description in description(),
            end in prop::sample::select(vec![".sql", ".up.sql", ".down.sql"]),
        ) {
            let name = format!("{version}_{description}{end}");
            let version: Version = version.parse().unwrap();
            let up = Some(Name::Up(version.clone(), description.clone()));
            let down = Some(Name::Down(version, description));
            let (expected, shape_of) = match end {
                ".sql" => ([&up, &up, &None, &up, &up], Shape::Plain),
                ".up.sql" => ([&up, &up, &up, &None, &None], Shape::UpDown),
                _ => ([&down, &down, &down, &None, &None], Shape::UpDown),
            };
            let layouts = [Layout::Pgfleet, Layout::Sqlx, Layout::GolangMigrate, Layout::Goose, Layout::Dbmate];
            for (layout, expected) in layouts.into_iter().zip(expected) {
                prop_assert_eq!(&parse(&name, layout), expected, "{} in {}", name, layout);
            }
            prop_assert_eq!(shape(&name), Some(shape_of));
            prop_assert!(is_sql(&name));
        }

        #[test]
        fn prefixed_names_say_what_was_put_into_them(
            version in "[0-9]{1,6}([._][0-9]{1,4}){0,3}",
            description in description(),
        ) {
            let parsed: Version = version.parse().unwrap();
            let spaces = description.replace('_', " ");
            let up = Some(Name::Up(parsed.clone(), spaces.clone()));
            for (prefix, layout, expected) in [
                ("V", Layout::Flyway, &up),
                ("V", Layout::Refinery, &up),
                ("U", Layout::Flyway, &Some(Name::Down(parsed, spaces))),
                ("U", Layout::Refinery, &up),
            ] {
                let name = format!("{prefix}{version}__{description}.sql");
                prop_assert_eq!(&parse(&name, layout), expected, "{} in {}", name, layout);
                prop_assert_eq!(shape(&name), Some(Shape::Prefixed));
                prop_assert_eq!(parse(&name, Layout::Pgfleet), None);
            }
        }

        #[test]
        fn folders_of_diesel_say_what_was_put_into_them(
            version in "[0-9]{14}|[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{6}(-[0-9]{4})?",
            description in description(),
        ) {
            let name = format!("{version}_{description}");
            prop_assert_eq!(parse(&name, Layout::Diesel), Some(Name::Up(Layout::Diesel.version(&version).unwrap(), description)));
        }

        #[test]
        fn any_name_is_one_thing_in_each_layout(
            name in prop_oneof![any::<String>(), "[VUR]?[0-9]{0,3}[-._]{0,2}[a-z.]{0,4}(\\.(up|down|x))?\\.(sql|SQL)?"],
        ) {
            let mut known = false;
            for layout in Layout::ALL {
                let Some(parsed) = parse(&name, layout) else { continue };
                known |= layout != Layout::Diesel;
                prop_assert!(layout == Layout::Diesel || is_sql(&name), "{} in {}", name, layout);
                // The name of a callback can stop at its event, and one of dbmate at its digits.
                if let Name::Up(_, description) | Name::Down(_, description) | Name::Repeatable(description) = parsed {
                    let may_lack = matches!(layout, Layout::Diesel | Layout::Dbmate);
                    prop_assert!(may_lack || !description.is_empty(), "{} in {}", name, layout);
                }
            }
            // A folder is recognised by the shapes of its names, so no layout may know a name without one.
            prop_assert_eq!(shape(&name).is_some(), known, "{}", name);
        }
    }
}
