use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_migrate::event::Silent;
use pgfleet_sql::layout::{Layout, MigrationFile, Script};

use super::*;
use crate::manifest::{Manifest, Sources};
use crate::program::Programs;

/// A folder with a manifest and files.
struct Checkout {
    folder: tempfile::TempDir,
}

impl Checkout {
    fn new(services: &str, files: &[(&str, &str)]) -> Self {
        let checkout = Self { folder: tempfile::tempdir().unwrap() };
        let head = "[solution]\nname = \"shop\"\n[servers.main]\nurl = \"postgresql://u:hidden@localhost/postgres\"\n";
        checkout.file("pgfleet.toml", &format!("{head}{services}"));
        for (path, text) in files {
            checkout.file(path, text);
        }
        checkout
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn manifest(&self) -> Manifest {
        let sources = Sources { manifest: self.folder.path().join("pgfleet.toml"), ..Sources::default() };
        Manifest::load(&sources).unwrap().manifest
    }

    fn try_pack(&self, names: &[&str]) -> Result<Bundle, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let observer: Arc<dyn Observer> = Arc::new(Silent);
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        runtime.block_on(Bundle::of(&self.manifest(), &names, &Programs::default(), &observer))
    }

    fn pack(&self) -> Bundle {
        self.try_pack(&[]).unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()))
    }
}

fn simple() -> Checkout {
    Checkout::new(
        "[services.app]\n",
        &[
            ("services/app/migrations/1_items.up.sql", "create table items (id int);\n"),
            ("services/app/migrations/1_items.down.sql", "drop table items;\n"),
        ],
    )
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let error = Bundle::read(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(error.to_string(), "cannot read the bundle");
    assert!(error.causes()[0].contains(why), "{:?} lacks `{why}`", error.causes());
    assert!(error.hint().is_some());
}

#[test]
fn the_first_line_says_what_the_file_is_and_sums_up_the_rest() {
    let bundle = simple().pack();
    let bytes = bundle.to_bytes();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, format!("{{\"pgfleet-bundle\": 1, \"checksum\": \"{}\",", raw_hash(rest.as_bytes())));
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["solution"], "shop");
    assert_eq!(document["migrations"]["services/app/migrations"]["files"]["1_items.down.sql"], "drop table items;\n");
    let again = Bundle::read(&bytes).unwrap();
    assert_eq!(again.to_bytes(), bytes);
    assert_eq!(again.checksum(), bundle.checksum());
}

#[test]
fn the_same_files_give_the_same_bytes_wherever_they_are() {
    let files: Vec<(String, String)> =
        (1..40).map(|n| (format!("services/app/migrations/{n}_m.sql"), format!("select {n};"))).collect();
    let make = |backwards: bool| {
        let mut files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        if backwards {
            files.reverse();
        }
        Checkout::new("[services.app]\nmodules = [\"b\", \"a\"]\n[modules.a]\n[modules.b]\n", &files)
    };
    assert_eq!(make(false).pack().to_bytes(), make(true).pack().to_bytes());
    // A folder that is not there is worth a word, and no part of the bundle.
    let notes = make(false).pack().notes().to_vec();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("b: ") && notes[0].ends_with("modules/b/migrations does not exist"), "{notes:?}");
    let two = Checkout::new("[services.b]\n[services.a]\n", &[]);
    assert_eq!(two.try_pack(&["a", "b"]).unwrap().to_bytes(), two.pack().to_bytes());
}

#[test]
fn what_is_no_bundle_or_not_as_it_was_written_is_refused() {
    refused(b"", "it is no bundle");
    refused(b"create table t (id int);\n", "it is no bundle");
    refused(b"{\"a\": 1}", "it is no bundle");
    refused(&[0xff, 0xfe, b'\n', 0x00], "it is no bundle");
    let text = String::from_utf8(simple().pack().to_bytes()).unwrap();
    refused(text.replace("create table items", "create table other").as_bytes(), "it is damaged");
    refused(text.replacen("\"solution\": \"shop\"", "\"solution\": \"other\"", 1).as_bytes(), "it is damaged");
    refused(text.replace('\n', "\r\n").as_bytes(), "it is damaged");
    for end in [text.len() - 1, text.len() / 2, text.find('\n').unwrap() + 1] {
        refused(&text.as_bytes()[..end], "it is damaged");
    }
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    refused(serde_json::to_string_pretty(&value).unwrap().as_bytes(), "it was changed after it was made");
    let garbage = "\"a\": [";
    let sealed = format!("{{\"pgfleet-bundle\": 1, \"checksum\": \"{}\",\n{garbage}", raw_hash(garbage.as_bytes()));
    refused(sealed.as_bytes(), "it cannot be understood");
}

#[test]
fn a_newer_form_is_refused_whatever_stands_in_it() {
    refused(
        b"{\"pgfleet-bundle\": 2, \"signed\": true,\n\"x\": 1}",
        "it is of version 2, and this pgfleet reads version 1",
    );
}

#[test]
fn files_that_are_read_otherwise_now_are_refused() {
    let mut content = simple().pack().content;
    let folder = content.migrations.get_mut("services/app/migrations").unwrap();
    folder.checksums.insert("1_items".to_owned(), "v1:of another lexer".to_owned());
    content.tool = "pgfleet 9.9.9".to_owned();
    let error = Bundle::new(content).unwrap_err();
    assert!(error.causes()[0].contains("reads the files in services/app/migrations otherwise"));
    assert!(error.causes()[1].contains("packed by pgfleet 9.9.9"));
}

/// Bundles are kept: whoever has one of an earlier version can still roll it out.
#[test]
fn a_bundle_of_old_is_read() {
    let golden = include_bytes!("../../tests/bundle-1.json");
    let bundle = Bundle::read(golden).unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(bundle.to_bytes(), golden);
    let services: Vec<&str> = bundle.services().collect();
    assert_eq!(services, ["trip", "user"]);
    let path = bundle.path(bundle.content.service("trip").unwrap()).unwrap();
    let path = bundle.program("trip").unwrap().join(&path, Path::new("the bundle")).unwrap();
    let labels: Vec<String> = path.own().migrations.iter().map(MigrationFile::label).collect();
    assert_eq!(labels, ["1_trips", "2_create_riders", "3_add_riders", "4_backfill_riders"]);
    assert!(path.needs_program());
}

#[test]
fn files_of_every_layout_are_what_they_are_in_their_folders() {
    let folders: &[(Layout, &[(&str, &str)])] = &[
        (
            Layout::Pgfleet,
            &[
                ("1_a.up.sql", "\u{feff}-- pgfleet: lock_timeout=10s\r\ncreate table a (id int);\r\n"),
                ("1_a.down.sql", "-- pgfleet: no-transaction\ndrop table a;"),
                ("02_index.sql", "-- pgfleet: no-transaction\ncreate index concurrently i on a (id);"),
                ("20240101000000_x.sql", "create index concurrently j on a (id);"),
                ("R__view.sql", "create or replace view v as select 'é\u{1f600}\u{2028}' t from a;\n"),
                ("empty.txt", "no migration"),
            ],
        ),
        (
            Layout::Sqlx,
            &[
                ("20240101000000_a.up.sql", "-- no-transaction\ncreate index concurrently i on a (id);"),
                ("20240101000000_a.down.sql", "drop index i;"),
            ],
        ),
        (
            Layout::Flyway,
            &[
                ("V1_10__a.sql", "create table a (id int);"),
                ("U1_10__a.sql", "drop table a;"),
                ("deep/er/V1.9__b c.sql", "vacuum"),
                ("deep/er/V1.9__b c.sql.conf", "executeInTransaction=false\n"),
                ("R__views.sql", "select 1;"),
                ("afterMigrate__grants.sql", "select 2;"),
                ("afterMigrateError.sql", "select 3;"),
            ],
        ),
        (Layout::Refinery, &[("V1__a.sql", "select 1;"), ("U2__b.sql", "select 2;")]),
        (Layout::GolangMigrate, &[("000001_a.up.sql", "select 1;"), ("000001_a.down.sql", "select 2;")]),
        (
            Layout::Dbmate,
            &[("1_a.sql", "-- head\n-- migrate:up transaction:false\nvacuum;\n-- migrate:down\nselect 'gone';\n")],
        ),
        (
            Layout::Goose,
            &[("00001_a.sql", "-- +goose NO TRANSACTION\n-- +goose Up\nvacuum;\n\n-- +goose Down\nselect 'gone';\n")],
        ),
        (
            Layout::Diesel,
            &[
                ("2024-01-01-000000_a/up.sql", "create index concurrently i on a (id);"),
                ("2024-01-01-000000_a/down.sql", "drop index i;"),
                ("2024-01-01-000000_a/metadata.toml", "run_in_transaction = false\n"),
            ],
        ),
    ];
    assert_eq!(folders.len(), Layout::ALL.len());
    for (layout, files) in folders {
        let manifest = format!("[services.app]\nlayout = \"{layout}\"\n");
        let checkout = Checkout::new(&manifest, &[]);
        for (path, text) in *files {
            checkout.file(&format!("services/app/migrations/{path}"), text);
        }
        let packed = Bundle::read(&checkout.pack().to_bytes()).unwrap().set("app").unwrap();
        // Without symbolic links, as the manifest has it.
        let root = checkout.manifest().root;
        let read = Set::read("app", &root.join("services/app/migrations"), Some(*layout), BTreeMap::new()).unwrap();
        let below = |path: &PathBuf| path.strip_prefix(&root).unwrap_or(path).to_owned();
        let script = |script: &Script| Script { path: below(&script.path), ..script.clone() };
        assert_eq!(packed.layout, read.layout);
        assert_eq!(packed.history, read.history);
        assert_eq!(packed.migrations.len(), read.migrations.len());
        for (ours, theirs) in packed.migrations.iter().zip(read.migrations.iter()) {
            let mut theirs = theirs.clone();
            theirs.up = script(&theirs.up);
            theirs.down = theirs.down.as_ref().map(script);
            assert_eq!(*ours, theirs, "{layout}");
            assert_eq!(ours.checksum(), theirs.checksum());
        }
        assert_eq!(packed.repeatables.len(), read.repeatables.len());
        for (ours, theirs) in packed.repeatables.iter().zip(read.repeatables.iter()) {
            let mut theirs = theirs.clone();
            theirs.script = script(&theirs.script);
            assert_eq!(*ours, theirs, "{layout}");
        }
    }
}

#[test]
fn values_are_not_packed_and_come_from_where_the_bundle_is_used() {
    let checkout = Checkout::new(
        "[services.app]\nproperties = { admin_password = \"of-the-admin\", admin = \"someone@example.com\" }\n\
         [seeds.properties]\nregion = \"of-everybody\"\n[migrations]\nplaceholders = { owner = \"of-a-placeholder\" }\n",
        &[
            ("services/app/migrations/1_items.sql", "create table items (owner text default :'owner');"),
            ("services/app/seeds/1_admin.sql", "\u{feff}insert into items values (:'admin'), (:'admin_password');"),
        ],
    );
    let bundle = checkout.pack();
    let text = String::from_utf8(bundle.to_bytes()).unwrap();
    for value in ["of-the-admin", "someone@example.com", "of-everybody", "of-a-placeholder", "hidden"] {
        assert!(!text.contains(value), "{value} is in the bundle");
    }
    let values = BTreeMap::from([("admin".to_owned(), "a".to_owned()), ("admin_password".to_owned(), "b".to_owned())]);
    let read = Seeds::read(&checkout.folder.path().join("services/app/seeds"), values.clone()).unwrap();
    let packed = bundle.seeds("app", &values).unwrap();
    let sums = |seeds: &Seeds| -> Vec<(String, String, String)> {
        let of = |file: &pgfleet_migrate::seed::SeedFile| {
            (file.name.clone(), file.checksum.clone(), file.script.text.clone())
        };
        seeds.files.iter().map(of).collect()
    };
    assert_eq!(sums(&packed), sums(&read));
}

#[test]
fn a_folder_that_services_share_is_packed_once() {
    let services =
        "[services.a]\nmigrations = \"shared\"\nhistory = \"app.versions\"\n[services.b]\nmigrations = \"shared\"\n";
    let bundle = Checkout::new(services, &[("shared/1_a.sql", "select 1;")]).pack();
    assert_eq!(bundle.counts().migrations, 1);
    let (a, b) = (bundle.set("a").unwrap(), bundle.set("b").unwrap());
    assert_eq!(a.history.quoted(), "\"app\".\"versions\"");
    assert_eq!(b.history.quoted(), "\"pgfleet\".\"b_migrations\"");
    assert_eq!(a.migrations, b.migrations);
}

#[test]
fn what_cannot_be_applied_cannot_be_packed() {
    let unknown = simple().try_pack(&["ap"]).unwrap_err();
    assert_eq!(unknown.hint(), Some("did you mean `app`?"));
    let requires = Checkout::new(
        "[services.app]\n",
        &[("services/app/migrations/1_a.sql", "-- pgfleet: requires identity@3\nselect 1;")],
    );
    let error = requires.try_pack(&[]).unwrap_err();
    assert!(error.causes()[0].contains("it requires identity@3, which is not in this path"), "{:?}", error.causes());
    let program = Checkout::new("[services.app]\nprogram = \"target/app\"\n", &[]);
    let error = program.try_pack(&[]).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Configuration, "cannot pack app"));
    assert!(error.causes()[0].contains("cannot start the program of app"), "{:?}", error.causes());
}
