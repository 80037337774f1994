//! The folder that a run works in, and the one that outlives it.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// A folder outside of the repository; one run at a time.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Held until the run ends: two runs at once would measure each other.
    _lock: File,
}

impl Folder {
    pub(crate) fn open() -> Result<Self> {
        let uid = fs::metadata("/proc/self")?.uid();
        // On a disk, unlike many a /tmp; and root's server, which runs as another user, gets through.
        let path = PathBuf::from(format!("/var/tmp/pgfleet-bench-{uid}"));
        let made = fs::DirBuilder::new().mode(0o711).recursive(true).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        ensure!(fs::symlink_metadata(&path)?.uid() == uid, "{} belongs to somebody else", path.display());
        let lock = File::create(path.join("lock"))?;
        lock.try_lock().context("another benchmark is running")?;
        Ok(Self { path, _lock: lock })
    }
}

/// Where peers are kept between runs.
pub(crate) fn cache() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("pgfleet-bench"))
}

/// An empty folder of that name.
pub(crate) fn empty(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
