//! The folder `.pgfleet` beside the manifest: what belongs to this checkout and to nobody else.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};

/// The state folder of a solution.
#[derive(Debug, Clone)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// Names the state folder of a manifest's folder, without making it.
    pub fn of(root: &Path) -> Self {
        Self { folder: root.join(".pgfleet") }
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the password file in libpq's form that pasted connection strings point to.
    pub fn passfile(&self) -> PathBuf {
        self.folder.join("pgpass")
    }

    /// Makes the folder, invisible to git.
    ///
    /// The folder can be entered by others, since a server that dropped its privileges may have its
    /// data below it; every file with a secret is readable by its owner alone.
    ///
    /// # Errors
    ///
    /// A folder that cannot be made or written.
    pub fn make(&self) -> Result<(), Error> {
        let failed = |path: &Path, error: &std::io::Error| {
            Error::new(ErrorKind::Configuration, format!("cannot write {}", path.display()))
                .cause(error.to_string())
                .hinted("make the solution's folder writable for this user, or copy the solution to one that is")
        };
        fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, &error))?;
        let ignore = self.folder.join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(|error| failed(&ignore, &error))?;
        }
        Ok(())
    }

    /// Takes the lock that serializes changes to the files in the folder; free when dropped.
    pub(crate) fn lock(&self) -> Result<fs::File, Error> {
        self.make()?;
        let path = self.folder.join("lock");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| {
            Error::new(ErrorKind::Configuration, format!("cannot lock {}", path.display())).cause(error.to_string())
        })
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        // The mode above counts for a new file only.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|error| {
        Error::new(ErrorKind::Configuration, format!("cannot write {}", path.display())).cause(error.to_string())
    })
}
