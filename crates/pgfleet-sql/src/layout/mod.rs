//! Folders of migration files, in the layouts of several tools.
//!
//! A folder uses one layout, which is recognised from its names and contents or given. A file that would silently not
//! be run (a misspelt name, a second file of one version, a down without its up) is an error here, because the place
//! where people notice otherwise is production.

mod conf;
mod error;
mod listing;
mod name;
mod read;
mod script;
mod section;
#[cfg(test)]
mod tests;
mod walk;

pub use error::LayoutError;
pub use read::{read_files, read_folder};

use crate::annotation::Annotations;
use crate::checksum;
use crate::position::{self, LineColumn};
use crate::version::{Version, VersionError};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The way in which a folder holds its migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// `0001_create_users.sql`, or `.up.sql` and `.down.sql`; the names of sqlx and golang-migrate are among these.
    Pgfleet,
    /// `20260730140000_create_users.sql`, with `-- no-transaction` as the first line.
    Sqlx,
    /// `V1_10__create_users.sql`, `U1_10__create_users.sql` to undo it, `R__views.sql`.
    Flyway,
    /// `V1__create_users.sql`; `U2__late.sql` is a migration as well.
    Refinery,
    /// `000001_create_users.up.sql` and `.down.sql`.
    GolangMigrate,
    /// `20260730140000_create_users.sql` with `-- migrate:up` and `-- migrate:down`.
    Dbmate,
    /// `00001_create_users.sql` with `-- +goose Up` and `-- +goose Down`.
    Goose,
    /// `2026-07-30-140000-0000_create_users/up.sql` and `down.sql`.
    Diesel,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 8] = [
        Self::Pgfleet,
        Self::Sqlx,
        Self::Flyway,
        Self::Refinery,
        Self::GolangMigrate,
        Self::Dbmate,
        Self::Goose,
        Self::Diesel,
    ];

    /// Returns the name that `layout = "…"` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pgfleet => "pgfleet",
            Self::Sqlx => "sqlx",
            Self::Flyway => "flyway",
            Self::Refinery => "refinery",
            Self::GolangMigrate => "golang-migrate",
            Self::Dbmate => "dbmate",
            Self::Goose => "goose",
            Self::Diesel => "diesel",
        }
    }

    /// Reads a version as the layout's tool compares it.
    ///
    /// # Errors
    ///
    /// If the text is not a version.
    pub fn version(self, text: &str) -> Result<Version, VersionError> {
        let version: Version = text.parse()?;
        Ok(if self == Self::Diesel { version.as_text() } else { version })
    }

    /// Returns what a file of the layout is called, as an example.
    pub fn example(self) -> &'static str {
        match self {
            Self::Pgfleet => {
                "0001_create_users.sql, 0001_create_users.up.sql with 0001_create_users.down.sql, or R__views.sql"
            }
            Self::Sqlx => "20260730140000_create_users.sql, or .up.sql with .down.sql",
            Self::Flyway => "V1__create_users.sql, U1__create_users.sql or R__views.sql",
            Self::Refinery => "V1__create_users.sql or U1__create_users.sql",
            Self::GolangMigrate => "000001_create_users.up.sql with 000001_create_users.down.sql",
            Self::Dbmate => "20260730140000_create_users.sql with `-- migrate:up` in it",
            Self::Goose => "00001_create_users.sql with `-- +goose Up` in it",
            Self::Diesel => "2026-07-30-140000-0000_create_users/up.sql",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layout {
    type Err = UnknownLayout;

    fn from_str(name: &str) -> Result<Self, UnknownLayout> {
        Self::ALL
            .into_iter()
            .find(|layout| layout.name() == name)
            .ok_or_else(|| UnknownLayout { name: name.to_owned() })
    }
}

/// A name that no layout has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown layout `{name}`")]
pub struct UnknownLayout {
    name: String,
}

impl UnknownLayout {
    /// Returns the names there are.
    pub fn hint(&self) -> String {
        let names: Vec<_> = Layout::ALL.iter().map(|layout| layout.name()).collect();
        format!("layouts are {}", names.join(", "))
    }
}

/// SQL from a file, or from a section of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The file.
    pub path: PathBuf,
    /// The SQL, without a byte order mark.
    pub text: String,
    /// The line of the file, from 1, that the text begins with.
    pub first_line: u32,
    /// The SHA-256 of the whole file's bytes.
    pub bytes_hash: String,
}

impl Script {
    /// Returns the line and column in the file of a byte of the text.
    pub fn line_column(&self, offset: usize) -> LineColumn {
        let place = position::line_column(&self.text, offset);
        LineColumn { line: place.line + self.first_line - 1, column: place.column }
    }
}

/// Whether a migration can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no way back.
    Forward,
    /// The migration has a down script.
    Reversible,
}

/// A migration with a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationFile {
    /// The version.
    pub version: Version,
    /// What it does, from its name; as written, with spaces for underscores only in Flyway's layouts.
    pub description: String,
    /// What applies it.
    pub up: Script,
    /// What takes it back.
    pub down: Option<Script>,
    /// What the file says about applying it.
    pub annotations: Annotations,
    /// What the file says about taking it back.
    pub down_annotations: Annotations,
    /// Whether it can be taken back.
    pub kind: Kind,
}

impl MigrationFile {
    /// Returns what messages call it: version, underscore, description.
    pub fn label(&self) -> String {
        if self.description.is_empty() {
            return self.version.to_string();
        }
        format!("{}_{}", self.version, self.description.replace(' ', "_"))
    }

    /// Returns the checksum of what applies it, annotations included.
    pub fn checksum(&self) -> String {
        checksum::with_annotations(&self.up.text, &self.annotations)
    }
}

/// A migration that is applied again whenever its content changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeatable {
    /// What it makes, from its name; the whole name for a callback of Flyway.
    pub description: String,
    /// What applies it.
    pub script: Script,
    /// What the file says about applying it.
    pub annotations: Annotations,
    /// For a callback of Flyway, which runs after every run that applied something: a hash of everything it runs after.
    pub after: Option<String>,
}

impl Repeatable {
    /// Returns the checksum, annotations included, and what it runs after.
    pub fn checksum(&self) -> String {
        let own = checksum::with_annotations(&self.script.text, &self.annotations);
        match &self.after {
            Some(after) => format!("{own} after {after}"),
            None => own,
        }
    }
}

/// The migrations of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The layout it was read as.
    pub layout: Layout,
    /// The migrations, by version.
    pub migrations: Vec<MigrationFile>,
    /// The repeatable migrations, by description.
    pub repeatables: Vec<Repeatable>,
    /// The files that all of this was read from, in order: with these alone, the folder is the same but for its notes.
    pub files: Vec<PathBuf>,
    /// What a person may want to know and no program needs to.
    pub notes: Vec<String>,
}
