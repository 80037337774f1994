//! The operating system user that the server runs as.
//!
//! PostgreSQL refuses to run as root, so a root process (a container, a CI machine) hands every
//! server program to an unprivileged user. An ordinary user runs the server itself.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User, geteuid};

use crate::error::{Error, Kind, Result};

/// Tried in this order when root has not been told which user to take.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The server's programs are found by absolute path; this is for what the server itself starts.
const SERVER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user that owns the data directory and runs `initdb`, `pg_ctl` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUser {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
    /// We are root and must become this user.
    drops: bool,
}

impl ServerUser {
    /// Chooses the user: ourselves, or for root the configured one, `postgres` or `nobody`.
    pub fn choose(configured: Option<&str>) -> Result<Self> {
        let me = geteuid();
        if !me.is_root() {
            let user = lookup_uid(me)?;
            return match configured {
                Some(name) if user.name != name => Err(Kind::NoUser(format!(
                    "{name} is configured, but only root can run the server as somebody else \
                     (this is {})",
                    user.name
                ))
                .into()),
                _ => Ok(user),
            };
        }
        let wanted: &[&str] = match &configured {
            Some(name) => std::slice::from_ref(name),
            None => &CANDIDATES,
        };
        for name in wanted {
            if let Some(user) = User::from_name(name).ok().flatten()
                && !user.uid.is_root()
            {
                return Ok(Self::dropping_to(user));
            }
        }
        Err(Kind::NoUser(format!("none of {} exists on this machine", wanted.join(", "))).into())
    }

    /// The owner of an existing data directory, which must run its server.
    pub(crate) fn owner_of(uid: u32) -> Result<Self> {
        if geteuid().as_raw() == uid {
            return lookup_uid(Uid::from_raw(uid));
        }
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Ok(Self::dropping_to(user)),
            _ => Err(Kind::NoUser(format!("uid {uid} is not in the user database")).into()),
        }
    }

    fn dropping_to(user: User) -> Self {
        let mut chosen =
            Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir, drops: true };
        // `nobody` has a home that does not exist; programs that look there then complain.
        if !chosen.home.is_dir() || chosen.first_unreachable(&chosen.home).is_some() {
            chosen.home = PathBuf::from("/");
        }
        chosen
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The numeric user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The numeric primary group id.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// True when this process is root and becomes that user for the server's programs.
    pub fn is_dropped_to(&self) -> bool {
        self.drops
    }

    /// A command that runs as this user, from `/`, with a clean environment and no input.
    ///
    /// The environment is not handed on: it may hold our secrets, which `/proc/<pid>/environ` would
    /// show to the server's user, and `PG*` variables, which would redirect the server's programs.
    /// The messages are in English because some of them are recognised.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", SERVER_PATH)
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .env("LOGNAME", &self.name)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        if self.drops {
            // With a uid and no groups given, std also clears root's supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// The first folder on the way to `path` (itself included) that this user cannot pass through.
    ///
    /// Looks at permission bits only; a folder opened by an ACL counts as closed, which costs no
    /// more than another place for the data.
    pub(crate) fn first_unreachable(&self, path: &Path) -> Option<PathBuf> {
        if !self.drops {
            return None;
        }
        let mut folders: Vec<&Path> = path.ancestors().collect();
        folders.reverse();
        folders
            .into_iter()
            .find(|folder| std::fs::metadata(folder).is_ok_and(|meta| meta.is_dir() && !self.may_search(&meta)))
            .map(Path::to_owned)
    }

    fn may_search(&self, meta: &std::fs::Metadata) -> bool {
        let mode = meta.permissions().mode();
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }

    /// Gives a folder to the user; nothing to do when it is ours already.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        if !self.drops {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .map_err(|source| Error::io("change the owner of", path, source))
    }

    /// Gives an open file to the user: by descriptor, so that no link can be put in its place.
    pub(crate) fn give_file(&self, file: &std::fs::File, path: &Path) -> Result<()> {
        if !self.drops {
            return Ok(());
        }
        std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))
            .map_err(|source| Error::io("change the owner of", path, source))
    }
}

fn lookup_uid(uid: Uid) -> Result<ServerUser> {
    match User::from_uid(uid) {
        Ok(Some(user)) => {
            Ok(ServerUser { name: user.name, uid: uid.as_raw(), gid: user.gid.as_raw(), home: user.dir, drops: false })
        }
        // initdb looks the name up too and would stop with a message nobody understands.
        _ => Err(Kind::NoUser(format!("uid {uid} has no entry in the user database, which initdb needs")).into()),
    }
}

/// The name of whoever runs this process, for messages.
pub(crate) fn current_name() -> String {
    let uid = geteuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// The effective user id of this process.
pub(crate) fn current_uid() -> u32 {
    geteuid().as_raw()
}
