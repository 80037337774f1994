//! A folder of any names with any bytes is read, or refused with a reason; what is read is what was in the files.

#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use pgfleet_sql::layout::{Layout, read_files};

/// Pieces of names, since bytes at random are hardly ever one.
const PIECES: [&str; 32] = [
    "1",
    "2",
    "01",
    "10",
    "2026-07-30-140000-0000",
    "V",
    "U",
    "R",
    "_",
    "__",
    ".",
    "-",
    "a",
    "b",
    "create users",
    "ä",
    ".up",
    ".down",
    ".sql",
    ".SQL",
    ".sql.conf",
    ".rs",
    ".go",
    "/",
    "/up.sql",
    "/down.sql",
    "/metadata.toml",
    "/x.sql",
    "..",
    ".hidden",
    "R__",
    "_test",
];

type Input<'a> = (u8, Vec<(Vec<u8>, &'a [u8])>);

fuzz_target!(|input: Input<'_>| {
    let (layout, files) = input;
    let layout = Layout::ALL.get(usize::from(layout) % 9).copied();
    let name = |pieces: &[u8]| -> PathBuf {
        pieces.iter().map(|piece| PIECES[usize::from(*piece) % PIECES.len()]).collect::<String>().into()
    };
    let files: Vec<(PathBuf, Vec<u8>)> = files.iter().map(|(pieces, bytes)| (name(pieces), bytes.to_vec())).collect();
    let root = Path::new("root");
    let file = |path: &Path| files.iter().find(|(name, _)| root.join(name) == path).map(|(_, bytes)| bytes.as_slice());
    match read_files(root, files.clone(), layout) {
        Ok(folder) => {
            assert!(layout.is_none_or(|layout| layout == folder.layout));
            assert!(folder.migrations.is_sorted_by(|a, b| a.version < b.version));
            for migration in &folder.migrations {
                assert_eq!(migration.checksum().len(), 67);
                for script in [Some(&migration.up), migration.down.as_ref()].into_iter().flatten() {
                    let text = std::str::from_utf8(file(&script.path).expect("a file that was given")).expect("UTF-8");
                    assert!(text.contains(&script.text));
                    assert!(text.lines().count() + 1 >= script.first_line as usize);
                }
            }
            // What it was read from is all that it needs.
            let alone = files.iter().filter(|(name, _)| folder.files.contains(&root.join(name))).cloned().collect();
            let alone = read_files(root, alone, Some(folder.layout)).expect("read before");
            assert_eq!((&alone.migrations, &alone.repeatables), (&folder.migrations, &folder.repeatables));
            // The same files in another order are the same folder.
            let reversed = files.iter().rev().cloned().collect();
            assert_eq!(read_files(root, reversed, layout).expect("read before"), folder);
        }
        Err(error) => {
            assert!(!error.message().is_empty() && !error.hint().is_empty());
            if let Some(place) = error.place() {
                let text = String::from_utf8_lossy(file(error.path()).expect("a file that was given")).into_owned();
                assert!(place.line as usize <= text.matches('\n').count() + 1);
            }
        }
    }
});
