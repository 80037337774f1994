//! A cluster: one local server with its data, from the first start to its removal.

use std::path::PathBuf;

use crate::binaries::Search;
use crate::error::{Error, Result};
use crate::place::Place;
use crate::postmaster::Postmaster;
use crate::start::Starter;
use crate::state::State;
use crate::user::ServerUser;
use crate::{files, settings};

/// The address local servers listen on.
pub const HOST: &str = "127.0.0.1";

/// What a local server is to be like.
#[derive(Clone)]
pub struct ClusterOptions {
    /// The solution's name; shows in the server's process titles.
    pub name: String,
    /// The folder that remembers the server, and holds its data where the server's user can reach it.
    pub state_dir: PathBuf,
    /// Where the data is instead; must be reachable for the server's user.
    pub data_dir: Option<PathBuf>,
    /// The superuser that initdb makes.
    pub superuser: String,
    /// That user's password; used when the data directory is made, never shown to other users.
    pub password: String,
    /// At least this many connections.
    pub max_connections: u32,
    /// False trades safety for speed, for tests: the last moments are lost when the server is killed,
    /// and everything may be when the machine goes down.
    pub durable: bool,
    /// More server settings; they win over ours, except where the server would be lost.
    pub settings: Vec<(String, String)>,
    /// Lines of `pg_hba.conf` before those of initdb; written when the data directory is made.
    pub hba: Vec<String>,
    /// Where to look for the server programs.
    pub search: Search,
    /// Whether a self-contained build may be fetched when there are none.
    pub allow_fetch: bool,
    /// The user that the server runs as when we are root; `postgres` or `nobody` when not given.
    pub server_user: Option<String>,
}

impl ClusterOptions {
    /// Options with defaults: superuser `postgres`, 100 connections, durable, fetching allowed,
    /// programs looked for on this machine ([`Search::from_env`]).
    pub fn new(name: impl Into<String>, state_dir: impl Into<PathBuf>, password: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state_dir: state_dir.into(),
            data_dir: None,
            superuser: "postgres".to_owned(),
            password: password.into(),
            max_connections: 100,
            durable: true,
            settings: Vec::new(),
            hba: Vec::new(),
            search: Search::from_env(),
            allow_fetch: true,
            server_user: None,
        }
    }
}

impl std::fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password and the settings' values stay out of logs.
        f.debug_struct("ClusterOptions")
            .field("name", &self.name)
            .field("state_dir", &self.state_dir)
            .field("data_dir", &self.data_dir)
            .field("superuser", &self.superuser)
            .field("max_connections", &self.max_connections)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

/// A server that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The TCP port on [`HOST`].
    pub port: u16,
    /// Always [`HOST`].
    pub host: &'static str,
    /// The folder of the Unix socket; only the server's user (and root) can enter it.
    pub socket_dir: PathBuf,
    /// The postmaster.
    pub pid: u32,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The server's log.
    pub log_file: PathBuf,
    /// The server programs that it was last started with; client programs are there too.
    pub bin_dir: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
    /// The data directory was made by this call.
    pub created: bool,
    /// The server was started by this call.
    pub started: bool,
    /// What was asked and takes effect only at the next start, in words.
    pub restart_needed: Option<String>,
}

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// There is no data directory yet.
    Absent,
    /// There is data, but no server.
    Stopped {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The server is there and does not accept connections yet, or is about to end.
    Busy {
        /// The postmaster.
        pid: u32,
        /// The server's log.
        log_file: PathBuf,
    },
    /// The server accepts connections.
    Running(Running),
}

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopMode {
    /// Ends the sessions, rolls back what they were doing, writes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers.
    Immediate,
}

/// What a stop found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// False when no server was running.
    pub was_running: bool,
}

/// A local server with its data.
///
/// Holds no process and no connection: every call looks at what is there. Calls that change
/// something hold a file lock in the state folder, so processes may call them at the same time.
#[derive(Debug, Clone)]
pub struct Cluster {
    options: ClusterOptions,
}

impl Cluster {
    /// A cluster with those options; touches nothing.
    pub fn new(options: ClusterOptions) -> Self {
        Self { options }
    }

    /// The options.
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// Makes sure that the server runs and accepts connections; makes its data directory first if
    /// there is none.
    ///
    /// Idempotent, and safe to call from several processes at once: one does the work, the others
    /// wait and find the server. A server that is starting or recovering is waited for (at most
    /// 120 s). The server is not our child: it goes on when this process ends.
    ///
    /// # Errors
    /// When there are no server programs, a folder cannot be written or reached by the server's
    /// user, or the server does not start; the text holds the end of the server's log.
    pub fn ensure_running(&self) -> Result<Running> {
        validate(&self.options)?;
        files::make_dir(&self.options.state_dir)?;
        let place = Place::find(&self.options)?;
        let _lock = files::lock(&place.lock_file())?;
        // Found again under the lock: whoever held it may have made the data directory.
        let place = Place::find(&self.options)?;
        Starter::new(&self.options, &place).run()
    }

    /// Looks how the server is, without changing or waiting for anything.
    pub fn status(&self) -> Result<Status> {
        if !self.options.state_dir.is_dir() {
            return Ok(Status::Absent);
        }
        let place = Place::find(&self.options)?;
        if !place.is_initialised()? {
            return Ok(Status::Absent);
        }
        let Some(postmaster) = Postmaster::find(&place.data_dir)? else {
            return Ok(Status::Stopped { data_dir: place.data_dir });
        };
        match &place.state {
            Some(state) if postmaster.accepts_connections() => {
                Ok(Status::Running(running(&self.options, &place, &postmaster, state)?))
            }
            _ => Ok(Status::Busy { pid: postmaster.pid, log_file: place.log_file() }),
        }
    }

    /// Stops the server and waits until it is gone (at most 60 s).
    pub fn stop(&self, mode: StopMode) -> Result<Stopped> {
        if !self.options.state_dir.is_dir() {
            return Ok(Stopped { was_running: false });
        }
        let place = Place::find(&self.options)?;
        let _lock = files::lock(&place.lock_file())?;
        let stopped = stop(&place, mode)?;
        if let Some(postmaster) = &stopped {
            // An empty folder that the next start makes again; a server killed hard may have left
            // its socket there, and then it stays.
            let _kept = std::fs::remove_dir(&postmaster.socket_dir);
        }
        Ok(Stopped { was_running: stopped.is_some() })
    }

    /// Stops the server at once and deletes its data, log and socket folder.
    ///
    /// Nothing asks back here; whoever calls this has asked. The state folder itself stays.
    pub fn destroy(&self) -> Result<()> {
        if !self.options.state_dir.is_dir() {
            return Ok(());
        }
        let place = Place::find(&self.options)?;
        let _lock = files::lock(&place.lock_file())?;
        if place.data_dir.exists() && !place.is_initialised()? {
            return Err(Error::invalid(format!(
                "{} is not a PostgreSQL data directory: not deleted",
                place.data_dir.display()
            )));
        }
        let stopped = stop(&place, StopMode::Immediate)?;
        files::remove_tree(&place.data_dir)?;
        files::remove_file(&place.log_file())?;
        files::remove_file(&place.old_log_file())?;
        place.remove_socket_dir(&place.socket_dir())?;
        if let Some(postmaster) = stopped {
            // Another one when the state folder was moved while the server ran.
            place.remove_socket_dir(&postmaster.socket_dir)?;
        }
        State::remove(&place.state_dir)
    }
}

/// Stops the server if there is one, and returns what it was.
fn stop(place: &Place, mode: StopMode) -> Result<Option<Postmaster>> {
    let postmaster = Postmaster::find(&place.data_dir)?;
    if let Some(postmaster) = &postmaster {
        postmaster.stop(mode)?;
    }
    Ok(postmaster)
}

/// Describes a server that is up.
pub(crate) fn running(
    options: &ClusterOptions,
    place: &Place,
    postmaster: &Postmaster,
    state: &State,
) -> Result<Running> {
    let asked = settings::for_start(options, postmaster.port, &postmaster.socket_dir)?;
    Ok(Running {
        port: postmaster.port,
        host: HOST,
        socket_dir: postmaster.socket_dir.clone(),
        pid: postmaster.pid,
        data_dir: place.data_dir.clone(),
        log_file: place.log_file(),
        bin_dir: state.bin_dir.clone(),
        version: state.version,
        created: false,
        started: false,
        restart_needed: settings::restart_needed(&place.data_dir, &asked)?,
    })
}

fn validate(options: &ClusterOptions) -> Result<()> {
    // initdb reads one line of the password file.
    if options.password.is_empty() || options.password.contains(['\n', '\r', '\0']) {
        return Err(Error::invalid("the superuser's password must be one line and not empty"));
    }
    if options.superuser.is_empty() || options.superuser.starts_with("pg_") {
        return Err(Error::invalid(format!("{:?} cannot be the name of the superuser", options.superuser)));
    }
    if let Some(user) = &options.server_user {
        ServerUser::choose(Some(user))?;
    }
    Ok(())
}
