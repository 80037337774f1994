//! Folders that are part of the program; made by [`migrations!`](crate::migrations) and
//! [`seeds!`](crate::seeds).

use std::path::{Path, PathBuf};

use pgfleet_migrate::Set;
use pgfleet_sql::layout::Layout;

use crate::error::Error;

/// A folder of migrations.
#[derive(Debug, Clone, Copy)]
pub struct Folder {
    path: &'static str,
    layout: &'static str,
    files: &'static [(&'static str, &'static str)],
}

impl Folder {
    /// Makes a folder of its name, its layout's name, and the relative paths and texts of its files.
    pub const fn new(path: &'static str, layout: &'static str, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { path, layout, files }
    }

    /// Reads it as a set.
    pub(crate) fn set(&self, name: &str) -> Result<Set, Error> {
        let layout: Layout = self.layout.parse().map_err(|error: pgfleet_sql::layout::UnknownLayout| {
            Error::configuration(error.to_string()).hinted(error.hint())
        })?;
        let files = self.files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect();
        Ok(Set::from_files(name, Path::new(self.path), files, Some(layout))?)
    }
}

/// A folder of seed files.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    pub(crate) folder: &'static str,
    pub(crate) files: &'static [(&'static str, &'static str)],
}

impl Seeds {
    /// Makes seeds of the folder's name, and the names and texts of its files.
    pub const fn new(folder: &'static str, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { folder, files }
    }
}
