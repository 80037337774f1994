//! What the files of a folder are, before a layout is put to them.

use super::error::quoted;
use super::name::{self, Shape};
use super::read::{misfit, utf8};
use super::{Layout, LayoutError, section};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// What a folder holds, in the order of the names.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) sql: Vec<File>,
    /// Folders with an `up.sql` or a `down.sql`.
    pub(super) diesel: Vec<DieselFolder>,
    /// Migrations written in a programming language, perhaps.
    pub(super) code: Vec<PathBuf>,
    /// Files in folders below, which some layouts look into.
    pub(super) nested: Vec<File>,
    /// Notes about folders that hold nothing but such files.
    pub(super) nested_notes: Vec<String>,
    /// Settings of Flyway, each for the SQL file that it is named after.
    pub(super) confs: Vec<File>,
    pub(super) notes: Vec<String>,
}

pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// A folder that may be a migration of Diesel.
pub(super) struct DieselFolder {
    pub(super) path: PathBuf,
    pub(super) up: Option<File>,
    pub(super) down: Option<File>,
    pub(super) metadata: Option<File>,
}

/// What lies under one name directly in the folder.
#[derive(Default)]
struct Entry {
    file: Option<Vec<u8>>,
    /// The files directly in it, if it is a folder itself.
    inner: BTreeMap<OsString, Vec<u8>>,
}

impl Listing {
    pub(super) fn new(root: &Path, files: Vec<(PathBuf, Vec<u8>)>) -> Result<Self, LayoutError> {
        let mut entries: BTreeMap<OsString, Entry> = BTreeMap::new();
        let mut listing = Self::default();
        for (path, bytes) in files {
            let Some(names) = names(&path) else {
                let hint = "give the path of a file, from the folder of migrations on and without `..`";
                return Err(LayoutError::new(&root.join(&path), "not the path of a file in the folder", hint));
            };
            let nested = listing.add_nested(root, &path, &names, &bytes);
            let before = match names.as_slice() {
                [name] => entries.entry(name.clone()).or_default().file.replace(bytes),
                [folder, name] => entries.entry(folder.clone()).or_default().inner.insert(name.clone(), bytes),
                // That is all that makes a folder with files so deep one of migrations.
                [folder, ..] if nested => {
                    entries.entry(folder.clone()).or_default();
                    None
                }
                _ => None,
            };
            if before.is_some() {
                let hint = "give each file of the folder once";
                return Err(LayoutError::new(&root.join(&path), "the file is given twice", hint));
            }
        }
        for (name, entry) in entries {
            let path = root.join(&name);
            let name = name.to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            listing.add_folder(path.clone(), entry.inner);
            if let Some(bytes) = entry.file {
                listing.add_file(path, name, bytes);
            }
        }
        listing.nested.sort_by(|a, b| a.path.cmp(&b.path));
        listing.confs.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    /// Takes a file in a folder below that some layouts find there, and says whether it is one.
    fn add_nested(&mut self, root: &Path, path: &Path, names: &[OsString], bytes: &[u8]) -> bool {
        let Some(name) = names.last().map(|name| name.to_string_lossy()) else {
            return false;
        };
        let hidden = names.iter().any(|name| name.to_string_lossy().starts_with('.'));
        let nested = names.len() > 1 && !hidden && name::is_nested(&name);
        if nested {
            let file = File { path: root.join(path), name: name.into_owned(), bytes: bytes.to_vec() };
            if name::is_conf(&file.name) { self.confs.push(file) } else { self.nested.push(file) }
        }
        nested
    }

    fn add_file(&mut self, path: PathBuf, name: String, bytes: Vec<u8>) {
        if name::is_sql(&name) {
            self.sql.push(File { path, name, bytes });
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "go") {
            self.code.push(path);
        } else if name::is_conf(&name) {
            self.confs.push(File { path, name, bytes });
        }
    }

    fn add_folder(&mut self, path: PathBuf, mut files: BTreeMap<OsString, Vec<u8>>) {
        let is_sql = |name: &&OsString| name::is_sql(&name.to_string_lossy());
        let holds_sql = files.keys().any(|name| is_sql(&name));
        let only_nested = files.keys().filter(is_sql).all(|name| name::is_nested(&name.to_string_lossy()));
        let mut take = |name: &str| {
            let bytes = files.remove(name.as_ref() as &std::ffi::OsStr)?;
            Some(File { path: path.join(name), name: name.to_owned(), bytes })
        };
        let (up, down, metadata) = (take("up.sql"), take("down.sql"), take("metadata.toml"));
        if up.is_some() || down.is_some() {
            self.diesel.push(DieselFolder { path, up, down, metadata });
        } else if holds_sql {
            let notes = if only_nested { &mut self.nested_notes } else { &mut self.notes };
            notes.push(format!(
                "{} holds SQL files that are not read: migrations lie directly in their folder",
                quoted(&path)
            ));
        }
    }

    /// The one layout that all entries can be of.
    pub(super) fn recognise(&self) -> Result<Layout, LayoutError> {
        let mut found: Option<(Layout, &Path)> =
            self.diesel.first().map(|folder| (Layout::Diesel, folder.path.as_path()));
        for file in &self.sql {
            let layout = match name::shape(&file.name) {
                // Both the native layout and Flyway's have repeatables; a callback alone makes no folder of Flyway.
                Some(Shape::Repeatable | Shape::Callback) | None => continue,
                Some(Shape::Prefixed) => Layout::Flyway,
                Some(Shape::UpDown) => Layout::Pgfleet,
                Some(Shape::Numbered) => match section::recognise(utf8(&file.path, &file.bytes)?) {
                    Some(Layout::Dbmate) => Layout::Dbmate,
                    _ => continue,
                },
                Some(Shape::Plain) => section::recognise(utf8(&file.path, &file.bytes)?).unwrap_or(Layout::Pgfleet),
            };
            match found {
                Some((other, path)) if other != layout => {
                    let message =
                        format!("this file is in the layout of {layout}, but {} is in that of {other}", quoted(path));
                    let hint = format!(
                        "move one of them to another folder, or set `layout = \"{other}\"` or `layout = \"{layout}\"`"
                    );
                    return Err(LayoutError::new(&file.path, message, hint).with_other(path));
                }
                Some(_) => {}
                None => found = Some((layout, &file.path)),
            }
        }
        let nested = self.nested.iter().any(|file| name::shape(&file.name) == Some(Shape::Prefixed));
        let otherwise = if nested { Layout::Flyway } else { Layout::Pgfleet };
        let layout = found.map_or(otherwise, |(layout, _)| layout);
        match self.sql.iter().find(|file| name::parse(&file.name, layout).is_none()) {
            Some(file) if layout != Layout::Diesel => Err(misfit(&file.path, layout)),
            _ => Ok(layout),
        }
    }
}

/// The names that a path leads through, or nothing if it may lead out of the folder.
fn names(path: &Path) -> Option<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!names.is_empty()).then_some(names)
}
