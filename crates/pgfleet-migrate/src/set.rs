//! A migration set: the ordered files of one history.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgfleet_sql::layout::{Folder, Layout, MigrationFile, Repeatable, Script};
use pgfleet_sql::placeholder::Style;
use pgfleet_sql::version::Version;

use crate::error::{Error, ErrorKind, Place};
use crate::history::HistoryTable;

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
    /// The versioned migrations, in order.
    pub migrations: Vec<MigrationFile>,
    /// Those applied again whenever they change, in order.
    pub repeatables: Vec<Repeatable>,
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
        let Folder { layout, migrations, repeatables, notes, .. } = pgfleet_sql::layout::read_folder(folder, layout)
            .map_err(|error| {
                Error::new(ErrorKind::Files, format!("cannot read the migrations of {name}"))
                    .cause(error.to_string())
                    .hinted(error.hint())
            })?;
        Ok(Self {
            history: HistoryTable::of_set(&name),
            name,
            named: true,
            folder: folder.to_owned(),
            layout,
            migrations,
            repeatables,
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
            migrations,
            repeatables: Vec::new(),
            placeholders: BTreeMap::new(),
            notes: Vec::new(),
        }
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
