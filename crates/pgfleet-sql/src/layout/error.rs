//! What is wrong with a folder of migrations.

use crate::position::LineColumn;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

/// A folder that cannot be read as migrations.
///
/// Displays as `path:line:column: message`, as far as there is a line.
#[derive(Debug)]
pub struct LayoutError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    other: Option<PathBuf>,
    place: Option<LineColumn>,
    message: String,
    hint: String,
    source: Option<io::Error>,
}

impl LayoutError {
    #[cold]
    pub(super) fn new(path: &Path, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            path: path.to_owned(),
            other: None,
            place: None,
            message: message.into(),
            hint: hint.into(),
            source: None,
        }))
    }

    pub(super) fn io(path: &Path, message: impl Into<String>, source: io::Error) -> Self {
        let mut error = Self::new(path, message, "check that the path is right and may be read");
        error.0.source = Some(source);
        error
    }

    pub(super) fn with_other(mut self, other: &Path) -> Self {
        self.0.other = Some(other.to_owned());
        self
    }

    pub(super) fn at(mut self, place: LineColumn) -> Self {
        self.0.place = Some(place);
        self
    }

    /// Returns the file or folder that the error is about.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the second file, if the error is about two that do not go together.
    pub fn other_path(&self) -> Option<&Path> {
        self.0.other.as_deref()
    }

    /// Returns the line and column in the file, if the error is about a place in it.
    pub fn place(&self) -> Option<LineColumn> {
        self.0.place
    }

    /// Returns what is wrong, without the path.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> &str {
        &self.0.hint
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.path.display())?;
        if let Some(place) = self.0.place {
            write!(f, ":{place}")?;
        }
        f.write_str(": ")?;
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for LayoutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

/// A path in backquotes, for a message that names a second file.
pub(super) fn quoted(path: &Path) -> String {
    let mut text = String::new();
    let _ = write!(text, "`{}`", path.display());
    text
}
