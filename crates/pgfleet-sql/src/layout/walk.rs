//! Brings the files of a folder from the disk into memory.

use super::{Layout, LayoutError, name};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Lists a folder and reads what a layout can need of it.
///
/// Of files that only their names matter of, the bytes are left out: a dump beside the migrations, or in a folder
/// between them, is not worth its size.
pub(super) fn files(dir: &Path, layout: Option<Layout>) -> Result<Vec<(PathBuf, Vec<u8>)>, LayoutError> {
    let entries = fs::read_dir(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LayoutError::io(dir, "the folder of migrations does not exist", source),
        io::ErrorKind::NotADirectory => LayoutError::io(dir, "this is a file, not a folder of migrations", source),
        _ => LayoutError::io(dir, "the folder of migrations cannot be read", source),
    })?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(
            entry.map_err(|source| LayoutError::io(dir, "the folder of migrations cannot be read", source))?.path(),
        );
    }
    // Of several files that cannot be read, the error names the first.
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let Some(name) = path.file_name() else { continue };
        let (relative, shown) = (PathBuf::from(name), name.to_string_lossy());
        if shown.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            add_folder(&path, &relative, layout, &mut files)?;
            if layout.is_none_or(|layout| matches!(layout, Layout::Flyway | Layout::Refinery)) {
                add_below(&path, &relative, &mut files)?;
            }
        } else if name::is_sql(&shown) || name::is_conf(&shown) {
            files.push((relative, read(&path)?));
        } else {
            files.push((relative, Vec::new()));
        }
    }
    Ok(files)
}

fn add_folder(
    path: &Path,
    relative: &Path,
    layout: Option<Layout>,
    files: &mut Vec<(PathBuf, Vec<u8>)>,
) -> Result<(), LayoutError> {
    let is_diesel = layout.is_none_or(|layout| layout == Layout::Diesel);
    let parts = ["up.sql", "down.sql", "metadata.toml"];
    for part in parts {
        let file = path.join(part);
        if file.is_file() {
            files.push((relative.join(part), if is_diesel { read(&file)? } else { Vec::new() }));
        }
    }
    // A folder that cannot be listed is none of ours.
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let known = parts.iter().any(|part| name == *part) || name::is_nested(&name.to_string_lossy());
        if !known && name::is_sql(&name.to_string_lossy()) && entry.path().is_file() {
            files.push((relative.join(name), Vec::new()));
        }
    }
    Ok(())
}

/// Adds what the tools find that look into folders below, however deep.
fn add_below(path: &Path, relative: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<(), LayoutError> {
    // As above. Links to folders may lead anywhere, also back up.
    let mut entries: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let (inner, shown) = (relative.join(&name), name.to_string_lossy());
        if shown.starts_with('.') {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_below(&entry.path(), &inner, files)?;
        } else if name::is_nested(&shown) && entry.path().is_file() {
            files.push((inner, read(&entry.path())?));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    fs::read(path).map_err(|source| LayoutError::io(path, "the file cannot be read", source))
}
