//! Scripts that are no migration of a folder: seed files, and texts kept in a history.

use std::path::{Path, PathBuf};

use super::{LayoutError, Script, read};
use crate::checksum;

impl Script {
    /// Reads one file as a script.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, LayoutError> {
        let (text, bytes_hash) = read::read_text(path)?;
        Ok(Self { path: path.to_owned(), text, first_line: 1, bytes_hash })
    }

    /// Makes a script of a text that has no file of its own; `name` stands for the path in messages.
    pub fn from_text(name: impl Into<PathBuf>, text: String) -> Self {
        let bytes_hash = checksum::raw_hash(text.as_bytes());
        Self { path: name.into(), text, first_line: 1, bytes_hash }
    }
}
