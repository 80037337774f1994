//! Making a data directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::binaries::Binaries;
use crate::cluster::ClusterOptions;
use crate::error::{Error, Kind, Result};
use crate::place::Place;
use crate::{files, settings};

/// The first version with a locale provider of its own, which needs nothing of the system.
const BUILTIN_LOCALES: u32 = 17;

/// Makes the data directory under a temporary name beside its place and renames it, so that a death
/// in the middle leaves nothing that looks like data. Called under the cluster's lock.
pub(crate) fn create(options: &ClusterOptions, place: &Place, binaries: &Binaries) -> Result<()> {
    place.prepare_parent()?;
    refuse_strangers(&place.data_dir)?;
    let socket_dir = place.prepare_socket_dir()?;
    let temporary = temporary_sibling(&place.data_dir);
    let password = PasswordFile::write(&socket_dir, options, place)?;
    let result = run(options, place, binaries, &temporary, &password.path)
        .and_then(|()| settings::include(&temporary))
        .and_then(|()| settings::allow(&temporary, &options.hba))
        .and_then(|()| {
            fs::rename(&temporary, &place.data_dir).map_err(|source| Error::io("write", &place.data_dir, source))
        });
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result
}

/// A fresh name beside the data directory, after removing what dead ones left there. Never the same
/// name twice: the initdb of a killed caller may still run, and cleans up by name when it fails.
fn temporary_sibling(data_dir: &Path) -> PathBuf {
    let prefix = files::sibling(data_dir, ".new-");
    if let (Some(parent), Some(name)) = (prefix.parent(), prefix.file_name()) {
        files::remove_leftovers(parent, &name.to_string_lossy());
    }
    files::sibling(&prefix, &format!("{}-{:08x}", std::process::id(), rand::random::<u32>()))
}

/// Renaming replaces an empty folder only, but its error would not say why.
fn refuse_strangers(data_dir: &Path) -> Result<()> {
    match fs::read_dir(data_dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                Err(Error::invalid(format!("{} is not empty and not a PostgreSQL data directory", data_dir.display())))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("read", data_dir, error)),
    }
}

fn run(
    options: &ClusterOptions,
    place: &Place,
    binaries: &Binaries,
    target: &Path,
    password_file: &Path,
) -> Result<()> {
    // C.UTF-8 is missing on some systems; plain C exists everywhere.
    let mut outcome = Ok(());
    for locale in ["C.UTF-8", "C"] {
        make_private_dir(target)?;
        place.user.give(target)?;
        let program = binaries.bin_dir.join("initdb");
        let mut command = place.user.command(&program);
        command
            .arg("--pgdata")
            .arg(target)
            .arg(format!("--username={}", options.superuser))
            .arg(format!("--pwfile={}", password_file.display()))
            .args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--encoding=UTF8"])
            .arg(format!("--locale={locale}"));
        if binaries.version.0 >= BUILTIN_LOCALES {
            command.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
        }
        if options.durable {
            command.arg("--data-checksums");
        } else {
            command.arg("--no-sync");
        }
        let output =
            command.output().map_err(|source| Kind::Spawn { program: program.display().to_string(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let missing_locale = text.contains("invalid locale");
        outcome = Err(Error::from(Kind::Command {
            program: program.display().to_string(),
            status: output.status.to_string(),
            output: text,
        }));
        files::remove_tree(target)?;
        if !missing_locale {
            break;
        }
    }
    outcome
}

fn make_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path).map_err(|source| Error::io("create the folder", path, source))
}

/// The superuser's password for initdb: in a file that only the server's user can read, because
/// arguments are shown to everybody. Gone when this value is; a death in between leaves it in the
/// private socket folder, where the next one replaces it.
struct PasswordFile {
    path: PathBuf,
}

impl PasswordFile {
    fn write(folder: &Path, options: &ClusterOptions, place: &Place) -> Result<Self> {
        let path = folder.join("initdb-password");
        files::remove_file(&path)?;
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| Error::io("write", &path, source))?;
        let written = Self { path };
        place.user.give_file(&file, &written.path)?;
        file.write_all(options.password.as_bytes()).map_err(|source| Error::io("write", &written.path, source))?;
        Ok(written)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
