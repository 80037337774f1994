//! A migration set: what is ordered in one history, and the seeds that go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgfleet_sql::layout::{Folder, Layout, MigrationFile, Repeatable, Script};
use pgfleet_sql::placeholder::Style;
use pgfleet_sql::version::Version;

use crate::code::{Code, IntoStep, Seeder, Step};
use crate::error::{Error, ErrorKind, Place};
use crate::history::HistoryTable;
use crate::seed::Seeds;

/// An ordered list of migrations with one history table.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name: the service's, the module's, or what `--set` says.
    pub name: String,
    /// Whether somebody chose the name; a default one must not begin a second history by accident.
    pub named: bool,
    /// Where its history is.
    pub history: HistoryTable,
    /// Where the files are.
    pub folder: PathBuf,
    /// How the files are laid out.
    pub layout: Layout,
    /// The versioned migrations, in order; shared by the copies of a set, of which each tenant has one.
    pub migrations: Arc<Vec<MigrationFile>>,
    /// Those applied again whenever they change, in order.
    pub repeatables: Arc<Vec<Repeatable>>,
    /// Those of the migrations that are code: their files hold a name instead of SQL.
    pub code: BTreeMap<Version, Code>,
    /// Those of the migrations that were recorded by Rust and have no file.
    pub recorded: BTreeSet<Version>,
    /// The seeds, which run when every set is at its newest version.
    pub seeds: Seeds,
    /// The schema that unqualified names go to; none takes the target's.
    pub schema: Option<String>,
    /// Values for placeholders.
    pub placeholders: BTreeMap<String, String>,
    /// Things worth knowing about the folder.
    pub notes: Vec<String>,
}

impl Set {
    /// Reads a set from its folder.
    ///
    /// # Errors
    ///
    /// Files that fit no layout, two files with one version, text that is not UTF-8: each names
    /// the file and says what to do.
    pub fn read(
        name: impl Into<String>,
        folder: &Path,
        layout: Option<Layout>,
        placeholders: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let name = name.into();
        let Folder { layout, migrations, repeatables, notes, .. } =
            pgfleet_sql::layout::read_folder(folder, layout).map_err(|error| unreadable(&name, &error))?;
        Ok(Self {
            history: HistoryTable::of_set(&name),
            name,
            named: true,
            folder: folder.to_owned(),
            layout,
            migrations: Arc::new(migrations),
            repeatables: Arc::new(repeatables),
            code: BTreeMap::new(),
            recorded: BTreeSet::new(),
            seeds: Seeds::default(),
            schema: None,
            placeholders,
            notes,
        })
    }

    /// Makes a set from migrations that are in memory (our own, embedded in the program).
    pub fn from_migrations(name: impl Into<String>, migrations: Vec<MigrationFile>) -> Self {
        let name = name.into();
        Self {
            history: HistoryTable::of_set(&name),
            name,
            named: true,
            folder: PathBuf::new(),
            layout: Layout::Pgfleet,
            migrations: Arc::new(migrations),
            repeatables: Arc::default(),
            code: BTreeMap::new(),
            recorded: BTreeSet::new(),
            seeds: Seeds::default(),
            schema: None,
            placeholders: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Makes a set from files that are in memory: relative paths below `folder` and their contents.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn from_files(
        name: impl Into<String>,
        folder: &Path,
        files: Vec<(PathBuf, Vec<u8>)>,
        layout: Option<Layout>,
    ) -> Result<Self, Error> {
        let name = name.into();
        let Folder { layout, migrations, repeatables, notes, .. } =
            pgfleet_sql::layout::read_files(folder, files, layout).map_err(|error| unreadable(&name, &error))?;
        let mut set = Self::from_migrations(name, migrations);
        folder.clone_into(&mut set.folder);
        set.layout = layout;
        set.repeatables = Arc::new(repeatables);
        set.notes = notes;
        Ok(set)
    }

    /// Sets the seeds.
    #[must_use]
    pub fn with_seeds(mut self, seeds: Seeds) -> Self {
        self.seeds = seeds;
        self
    }

    /// Puts a migration written in Rust into its place.
    ///
    /// # Errors
    ///
    /// An id that is not `<version>_<description>`, or a version that is there already.
    pub fn add<K>(&mut self, migration: impl IntoStep<K>) -> Result<(), Error> {
        self.insert(migration.into_step()?)
    }

    /// Puts a step into its place.
    ///
    /// # Errors
    ///
    /// A version that is there already.
    pub fn insert(&mut self, step: Step) -> Result<(), Error> {
        let Step { mut file, code } = step;
        // Compared as the files beside it are.
        if let Ok(version) = self.layout.version(file.version.as_str()) {
            file.version = version;
        }
        match self.migrations.binary_search_by(|other| other.version.cmp(&file.version)) {
            Ok(at) => Err(Error::new(ErrorKind::Files, format!("cannot use the migrations of {}", self.name))
                .cause(format!(
                    "{} and {} have one version",
                    self.migrations[at].up.path.display(),
                    file.up.path.display()
                ))
                .hinted("give one of them a version of its own")),
            Err(at) => {
                match code {
                    Some(code) => {
                        self.code.insert(file.version.clone(), code);
                    }
                    None => {
                        self.recorded.insert(file.version.clone());
                    }
                }
                Arc::make_mut(&mut self.migrations).insert(at, file);
                Ok(())
            }
        }
    }

    /// Puts a seeder written in Rust among the seeds.
    ///
    /// # Errors
    ///
    /// A name that is there already.
    pub fn add_seeder(&mut self, seeder: impl Seeder) -> Result<(), Error> {
        self.seeds.add(seeder)
    }

    /// Returns the code of a migration that is no SQL.
    pub fn code_of(&self, migration: &MigrationFile) -> Option<&Code> {
        // Most sets have none.
        if self.code.is_empty() { None } else { self.code.get(&migration.version) }
    }

    /// Returns whether a migration or seed is code that only the service's program has.
    pub fn needs_program(&self) -> bool {
        self.code.values().any(Code::is_elsewhere)
            || self.seeds.files.iter().any(|seed| seed.code.as_ref().is_some_and(Code::is_elsewhere))
    }

    /// Returns the newest version known here.
    pub fn newest(&self) -> Option<&Version> {
        self.migrations.last().map(|migration| &migration.version)
    }

    /// Finds a migration by its version.
    pub fn find(&self, version: &Version) -> Option<&MigrationFile> {
        self.migrations.iter().find(|migration| migration.version == *version)
    }

    /// Returns how placeholders are written in this set's layout.
    pub(crate) fn placeholder_style(&self) -> Style {
        if self.layout == Layout::Flyway { Style::Flyway } else { Style::Psql }
    }
}

fn unreadable(name: &str, error: &pgfleet_sql::layout::LayoutError) -> Error {
    Error::new(ErrorKind::Files, format!("cannot read the migrations of {name}"))
        .cause(error.to_string())
        .hinted(error.hint())
}

/// Returns the place of a byte offset in a script, with the line's text.
pub(crate) fn place(script: &Script, offset: usize) -> Place {
    let at = pgfleet_sql::position::line_column(&script.text, offset);
    place_of_line(script, at.line, at.column)
}

/// Returns the place of a line of a script's text.
pub(crate) fn place_of_line(script: &Script, line: u32, column: u32) -> Place {
    let excerpt = script.text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
    Place {
        path: script.path.clone(),
        line: script.first_line + line - 1,
        column,
        excerpt: excerpt.chars().take(200).collect(),
    }
}
