//! Reads the files of a folder: recognises its layout, pairs the ways forward and back.

use super::error::quoted;
use super::listing::{DieselFolder, File, Listing};
use super::name::{self, Event, Name};
use super::{Folder, Kind, Layout, LayoutError, MigrationFile, Repeatable, Script, conf, section, walk};
use crate::annotation::{self, Annotations};
use crate::checksum;
use crate::position::{self, LineColumn};
use crate::version::Version;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::fs;
use std::path::{Path, PathBuf};

/// Reads the migrations of a folder.
///
/// Without a layout it is recognised: from the names, and for files called `1_x.sql` from the sections in them. Hidden
/// files, files that are not SQL and folders without migrations are passed over. An empty folder is one without
/// migrations, and an empty file is a migration that does nothing.
///
/// # Errors
///
/// If the folder or a file cannot be read, a file fits no layout or another one than the rest, two files have one
/// version, a way back has no way forward, a file is not UTF-8, or its sections or annotations are in error.
pub fn read_folder(dir: &Path, layout: Option<Layout>) -> Result<Folder, LayoutError> {
    read_files(dir, walk::files(dir, layout)?, layout)
}

/// Reads the migrations of a folder whose files are in memory, as [`read_folder`] does from the disk.
///
/// Each file is its path below the folder and its bytes, in any order. `root` stands for the folder in the paths of the
/// scripts and of errors; nothing is looked up there.
///
/// # Errors
///
/// As for [`read_folder`], except that nothing can be unreadable; and if a path leads out of the folder or occurs twice.
pub fn read_files(root: &Path, files: Vec<(PathBuf, Vec<u8>)>, layout: Option<Layout>) -> Result<Folder, LayoutError> {
    let listing = Listing::new(root, files)?;
    let layout = match layout {
        Some(layout) => layout,
        None => listing.recognise()?,
    };
    let mut builder = Builder::new(layout);
    let mut notes = listing.notes;
    if layout == Layout::Diesel {
        for file in &listing.sql {
            // Its migrations are folders, so that one without a version cannot be meant as one.
            if name::shape(&file.name).is_some() {
                return Err(misfit(&file.path, layout));
            }
            notes.push(format!("{} is not read: the migrations of Diesel are folders", quoted(&file.path)));
        }
        for folder in listing.diesel {
            builder.add_diesel(folder)?;
        }
    } else {
        // Flyway and refinery look into folders below.
        let nested = if matches!(layout, Layout::Flyway | Layout::Refinery) {
            listing.nested
        } else {
            notes.extend(listing.nested_notes);
            Vec::new()
        };
        for file in listing.sql.into_iter().chain(nested) {
            let conf = listing.confs.iter().find(|conf| conf.path.with_extension("") == file.path);
            builder.add_file(file, conf.filter(|_| layout == Layout::Flyway))?;
        }
        for code in &listing.code {
            refuse_code(code, layout)?;
        }
        notes.extend(
            listing.diesel.iter().map(|folder| format!("{} holds SQL files that are not read", quoted(&folder.path))),
        );
    }
    if layout != Layout::Flyway {
        let confs = listing.confs.iter();
        notes
            .extend(confs.map(|conf| format!("{} is not read: write what it sets as annotations", quoted(&conf.path))));
    }
    builder.finish(notes)
}

/// Migrations by version, while the files come in.
struct Builder {
    layout: Layout,
    ups: BTreeMap<Version, Up>,
    downs: BTreeMap<Version, (Script, Annotations)>,
    repeatables: Vec<Repeatable>,
    /// Of Flyway, with the event after which each runs.
    callbacks: Vec<(Event, Repeatable)>,
    files: Vec<PathBuf>,
    notes: Vec<String>,
}

struct Up {
    description: String,
    script: Script,
    annotations: Annotations,
}

impl Builder {
    fn new(layout: Layout) -> Self {
        Self {
            layout,
            ups: BTreeMap::new(),
            downs: BTreeMap::new(),
            repeatables: Vec::new(),
            callbacks: Vec::new(),
            files: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn add_file(&mut self, file: File, conf: Option<&File>) -> Result<(), LayoutError> {
        let File { path, name, bytes } = file;
        let parsed = name::parse(&name, self.layout).ok_or_else(|| misfit(&path, self.layout))?;
        let (text, bytes_hash) = text(&path, &bytes)?;
        if !matches!(parsed, Name::Callback(Event::Elsewhere, _)) {
            self.files.push(path.clone());
            self.files.extend(conf.map(|conf| conf.path.clone()));
        }
        if matches!(self.layout, Layout::Goose | Layout::Dbmate) {
            let Name::Up(version, description) = parsed else {
                return Err(misfit(&path, self.layout));
            };
            return self.add_sections(&path, version, description, text, &bytes_hash);
        }
        let script = Script { path, text: text.to_owned(), first_line: 1, bytes_hash };
        let mut annotations = annotations(&script.path, &script.text, 1, self.layout)?;
        if let Some(conf) = conf
            && conf::runs_without_transaction(conf, &mut self.notes)?
        {
            annotations.run_without_transaction();
        }
        match parsed {
            Name::Up(version, description) => self.add_up(version, Up { description, script, annotations }),
            Name::Down(version, _) => self.add_down(version, script, annotations),
            Name::Repeatable(description) => {
                self.repeatables.push(Repeatable { description, script, annotations, after: None });
                Ok(())
            }
            Name::Callback(Event::Elsewhere, _) => {
                self.notes.push(format!("{} is not run: no event here calls it", quoted(&script.path)));
                Ok(())
            }
            Name::Callback(Event::Within, _) => Err(LayoutError::new(
                &script.path,
                "this callback of Flyway is not run",
                "only afterMigrate and afterMigrateApplied are: make it a migration or a repeatable file, or move it to \
                 another folder",
            )),
            Name::Callback(event, description) => {
                self.callbacks.push((event, Repeatable { description, script, annotations, after: None }));
                Ok(())
            }
        }
    }

    fn add_sections(
        &mut self,
        path: &Path,
        version: Version,
        description: String,
        text: &str,
        bytes_hash: &str,
    ) -> Result<(), LayoutError> {
        let sections = section::cut(text, self.layout)
            .map_err(|e| LayoutError::new(path, e.message, e.hint).at(LineColumn { line: e.line, column: 1 }))?;
        self.notes.extend(sections.passed_over.iter().map(|line| {
            format!(
                "line {line} of {} is passed over, as dbmate does: only the first section of each kind counts",
                quoted(path)
            )
        }));
        let layout = self.layout;
        let header = annotations(path, sections.header, 1, layout)?;
        let read = |section: &section::Section<'_>| {
            let script = Script {
                path: path.to_owned(),
                text: section.text.to_owned(),
                first_line: section.first_line,
                bytes_hash: bytes_hash.to_owned(),
            };
            let mut found = header.clone();
            found.merge(annotations(path, section.text, section.first_line, layout)?);
            if section.no_transaction {
                found.run_without_transaction();
            }
            Ok((script, found))
        };
        let (script, annotations) = read(&sections.up)?;
        self.add_up(version.clone(), Up { description, script, annotations })?;
        if let Some(down) = &sections.down {
            let (script, annotations) = read(down)?;
            self.add_down(version, script, annotations)?;
        }
        Ok(())
    }

    fn add_diesel(&mut self, folder: DieselFolder) -> Result<(), LayoutError> {
        let name = folder.path.file_name().unwrap_or_default().to_string_lossy();
        let Some(Name::Up(version, description)) = name::parse(&name, Layout::Diesel) else {
            return Err(misfit(&folder.path, Layout::Diesel));
        };
        let parts = [&folder.up, &folder.down, &folder.metadata].into_iter().flatten();
        self.files.extend(parts.map(|file| file.path.clone()));
        let no_transaction = match &folder.metadata {
            Some(file) => runs_without_transaction(file)?,
            None => false,
        };
        let read = |file: File| {
            let (text, bytes_hash) = text(&file.path, &file.bytes)?;
            let mut found = annotations(&file.path, text, 1, Layout::Diesel)?;
            if no_transaction {
                found.run_without_transaction();
            }
            let text = text.to_owned();
            Ok((Script { path: file.path, text, first_line: 1, bytes_hash }, found))
        };
        if let Some(up) = folder.up {
            let (script, annotations) = read(up)?;
            self.add_up(version.clone(), Up { description, script, annotations })?;
        }
        if let Some(down) = folder.down {
            let (script, annotations) = read(down)?;
            self.add_down(version, script, annotations)?;
        }
        Ok(())
    }

    fn add_up(&mut self, version: Version, up: Up) -> Result<(), LayoutError> {
        match self.ups.entry(version) {
            MapEntry::Occupied(entry) => Err(same_version(entry.key(), &entry.get().script.path, &up.script.path)),
            MapEntry::Vacant(entry) => {
                entry.insert(up);
                Ok(())
            }
        }
    }

    fn add_down(&mut self, version: Version, script: Script, annotations: Annotations) -> Result<(), LayoutError> {
        match self.downs.entry(version) {
            MapEntry::Occupied(entry) => Err(same_version(entry.key(), &entry.get().0.path, &script.path)),
            MapEntry::Vacant(entry) => {
                entry.insert((script, annotations));
                Ok(())
            }
        }
    }

    fn finish(mut self, mut notes: Vec<String>) -> Result<Folder, LayoutError> {
        notes.append(&mut self.notes);
        let mut migrations = Vec::with_capacity(self.ups.len());
        for (version, Up { description, script: up, annotations }) in self.ups {
            let (down, down_annotations) = self.downs.remove(&version).unzip();
            migrations.push(MigrationFile {
                version,
                description,
                up,
                kind: if down.is_some() { Kind::Reversible } else { Kind::Forward },
                down,
                annotations,
                down_annotations: down_annotations.unwrap_or_default(),
            });
        }
        if matches!(self.layout, Layout::Sqlx | Layout::GolangMigrate) {
            // Both tools pass over it, and nothing that should be applied is lost.
            notes.extend(self.downs.iter().map(|(version, (script, _))| {
                format!("{} takes back version {version}, which nothing applies", quoted(&script.path))
            }));
            self.downs.clear();
        }
        if let Some((version, (script, _))) = self.downs.into_iter().next() {
            let hint = match self.layout {
                Layout::Flyway => {
                    "write the V file with the same version; if U files are refinery's, set `layout = \"refinery\"`"
                }
                Layout::Diesel => "write the up.sql beside it",
                Layout::Pgfleet => {
                    "write the up file with the same version; a folder of sqlx or golang-migrate may do without when \
                     `layout` names it"
                }
                _ => "write the up file with the same version",
            };
            return Err(LayoutError::new(
                &script.path,
                format!("takes back version {version}, which nothing applies"),
                hint,
            ));
        }
        self.repeatables.sort_by(|a, b| a.description.cmp(&b.description));
        // Flyway's spaces for underscores can make two names one.
        if let Some([a, b]) = self.repeatables.array_windows().find(|[a, b]| a.description == b.description) {
            let message = format!("has the description of {}", quoted(&a.script.path));
            return Err(LayoutError::new(&b.script.path, message, "rename one of the files").with_other(&a.script.path));
        }
        self.repeatables.extend(after(self.callbacks, &migrations, &self.repeatables));
        self.files.sort();
        Ok(Folder { layout: self.layout, migrations, repeatables: self.repeatables, files: self.files, notes })
    }
}

/// Makes callbacks that run after everything else, and again whenever there was something else to run.
///
/// Flyway calls them after a run that applied something, which is one that had other migrations or other repeatables to
/// apply than the one before. So a hash of these is part of what a callback is compared by.
fn after(
    mut callbacks: Vec<(Event, Repeatable)>,
    migrations: &[MigrationFile],
    repeatables: &[Repeatable],
) -> Vec<Repeatable> {
    let mut all = String::new();
    for migration in migrations {
        all.push_str(migration.version.as_str());
        all.push('\n');
    }
    for repeatable in repeatables {
        all.push_str(&repeatable.description);
        all.push('\n');
        all.push_str(&repeatable.checksum());
        all.push('\n');
    }
    let all = checksum::raw_hash(all.as_bytes());
    callbacks.sort_by(|(a, one), (b, other)| (a, &one.description).cmp(&(b, &other.description)));
    let callbacks = callbacks.into_iter().map(|(_, mut callback)| {
        callback.script.bytes_hash = checksum::raw_hash(format!("{} {all}", callback.script.bytes_hash).as_bytes());
        callback.after = Some(all.clone());
        callback
    });
    callbacks.collect()
}

/// Reads a file as UTF-8, without a byte order mark, and hashes its bytes.
pub(super) fn read_text(path: &Path) -> Result<(String, String), LayoutError> {
    let bytes = fs::read(path).map_err(|source| LayoutError::io(path, "the file cannot be read", source))?;
    let (text, hash) = text(path, &bytes)?;
    Ok((text.to_owned(), hash))
}

/// The text of a file and the hash of its bytes.
fn text<'a>(path: &Path, bytes: &'a [u8]) -> Result<(&'a str, String), LayoutError> {
    Ok((utf8(path, bytes)?, checksum::raw_hash(bytes)))
}

/// The text of a file, without a byte order mark.
pub(super) fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, LayoutError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let valid = String::from_utf8_lossy(&bytes[..offset]);
        LayoutError::new(path, format!("not UTF-8: byte {offset} is 0x{:02x}", bytes[offset]), "save the file as UTF-8")
            .at(position::line_column(&valid, offset))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn annotations(path: &Path, text: &str, first_line: u32, layout: Layout) -> Result<Annotations, LayoutError> {
    annotation::parse_of(text, layout).map_err(|error| {
        let place = position::line_column(text, error.offset);
        LayoutError::new(path, &error.message, error.hint())
            .at(LineColumn { line: place.line + first_line - 1, ..place })
    })
}

/// Reads the one key of Diesel's `metadata.toml` that exists; a TOML parser would be much for that.
fn runs_without_transaction(file: &File) -> Result<bool, LayoutError> {
    let text = utf8(&file.path, &file.bytes)?;
    for (line, number) in text.lines().zip(1u32..) {
        let line = line.split('#').next().unwrap_or_default();
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        if key.trim() == "run_in_transaction" {
            return match value.trim() {
                "false" => Ok(true),
                "true" => Ok(false),
                _ => Err(LayoutError::new(
                    &file.path,
                    "`run_in_transaction` is neither true nor false",
                    "write `run_in_transaction = false`",
                )
                .at(LineColumn { line: number, column: 1 })),
            };
        }
    }
    Ok(false)
}

fn refuse_code(path: &Path, layout: Layout) -> Result<(), LayoutError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, extension) = name.rsplit_once('.').unwrap_or_default();
    let as_sql = format!("{stem}.sql");
    let (tool, language) = match (layout, extension) {
        (Layout::Flyway | Layout::Refinery, "rs") => ("refinery", "Rust"),
        (Layout::Goose, "go") if !stem.ends_with("_test") => ("goose", "Go"),
        _ => return Ok(()),
    };
    if name::parse(&as_sql, layout).is_none() {
        return Ok(());
    }
    let hint = "write the migration as SQL, or as a Rust step of the service, and move the file to another folder";
    Err(LayoutError::new(path, format!("{language} migrations of {tool} are not read"), hint))
}

fn same_version(version: &Version, first: &Path, second: &Path) -> LayoutError {
    let message = format!("has version {version}, as {} does", quoted(first));
    LayoutError::new(second, message, "give one of the files another version").with_other(first)
}

pub(super) fn misfit(path: &Path, layout: Layout) -> LayoutError {
    let hint = format!("name it like {}, or move it to another folder", layout.example());
    LayoutError::new(path, format!("not the name of a migration in the layout of {layout}"), hint)
}
