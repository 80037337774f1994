//! Small file operations that must survive a death in the middle.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::user::ServerUser;

/// Takes an exclusive lock, waiting for whoever holds it.
///
/// The lock goes away with the process, however it ends; the file stays, because removing it would
/// let two processes hold locks on two files of the same name.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|source| Error::io("open", path, source))?;
    file.lock().map_err(|source| Error::io("lock", path, source))?;
    Ok(file)
}

/// Writes a file under a temporary name and renames it, so that a reader sees the old or the new.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32, owner: Option<&ServerUser>) -> Result<()> {
    let temporary = sibling(path, &format!(".tmp-{}", std::process::id()));
    remove_file(&temporary)?;
    // `create_new` never follows a link that the folder's owner may have put there.
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(&temporary)
        .map_err(|source| Error::io("write", &temporary, source))?;
    if let Some(owner) = owner {
        owner.give_file(&file, &temporary)?;
    }
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|source| Error::io("write", &temporary, source))?;
    fs::rename(&temporary, path).map_err(|source| Error::io("write", path, source))
}

/// The path with something added to its last name.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a folder and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::io("create the folder", path, source))
}

/// Sets permission bits.
pub(crate) fn chmod(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|source| Error::io("change the mode of", path, source))
}

/// Removes a file that may not be there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    absent_is_fine(fs::remove_file(path)).map_err(|source| Error::io("remove", path, source))
}

/// Removes a folder with all it holds; it may not be there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    absent_is_fine(fs::remove_dir_all(path)).map_err(|source| Error::io("remove", path, source))
}

/// Reads a text file that may not be there.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// The text of a log from an offset on; whatever cannot be read is left out.
pub(crate) fn read_from(path: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.seek(SeekFrom::Start(offset));
        let _ = file.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Removes the folder's entries whose name begins with `prefix`: what a dead process left behind.
pub(crate) fn remove_leftovers(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            let _ = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
