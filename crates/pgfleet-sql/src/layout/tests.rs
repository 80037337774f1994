//! Folders as people have them, and as they should not.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn read(files: &[(&str, &str)]) -> Folder {
    read_as(files, None)
}

fn read_as(files: &[(&str, &str)], layout: Option<Layout>) -> Folder {
    read_both(files, layout).unwrap()
}

/// Reads the same files from the disk and from memory, which must not differ in anything.
fn read_both(files: &[(&str, &str)], layout: Option<Layout>) -> Result<Folder, LayoutError> {
    let dir = folder(files);
    let from_disk = read_folder(dir.path(), layout);
    let from_memory = read_files(dir.path(), in_memory(files), layout);
    match (&from_disk, &from_memory) {
        (Ok(disk), Ok(memory)) => {
            assert_eq!(disk, memory);
            assert_eq!(without_notes(read_alone(dir.path(), files, disk)), without_notes(disk.clone()));
        }
        (Err(disk), Err(memory)) => assert_eq!(said(disk), said(memory)),
        _ => panic!("from disk: {from_disk:?}\nfrom memory: {from_memory:?}"),
    }
    from_disk
}

/// Reads nothing but the files that a folder says it was read from.
fn read_alone(root: &Path, files: &[(&str, &str)], folder: &Folder) -> Folder {
    let mut files = in_memory(files);
    files.retain(|(name, _)| folder.files.contains(&root.join(name)));
    assert_eq!(files.len(), folder.files.len());
    read_files(root, files, Some(folder.layout)).unwrap()
}

fn without_notes(folder: Folder) -> Folder {
    Folder { notes: Vec::new(), ..folder }
}

/// Backwards, since the order must not matter.
fn in_memory(files: &[(&str, &str)]) -> Vec<(PathBuf, Vec<u8>)> {
    files.iter().rev().map(|(name, text)| (name.into(), text.as_bytes().to_vec())).collect()
}

/// Everything that an error says.
fn said(error: &LayoutError) -> (String, String, Option<LineColumn>, &Path, Option<&Path>) {
    (error.to_string(), error.hint().to_owned(), error.place(), error.path(), error.other_path())
}

fn fails(files: &[(&str, &str)]) -> LayoutError {
    fails_as(files, None)
}

fn fails_as(files: &[(&str, &str)], layout: Option<Layout>) -> LayoutError {
    let error = read_both(files, layout).unwrap_err();
    assert!(!error.hint().is_empty());
    assert!(error.to_string().starts_with(&error.path().display().to_string()));
    error
}

fn labels(folder: &Folder) -> Vec<String> {
    folder.migrations.iter().map(MigrationFile::label).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn native_files_are_paired_and_sorted_as_numbers() {
    let folder = read(&[
        ("20240620151514_late.sql", ""),
        ("01_first.sql", "select 1"),
        ("9_b.up.sql", "create table b ()"),
        ("009_b.down.sql", "-- pgfleet: lock_timeout=1s\ndrop table b"),
        ("R__z_views.sql", "select 3"),
        ("R__a_views.sql", "select 4"),
        (".hidden.sql", "\\"),
        ("README.md", "x"),
    ]);
    assert_eq!(folder.layout, Layout::Pgfleet);
    assert_eq!(labels(&folder), ["01_first", "9_b", "20240620151514_late"]);
    let kinds: Vec<_> = folder.migrations.iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [Kind::Forward, Kind::Reversible, Kind::Forward]);
    let b = &folder.migrations[1];
    assert_eq!(b.down.as_ref().unwrap().text, "-- pgfleet: lock_timeout=1s\ndrop table b");
    assert_eq!(b.down_annotations.lock_timeout, Some(Duration::from_secs(1)));
    assert_eq!(b.annotations, Annotations::default());
    let repeatables: Vec<_> = folder.repeatables.iter().map(|r| r.description.as_str()).collect();
    assert_eq!(repeatables, ["a_views", "z_views"]);
    assert!(folder.notes.is_empty());
}

#[test]
fn a_file_of_sqlx_is_read_under_either_name() {
    let files = [("20240620151514_index.sql", "-- no-transaction\ncreate index concurrently i on t (a)")];
    for layout in [None, Some(Layout::Sqlx), Some(Layout::Pgfleet)] {
        let folder = read_as(&files, layout);
        assert!(folder.migrations[0].annotations.no_transaction);
        assert_eq!(folder.migrations[0].checksum(), crate::checksum::checksum(files[0].1));
    }
}

#[test]
fn flyway_versions_have_dots_and_undo_files() {
    let folder = read(&[
        ("V1_10__ten.sql", ""),
        ("V1.9__nine_lives.sql", ""),
        ("U1.9__nine_lives.sql", "select 2"),
        ("R__views.sql", ""),
        ("V1.9__nine_lives.sql.conf", "# why\r\nexecuteInTransaction = False\nencoding=utf-8\nshouldExecute=a==b\n"),
        ("U1.9__nine_lives.sql.conf", ""),
    ]);
    assert_eq!(folder.layout, Layout::Flyway);
    assert_eq!(labels(&folder), ["1.9_nine_lives", "1.10_ten"]);
    assert_eq!(folder.migrations[0].description, "nine lives");
    assert!(folder.migrations[0].down.is_some());
    assert!(folder.migrations[0].annotations.no_transaction && !folder.migrations[1].annotations.no_transaction);
    assert!(!folder.migrations[0].down_annotations.no_transaction);
    assert_eq!(folder.notes.len(), 1);
    assert!(folder.notes[0].contains("`shouldExecute`"));
    let error = fails(&[("V1__a.sql", ""), ("V1__a.sql.conf", "x=y\nexecuteInTransaction=no")]);
    assert_eq!((file_name(error.path()), error.place().unwrap().line), ("V1__a.sql.conf".into(), 2));
    let folder = read(&[("1_a.sql", ""), ("1_a.sql.conf", "executeInTransaction=false")]);
    assert!(folder.notes[0].contains("annotations") && !folder.migrations[0].annotations.no_transaction);
}

#[test]
fn callbacks_of_flyway_run_again_when_anything_else_does() {
    let files = [
        ("V1__a.sql", "select 1"),
        ("R__z.sql", "select 2"),
        ("afterMigrate.sql", "select 5"),
        ("afterMigrateApplied__b.sql", "select 4"),
        ("afterMigrateApplied__a.sql", "select 3"),
        ("beforeClean.sql", "select 6"),
    ];
    let described = |folder: &Folder| folder.repeatables.iter().map(|r| r.description.clone()).collect::<Vec<_>>();
    let sums = |folder: &Folder| -> Vec<_> {
        folder.repeatables.iter().map(|r| (r.checksum(), r.script.bytes_hash.clone())).collect()
    };
    let folder = read(&files);
    assert_eq!(described(&folder), ["z", "afterMigrateApplied__a", "afterMigrateApplied__b", "afterMigrate"]);
    assert_eq!(folder.notes.len(), 1);
    assert_eq!(sums(&folder), sums(&read(&files)));
    for change in [("V2__b.sql", ""), ("R__z.sql", "select 3"), ("R__y.sql", "")] {
        let mut files = files.to_vec();
        files.retain(|(name, _)| *name != change.0);
        files.push(change);
        let changed = read(&files);
        for callback in &folder.repeatables[1..] {
            let other = changed.repeatables.iter().find(|r| r.description == callback.description).unwrap();
            assert_ne!(callback.checksum(), other.checksum(), "{change:?}");
            assert_ne!(callback.script.bytes_hash, other.script.bytes_hash, "{change:?}");
        }
    }
    let mut commented = files;
    commented[0].1 = "-- one\nselect 1";
    assert_eq!(sums(&folder), sums(&read(&commented)));
    let error = fails(&[("V1__a.sql", ""), ("beforeEachMigrate__x.sql", "")]);
    assert!(error.hint().contains("afterMigrateApplied"));
    fails(&[("1_a.sql", ""), ("afterMigrate.sql", "")]);
}

#[test]
fn a_u_file_of_refinery_is_a_migration() {
    let files = [("V1__a.sql", ""), ("U2__b.sql", "")];
    assert_eq!(labels(&read_as(&files, Some(Layout::Refinery))), ["1_a", "2_b"]);
    let error = fails(&files);
    assert_eq!(error.message(), "takes back version 2, which nothing applies");
    assert!(error.hint().contains("refinery"));
}

#[test]
fn sections_of_goose_know_their_line_and_annotations() {
    let text = "-- pgfleet: requires a@1\n-- +goose NO TRANSACTION\n-- +goose Up\n-- pgfleet: lock_timeout=2s\nselect 1;\n-- +goose Down\nselect 2;\n";
    let folder = read(&[("00001_a.sql", text), ("2_b.sql", "-- +goose Up\n")]);
    assert_eq!(folder.layout, Layout::Goose);
    let a = &folder.migrations[0];
    assert_eq!((a.up.text.as_str(), a.up.first_line), ("-- pgfleet: lock_timeout=2s\nselect 1;\n", 4));
    assert_eq!(a.up.line_column(a.up.text.find('1').unwrap()).to_string(), "5:8");
    assert_eq!(a.down.as_ref().unwrap().line_column(0).to_string(), "7:1");
    assert!(a.annotations.no_transaction && a.down_annotations.no_transaction);
    assert_eq!((a.annotations.requires.len(), a.annotations.lock_timeout), (1, Some(Duration::from_secs(2))));
    assert_eq!(a.down_annotations.lock_timeout, None);
    assert_eq!(a.up.bytes_hash, crate::checksum::raw_hash(text.as_bytes()));
    assert!(folder.migrations[1].down.is_none());
}

#[test]
fn sections_of_dbmate_are_recognised_by_content() {
    let folder =
        read(&[("20240101_a.sql", "-- migrate:up transaction:false\r\nselect 1;\r\n-- migrate:down\r\nselect 2;\r\n")]);
    assert_eq!(folder.layout, Layout::Dbmate);
    assert!(folder.migrations[0].annotations.no_transaction);
    assert!(!folder.migrations[0].down_annotations.no_transaction);
    assert_eq!(folder.migrations[0].up.text, "select 1;\r\n");
}

#[test]
fn dbmate_needs_no_more_of_a_name_than_its_digits() {
    let text = "-- migrate:up\n-- migrate:down\n";
    let folder = read(&[
        ("20240101-a.sql", text),
        ("20240102.sql", text),
        ("20240103_c.sql", "-- migrate:up\n-- migrate:down\n-- migrate:up\nselect 1;\n"),
    ]);
    assert_eq!(
        (folder.layout, labels(&folder)),
        (Layout::Dbmate, ["20240101_a", "20240102", "20240103_c"].map(Into::into).to_vec())
    );
    assert!(folder.notes.len() == 1 && folder.notes[0].starts_with("line 3 of "), "{:?}", folder.notes);
    fails(&[("20240101-a.sql", "select 1")]);
    fails(&[("1_a.sql", "select 1"), ("20240101-a.sql", "select 1")]);
}

#[test]
fn folders_of_diesel_hold_a_migration_each() {
    let folder = read(&[
        ("2026-07-30-140000-0000_create users/up.sql", "select 1"),
        ("2026-07-30-140000-0000_create users/down.sql", "select 2"),
        ("2026-07-30-140000-0000_create users/metadata.toml", "# x\nrun_in_transaction = false # why"),
        ("00000000000000_diesel_initial_setup/up.sql", ""),
        ("notes/x.sql", ""),
        ("empty/x.txt", ""),
    ]);
    assert_eq!(folder.layout, Layout::Diesel);
    assert_eq!(labels(&folder), ["00000000000000_diesel_initial_setup", "202607301400000000_create_users"]);
    let users = &folder.migrations[1];
    assert_eq!(users.description, "create users");
    assert!(users.annotations.no_transaction && users.down_annotations.no_transaction);
    assert_eq!(folder.notes.len(), 1);
    let folder = read(&[("1_a/up.sql", ""), ("dump.sql", "")]);
    assert_eq!((labels(&folder), folder.notes.len()), (vec!["1_a".to_owned()], 1));
    let error = fails(&[("1_a/down.sql", "")]);
    assert_eq!(error.hint(), "write the up.sql beside it");
    assert!(fails(&[("a/up.sql", "")]).message().contains("diesel"));
    assert_eq!(
        fails(&[("1_a/up.sql", ""), ("1_a/metadata.toml", "\nrun_in_transaction = no")]).place().unwrap().line,
        2
    );
}

#[test]
fn golang_migrate_is_native_and_strict_when_named() {
    let files = [("000001_a.up.sql", ""), ("000001_a.down.sql", "")];
    assert_eq!(read(&files).layout, Layout::Pgfleet);
    assert_eq!(labels(&read_as(&files, Some(Layout::GolangMigrate))), ["000001_a"]);
    assert!(fails_as(&[("1_a.sql", "")], Some(Layout::GolangMigrate)).hint().contains(".up.sql"));
}

#[test]
fn a_mixed_folder_names_two_files() {
    let error = fails(&[("1_a.sql", ""), ("V2__b.sql", "")]);
    assert_eq!(
        (file_name(error.path()), file_name(error.other_path().unwrap())),
        ("V2__b.sql".into(), "1_a.sql".into())
    );
    assert!(error.hint().contains("layout = \"flyway\""));
    let error = fails(&[("1_a.sql", "-- +goose Up\n"), ("2_b.sql", "select 1")]);
    assert!(error.message().contains("layout of pgfleet") && error.message().contains("goose"));
    fails(&[("1_a/up.sql", ""), ("2_b.sql", "")]);
    let folder = read_as(&[("1_a/up.sql", ""), ("2_b.sql", "")], Some(Layout::Pgfleet));
    assert_eq!((labels(&folder).len(), folder.notes.len()), (1, 1));
}

#[test]
fn names_that_fit_nothing_are_errors() {
    for name in ["users.sql", "1_a.SQL", "up.sql", "v1__x.sql", "1.sql"] {
        let error = fails(&[("1_ok.sql", ""), (name, "")]);
        assert_eq!(file_name(error.path()), name);
        assert!(error.hint().contains("0001_create_users.sql"));
    }
    fails_as(&[("1_a.sql", "")], Some(Layout::Flyway));
    fails_as(&[("1_a.sql", "")], Some(Layout::Diesel));
}

#[test]
fn one_version_is_one_file() {
    for files in [
        [("01_a.sql", ""), ("1_b.sql", "")],
        [("1_a.up.sql", ""), ("1_a.sql", "")],
        [("V1__a.sql", ""), ("V1.0__b.sql", "")],
    ] {
        let error = fails(&files);
        assert!(error.message().contains(&file_name(error.other_path().unwrap())), "{error}");
    }
    fails(&[("1_a.up.sql", ""), ("1_a.down.sql", ""), ("01_b.down.sql", "")]);
    assert!(fails(&[("V1__a.sql", ""), ("R__a_b.sql", ""), ("R__a b.sql", "")]).message().contains("description"));
}

#[test]
fn a_way_back_needs_a_way_forward() {
    let error = fails(&[("1_a.up.sql", ""), ("2_b.down.sql", "")]);
    assert_eq!(file_name(error.path()), "2_b.down.sql");
    for layout in [Layout::Sqlx, Layout::GolangMigrate] {
        let folder = read_as(&[("1_a.up.sql", ""), ("2_b.down.sql", "")], Some(layout));
        assert_eq!((labels(&folder), folder.notes.len()), (vec!["1_a".to_owned()], 1));
        assert!(folder.notes[0].contains("2_b.down.sql"));
    }
}

#[test]
fn code_that_will_not_run_is_an_error() {
    assert!(fails(&[("V1__a.sql", ""), ("V2__b.rs", ""), ("mod.rs", "")]).message().contains("refinery"));
    assert!(fails(&[("1_a.sql", "-- +goose Up\n"), ("2_b.go", "")]).message().contains("goose"));
    read(&[("V1__a.sql", ""), ("mod.rs", "")]);
    read(&[("1_a.sql", "-- +goose Up\n"), ("2_b_test.go", ""), ("embed.go", "")]);
    read(&[("1_a.sql", ""), ("2_b.go", "")]);
}

#[test]
fn bytes_that_are_no_text_are_named_by_their_place() {
    let dir = folder(&[]);
    fs::write(dir.path().join("1_a.sql"), b"select 1;\n-- \xc3\xa4\xff").unwrap();
    let error = read_folder(dir.path(), None).unwrap_err();
    let files = vec![("1_a.sql".into(), b"select 1;\n-- \xc3\xa4\xff".to_vec())];
    assert_eq!(said(&error), said(&read_files(dir.path(), files, None).unwrap_err()));
    assert_eq!(error.place().unwrap().to_string(), "2:5");
    assert_eq!(error.message(), "not UTF-8: byte 15 is 0xff");
}

#[test]
fn a_byte_order_mark_is_dropped_and_line_ends_stay() {
    let folder = read(&[("1_a.sql", "\u{feff}-- no-transaction\r\nselect 1;\r\n")]);
    let file = &folder.migrations[0];
    assert_eq!(file.up.text, "-- no-transaction\r\nselect 1;\r\n");
    assert!(file.annotations.no_transaction);
    assert_eq!(file.up.bytes_hash, crate::checksum::raw_hash("\u{feff}-- no-transaction\r\nselect 1;\r\n".as_bytes()));
}

#[test]
fn annotations_in_error_are_named_by_file_and_line() {
    let error = fails(&[("1_a.sql", "-- x\n  -- pgfleet: no-transactions\n")]);
    assert_eq!(error.place().unwrap().to_string(), "2:3");
    assert_eq!(error.hint(), "did you mean `no-transaction`?");
    let error = fails(&[("1_a.sql", "-- x\n-- migrate:up\n\n-- pgfleet: x\n")]);
    assert_eq!(error.place().unwrap().line, 4);
}

#[test]
fn a_folder_must_be_one_but_may_be_empty() {
    let dir = folder(&[("file", "")]);
    let missing = read_folder(&dir.path().join("nowhere"), None).unwrap_err();
    assert_eq!(missing.message(), "the folder of migrations does not exist");
    assert!(std::error::Error::source(&missing).is_some());
    let file = read_folder(&dir.path().join("file"), None).unwrap_err();
    assert_eq!(file.message(), "this is a file, not a folder of migrations");
    let empty = read_folder(dir.path(), None).unwrap();
    assert_eq!((empty.layout, empty.migrations.len(), empty.repeatables.len()), (Layout::Pgfleet, 0, 0));
}

#[test]
fn subfolders_with_sql_are_noted() {
    let folder = read(&[("1_a.sql", ""), ("old/2_b.sql", ""), ("docs/x.md", "")]);
    assert_eq!(folder.migrations.len(), 1);
    assert_eq!(folder.notes.len(), 1);
    assert!(folder.notes[0].contains("old"));
}

#[test]
fn flyway_and_refinery_look_into_folders() {
    let files = [
        ("V1__a.sql", ""),
        ("2024/q1/V3__c.sql", ""),
        ("2024/V2__b.sql", ""),
        ("2024/V2__b.sql.conf", "executeInTransaction=false"),
        ("2024/R__v.sql", ""),
        (".git/V9__x.sql", ""),
        ("notes/x.sql", ""),
        ("2024/old/.hidden/V8__x.sql", ""),
    ];
    let folder = read(&files);
    assert_eq!((folder.layout, labels(&folder)), (Layout::Flyway, ["1_a", "2_b", "3_c"].map(Into::into).to_vec()));
    assert!(folder.migrations[1].annotations.no_transaction);
    assert_eq!((folder.repeatables.len(), folder.notes.len()), (1, 1));
    assert!(folder.notes[0].contains("notes"));
    assert_eq!(labels(&read(&files[1..])), ["2_b", "3_c"]);
    let plain: Vec<_> = files.into_iter().filter(|(name, _)| !name.contains("R__")).collect();
    assert_eq!(labels(&read_as(&plain, Some(Layout::Refinery))), ["1_a", "2_b", "3_c"]);
    let error = fails(&[("a/V1__a.sql", ""), ("b/V1__a.sql", "")]);
    assert!(error.message().contains("V1__a.sql"));
    let folder = read(&[("1_a.sql", ""), ("old/V1__a.sql", "")]);
    assert_eq!((folder.layout, labels(&folder).len(), folder.notes.len()), (Layout::Pgfleet, 1, 1));
}

#[test]
fn every_layout_reads_the_same_from_disk_and_from_memory() {
    let goose = "-- +goose Up\nselect 1;\n-- +goose Down\nselect 2;\n";
    let dbmate = "-- migrate:up transaction:false\nselect 1;\n-- migrate:down\nselect 2;\n";
    let folders: [(Layout, &[(&str, &str)]); 8] = [
        (
            Layout::Pgfleet,
            &[("1_a.sql", "select 1"), ("2_b.up.sql", "\u{feff}x"), ("2_b.down.sql", "y"), ("R__v.sql", "z")],
        ),
        (Layout::Sqlx, &[("20240620151514_a.sql", "-- no-transaction\nselect 1"), ("20240620151515_b.sql", "")]),
        (Layout::Flyway, &[("V1__a.sql", "x"), ("U1__a.sql", "y"), ("R__all_views.sql", "z"), ("V1__a.sql.conf", "c")]),
        (Layout::Refinery, &[("V1__a.sql", "x"), ("U2__b.sql", "y"), ("mod.rs", "")]),
        (Layout::GolangMigrate, &[("000001_a.up.sql", "x"), ("000001_a.down.sql", "y")]),
        (Layout::Dbmate, &[("20240101_a.sql", dbmate), ("20240102_b.sql", dbmate)]),
        (Layout::Goose, &[("00001_a.sql", goose), ("2_b.sql", goose), ("embed.go", "")]),
        (
            Layout::Diesel,
            &[
                ("2026-07-30-140000-0000_create users/up.sql", "x"),
                ("2026-07-30-140000-0000_create users/down.sql", "y"),
                ("2026-07-30-140000-0000_create users/metadata.toml", "run_in_transaction = false"),
                ("00000000000000_setup/up.sql", ""),
                ("00000000000000_setup/notes/deep/x.sql", ""),
                ("other/x.sql", ""),
            ],
        ),
    ];
    for (layout, files) in folders {
        let folder = read_as(files, Some(layout));
        assert_eq!(folder.layout, layout);
        assert!(!folder.migrations.is_empty());
        // The scripts are where the caller says, whether or not anything is there.
        let elsewhere = read_files(Path::new("nowhere/at all"), in_memory(files), Some(layout)).unwrap();
        assert!(elsewhere.migrations.iter().all(|migration| migration.up.path.starts_with("nowhere/at all")));
        assert_eq!(elsewhere.migrations.len(), folder.migrations.len());
        let _ = read_both(files, None);
    }
}

#[test]
fn paths_in_memory_stay_in_the_folder_and_come_once() {
    let fails = |path: &str| {
        let files = vec![("1_a.sql".into(), Vec::new()), (path.into(), Vec::new())];
        let error = read_files(Path::new("m"), files, None).unwrap_err();
        assert!(!error.hint().is_empty());
        error.to_string()
    };
    assert_eq!(fails("../1_b.sql"), "m/../1_b.sql: not the path of a file in the folder");
    assert_eq!(fails("/1_b.sql"), "/1_b.sql: not the path of a file in the folder");
    assert_eq!(fails(""), "m/: not the path of a file in the folder");
    assert_eq!(fails("./1_a.sql"), "m/./1_a.sql: the file is given twice");
    let files = vec![("./2_a/./up.sql".into(), Vec::new()), ("2_a/down.sql".into(), Vec::new())];
    let folder = read_files(Path::new("m"), files, None).unwrap();
    assert_eq!(folder.migrations[0].down.as_ref().unwrap().path, Path::new("m/2_a/down.sql"));
}

#[cfg(unix)]
#[test]
fn files_of_no_use_are_not_read_from_the_disk() {
    // Reading one of these fails for every user, root too.
    let dir = folder(&[("1_a.sql", ""), ("old/x.txt", ""), ("2_b/x.txt", "")]);
    for name in ["README.md", ".hidden.sql", "old/up.sql.txt"] {
        std::os::unix::fs::symlink("nowhere", dir.path().join(name)).unwrap();
    }
    fs::create_dir(dir.path().join("old/dir.sql")).unwrap();
    assert!(read_folder(dir.path(), None).unwrap().notes.is_empty());
    std::os::unix::fs::symlink("nowhere", dir.path().join("3_c.sql")).unwrap();
    assert_eq!(read_folder(dir.path(), None).unwrap_err().message(), "the file cannot be read");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_folder_reads_the_same_from_disk_and_from_memory(
        names in prop::collection::btree_set(
            prop_oneof![
                "(1|2|01|V1|V1_2|U1|R|2024-01|x)__?[ab](\\.up|\\.down)?\\.(sql|SQL|rs|go|sql\\.conf|md)",
                "(1|2|2024-01-01-000000-0000)_[ab]/(up\\.sql|down\\.sql|metadata\\.toml|x\\.sql|x\\.md|z\\.sql/y\\.sql)",
                "\\.?(old|docs)/(x\\.sql|\\.x\\.sql|y/1_a\\.sql)",
            ],
            0..6,
        ),
        texts in prop::collection::vec(
            prop::sample::select(vec![
                "", "select 1;", "-- +goose Up\n", "-- +goose Up\n-- +goose Down\n", "-- migrate:up\n-- migrate:down\n",
                "-- pgfleet: no-transaction\n", "-- pgfleet: nonsense\n", "run_in_transaction = false", "\u{feff}x",
            ]),
            6,
        ),
        layout in prop::option::of(prop::sample::select(Layout::ALL.to_vec())),
    ) {
        let files: Vec<_> = names.iter().map(String::as_str).zip(texts).collect();
        let _ = read_both(&files, layout);
    }
}

#[test]
fn layouts_have_names() {
    for layout in Layout::ALL {
        assert_eq!(layout.to_string().parse::<Layout>().unwrap(), layout);
    }
    let error = "liquibase".parse::<Layout>().unwrap_err();
    assert_eq!(error.to_string(), "unknown layout `liquibase`");
    assert!(error.hint().contains("golang-migrate"));
}

#[test]
fn a_script_can_stand_alone() {
    let dir = folder(&[("seed.sql", "\u{feff}select 1")]);
    let script = Script::read(&dir.path().join("seed.sql")).unwrap();
    assert_eq!((script.text.as_str(), script.first_line), ("select 1", 1));
    assert_ne!(script.bytes_hash, Script::from_text("seed.sql", script.text.clone()).bytes_hash);
    assert_eq!(Script::read(&dir.path().join("none.sql")).unwrap_err().message(), "the file cannot be read");
}
