//! What a bundle holds, as it is written.
//!
//! A field that is added, or that changes its meaning, raises [`FORMAT`]: an older pgfleet must not
//! pass over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgfleet_migrate::Set;
use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::worker::Description;
use pgfleet_sql::checksum;
use pgfleet_sql::layout::{Layout, UnknownLayout};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::jobs::files_error;

/// The version of the form.
pub(super) const FORMAT: u64 = 1;

/// Which program packs.
pub(super) const TOOL: &str = concat!("pgfleet ", env!("CARGO_PKG_VERSION"));

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    pub(super) solution: String,
    pub(super) tool: String,
    /// In the order of the manifest.
    pub(super) services: Vec<Service>,
    pub(super) modules: BTreeMap<String, Module>,
    /// Migrations by their folder, since services may share one.
    pub(super) migrations: BTreeMap<String, Folder>,
    /// Seed files by their folder: names and texts.
    pub(super) seeds: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) schema: String,
    /// Those with files, in the order in which they are migrated.
    pub(super) modules: Vec<String>,
    pub(super) files: Files,
    /// What its program said of itself: texts of what is recorded, names and revisions of the rest.
    pub(super) program: Option<Description>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Module {
    pub(super) schema: Option<String>,
    pub(super) files: Files,
}

/// Where the files of a service or module are in the bundle, and where its history is in a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    pub(super) history: History,
    pub(super) migrations: String,
    pub(super) seeds: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    pub(super) schema: String,
    pub(super) table: String,
}

/// The files of one folder, as they are on the disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Folder {
    pub(super) layout: String,
    /// Contents by their path in the folder.
    pub(super) files: BTreeMap<String, String>,
    /// What comes out of reading them: whoever reads them otherwise must not apply them.
    pub(super) checksums: BTreeMap<String, String>,
}

impl From<&HistoryTable> for History {
    fn from(table: &HistoryTable) -> Self {
        Self { schema: table.schema.clone(), table: table.table.clone() }
    }
}

impl Content {
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Returns where the files of a service or module are, whose names differ from each other.
    pub(super) fn files(&self, name: &str) -> Option<&Files> {
        self.service(name).map(|service| &service.files).or_else(|| self.modules.get(name).map(|module| &module.files))
    }

    /// Makes a set of each folder, by its name.
    ///
    /// # Errors
    ///
    /// Files that cannot be read as migrations, or that this pgfleet reads otherwise than the one that
    /// packed them.
    pub(super) fn sets(&self) -> Result<BTreeMap<String, Set>, Error> {
        let mut sets = BTreeMap::new();
        for (name, folder) in &self.migrations {
            let set = folder.set(name)?;
            if checksums(&set) != folder.checksums {
                return Err(Error::new(ErrorKind::Configuration, "cannot use the bundle")
                    .cause(format!("this pgfleet reads the files in {name} otherwise than the one that packed them"))
                    .cause(format!("it was packed by {}; this is {TOOL}", self.tool))
                    .hinted("make the bundle anew with this version: pgfleet bundle"));
            }
            sets.insert(name.clone(), set);
        }
        Ok(sets)
    }
}

impl Folder {
    /// Takes files, and what comes out of reading them.
    ///
    /// # Errors
    ///
    /// They cannot be read as migrations.
    pub(super) fn new(name: &str, layout: Layout, files: BTreeMap<String, String>) -> Result<Self, Error> {
        let mut folder = Self { layout: layout.name().to_owned(), files, checksums: BTreeMap::new() };
        folder.checksums = checksums(&folder.set(name)?);
        Ok(folder)
    }

    fn set(&self, name: &str) -> Result<Set, Error> {
        let layout: Layout = self.layout.parse().map_err(|error: UnknownLayout| {
            Error::new(ErrorKind::Configuration, format!("{name}: {error}")).hinted(error.hint())
        })?;
        let files = self.files.iter().map(|(path, text)| (PathBuf::from(path), text.clone().into_bytes())).collect();
        Set::from_files(name, Path::new(name), files, Some(layout)).map_err(|error| files_error(&error))
    }
}

/// The checksums of a set: of what applies a migration, and of what takes it back.
fn checksums(set: &Set) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for migration in set.migrations.as_slice() {
        let label = migration.label();
        if let Some(down) = &migration.down {
            let checksum = checksum::with_annotations(&down.text, &migration.down_annotations);
            all.insert(format!("{label}.down"), checksum);
        }
        all.insert(label, migration.checksum());
    }
    for repeatable in set.repeatables.as_slice() {
        all.insert(format!("R__{}", repeatable.description), repeatable.checksum());
    }
    all
}
