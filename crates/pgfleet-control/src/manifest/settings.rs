//! What holds in the end and where it comes from: the rows of `pgfleet config show --origin`.

use std::fmt;
use std::path::PathBuf;

/// Which layer a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The schema.
    Default,
    /// One of the two files.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env {
        /// Its name.
        variable: String,
    },
    /// A flag of the command line, by the path that it sets.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                let name = path.file_name().map_or(path.as_os_str(), |name| name);
                write!(f, "{}:{line}", name.display())
            }
            Self::Env { variable } => f.write_str(variable),
            Self::Flag(path) => write!(f, "flag {path}"),
        }
    }
}

/// One setting as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key as TOML writes it: `services."my service".database`.
    pub path: String,
    /// The value; `***` stands for secrets.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// All settings that have a value. It holds no secret, so it can be printed.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) rows: Vec<Row>,
}

impl Settings {
    /// Returns the settings in the order of the reference, services in the order of the file.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns one setting by its path, as TOML writes it.
    pub fn get(&self, path: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.path == path)
    }
}
