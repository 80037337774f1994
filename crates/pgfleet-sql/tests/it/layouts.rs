//! Folders of any names with any bytes in them.

use pgfleet_sql::layout::{Folder, Layout, Script, read_files};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[VUR]?[0-9]{0,2}[_.-]{0,2}[ab_. ]{0,3}(\\.(up|down))?\\.(sql|SQL|rs|go|sql\\.conf|toml)",
        3 => "(1|2|2026-07-30-140000-0000|x)_?a?/(up\\.sql|down\\.sql|metadata\\.toml|[a-z]{1,2}\\.sql)",
        1 => any::<String>(),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "-- +goose Up",
        "-- +goose Down",
        "-- +goose NO TRANSACTION",
        "-- +goose StatementBegin",
        "-- +goose x",
        "-- migrate:up",
        "-- migrate:down",
        "-- migrate:up transaction:false",
        "-- migrate:x",
        "-- no-transaction",
        "-- pgfleet: no-transaction",
        "-- pgfleet: lock_timeout=5s",
        "-- pgfleet: requires a@1",
        "-- pgfleet: x",
        "run_in_transaction = false",
        "run_in_transaction = x",
        "select 1;",
        "$$",
        "'",
        "\u{feff}",
        "",
        "\t",
    ]);
    let end = prop::sample::select(vec!["\n", "\r\n", "\r", ""]);
    let lines = prop::collection::vec((line, end), 0..6);
    prop_oneof![
        8 => lines.prop_map(|lines| lines.iter().flat_map(|(line, end)| [*line, *end]).collect::<String>().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn scripts(folder: &Folder) -> impl Iterator<Item = &Script> {
    let migrations = folder.migrations.iter().flat_map(|migration| [Some(&migration.up), migration.down.as_ref()]);
    migrations.flatten().chain(folder.repeatables.iter().map(|repeatable| &repeatable.script))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_folder_is_read_or_refused_with_a_reason(
        files in prop::collection::vec((name(), bytes()), 0..5),
        layout in prop::option::of(prop::sample::select(Layout::ALL.to_vec())),
    ) {
        let root = Path::new("root");
        let files: Vec<(PathBuf, Vec<u8>)> = files.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect();
        let file = |path: &Path| {
            files.iter().find(|(name, _)| root.join(name) == path).map(|(_, bytes)| String::from_utf8_lossy(bytes))
        };
        match read_files(root, files.clone(), layout) {
            Ok(folder) => {
                prop_assert!(layout.is_none_or(|layout| layout == folder.layout));
                prop_assert!(folder.migrations.is_sorted_by(|a, b| a.version < b.version));
                for script in scripts(&folder) {
                    let text = file(&script.path).unwrap();
                    prop_assert!(text.contains(&script.text));
                    // The first byte of the script is in the line that it says.
                    let before = text.find(&script.text).unwrap();
                    let line = text[..before].matches('\n').count() + 1;
                    prop_assert!(script.first_line as usize == line || text.matches(&script.text).nth(1).is_some());
                }
            }
            Err(error) => {
                prop_assert!(!error.message().is_empty() && !error.hint().is_empty());
                if let Some(place) = error.place() {
                    let text = file(error.path()).unwrap();
                    prop_assert!(place.line as usize <= text.matches('\n').count() + 1, "{error}");
                }
            }
        }
    }
}
