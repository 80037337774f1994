//! Where a cluster's data, log and socket are, and whose they are.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::cluster::ClusterOptions;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::state::{Fingerprint, State};
use crate::user::{ServerUser, current_name};

/// For the data of root's servers whose state folder the server's user cannot reach.
const SYSTEM_DATA: &str = "/var/lib/pgfleet";

/// Sockets need a short path: 107 bytes with the socket's own name.
const SOCKETS: &str = "/tmp";

/// The places of one cluster.
#[derive(Debug)]
pub(crate) struct Place {
    /// Absolute and without links.
    pub(crate) state_dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) user: ServerUser,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) state: Option<State>,
}

impl Place {
    /// Finds out the places; creates nothing. The state folder must exist.
    pub(crate) fn find(options: &ClusterOptions) -> Result<Self> {
        let state_dir = fs::canonicalize(&options.state_dir)
            .map_err(|source| Error::io("open the folder", &options.state_dir, source))?;
        let fingerprint = Fingerprint::of(&state_dir);
        let user = ServerUser::choose(options.server_user.as_deref());
        let state = State::read(&state_dir)?.and_then(|state| adopt(state, &state_dir));
        let data_dir = match (&options.data_dir, &state) {
            (Some(configured), _) => {
                std::path::absolute(configured).map_err(|source| Error::io("find", configured, source))?
            }
            (None, Some(state)) => state.data_dir.clone(),
            (None, None) => default_data_dir(options, &state_dir, fingerprint, user.as_ref().ok()),
        };
        // The postmaster writes and compares the path without links.
        let data_dir = fs::canonicalize(&data_dir).unwrap_or(data_dir);
        let user = owner(&data_dir, options, user)?;
        Ok(Self { state_dir, data_dir, user, fingerprint, state })
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.state_dir.join("local.lock")
    }

    /// Beside the data, not in it: base backups copy the data directory.
    pub(crate) fn log_file(&self) -> PathBuf {
        files::sibling(&self.data_dir, ".log")
    }

    pub(crate) fn old_log_file(&self) -> PathBuf {
        files::sibling(&self.data_dir, ".log.1")
    }

    /// The folder that holds the data directory.
    pub(crate) fn parent(&self) -> &Path {
        self.data_dir.parent().unwrap_or(Path::new("/"))
    }

    pub(crate) fn is_initialised(&self) -> Result<bool> {
        Ok(self.data_major()?.is_some())
    }

    /// The major version that made the data directory.
    pub(crate) fn data_major(&self) -> Result<Option<u32>> {
        let path = self.data_dir.join("PG_VERSION");
        let Some(text) = files::read_optional(&path)? else { return Ok(None) };
        match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(Error::invalid(format!("{} holds no version", path.display()))),
        }
    }

    /// Makes the folder for the data directory and checks that the server's user gets there.
    pub(crate) fn prepare_parent(&self) -> Result<()> {
        let parent = self.parent();
        if !parent.exists() {
            files::make_dir(parent)?;
            if self.user.is_dropped_to() {
                // The umask may have closed it for others; the data directory itself is private.
                files::chmod(parent, 0o755)?;
            }
        }
        if let Some(folder) = self.user.first_unreachable(parent) {
            return Err(Kind::NotUsable {
                action: "reach the data directory through",
                path: folder,
                user: self.user.name().to_owned(),
                why: "permission denied".to_owned(),
            }
            .into());
        }
        Ok(())
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("pgfleet-{}-{}", self.user.uid(), self.fingerprint.short()))
    }

    /// Makes the socket folder, open to the server's user only. One that belongs to somebody else
    /// is refused: they could put a socket of their own into it and be sent our password.
    pub(crate) fn prepare_socket_dir(&self) -> Result<PathBuf> {
        let path = self.socket_dir();
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.map_err(|source| Error::io("create the folder", &path, source))?,
        }
        let meta = fs::symlink_metadata(&path).map_err(|source| Error::io("look at", &path, source))?;
        // Root's own folder is one that we made and died before giving it away.
        let ours = meta.uid() == self.user.uid() || (self.user.is_dropped_to() && meta.uid() == 0);
        let private = meta.mode() & 0o777 == 0o700;
        if !meta.is_dir() || !ours || !private {
            return Err(Kind::NotUsable {
                action: "use the socket folder",
                path,
                user: self.user.name().to_owned(),
                why: format!(
                    "it exists, belongs to uid {} and has mode {:o}; remove it",
                    meta.uid(),
                    meta.mode() & 0o7777
                ),
            }
            .into());
        }
        self.user.give(&path)?;
        Ok(path)
    }

    /// Removes a socket folder of ours; anything else is left alone.
    pub(crate) fn remove_socket_dir(&self, path: &Path) -> Result<()> {
        let named_by_us = path.parent() == Some(Path::new(SOCKETS))
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgfleet-"));
        match fs::symlink_metadata(path) {
            Ok(meta) if named_by_us && meta.is_dir() && meta.uid() == self.user.uid() => files::remove_tree(path),
            _ => Ok(()),
        }
    }
}

/// What a state file means here.
///
/// A folder that was moved keeps its data. One that was copied must not: two solutions would share
/// a server. It is a copy if the place where the file was written still has one.
fn adopt(mut state: State, state_dir: &Path) -> Option<State> {
    if state.state_dir == state_dir {
        return Some(state);
    }
    if let Ok(inside) = state.data_dir.strip_prefix(&state.state_dir) {
        // Inside the folder, so the copy has its own.
        state.data_dir = state_dir.join(inside);
        return Some(state);
    }
    let copied = matches!(State::read(&state.state_dir), Ok(Some(there)) if there.state_dir == state.state_dir);
    (!copied).then_some(state)
}

fn default_data_dir(
    options: &ClusterOptions,
    state_dir: &Path,
    fingerprint: Fingerprint,
    user: Option<&ServerUser>,
) -> PathBuf {
    let reachable = user.is_none_or(|user| user.first_unreachable(state_dir).is_none());
    if reachable {
        return state_dir.join("postgres");
    }
    let name: String = options
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(40)
        .collect();
    Path::new(SYSTEM_DATA).join(format!("{name}-{}", fingerprint.short()))
}

/// The server's user: whoever owns the data there is already, else the chosen one.
fn owner(data_dir: &Path, options: &ClusterOptions, chosen: Result<ServerUser>) -> Result<ServerUser> {
    let Ok(meta) = fs::metadata(data_dir) else { return chosen };
    // An empty folder may be root's: it is replaced.
    if meta.uid() == 0 && !data_dir.join("PG_VERSION").exists() {
        return chosen;
    }
    let chosen = match chosen {
        Ok(user) if user.uid() == meta.uid() => return Ok(user),
        Ok(user) => user,
        Err(error) if options.server_user.is_some() => return Err(error),
        Err(_) => return ServerUser::owner_of(meta.uid()),
    };
    let foreign = |why: String| {
        Err(Kind::NotUsable {
            action: "use the data directory",
            path: data_dir.to_owned(),
            user: if chosen.is_dropped_to() { chosen.name().to_owned() } else { current_name() },
            why,
        }
        .into())
    };
    let owner = match ServerUser::owner_of(meta.uid()) {
        Ok(owner) => owner.name().to_owned(),
        Err(_) => format!("uid {}", meta.uid()),
    };
    if !chosen.is_dropped_to() || options.server_user.is_some() || meta.uid() == 0 {
        return foreign(format!("it belongs to {owner}"));
    }
    ServerUser::owner_of(meta.uid())
}
