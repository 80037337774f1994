//! `.pgfleet/run`: who supervises, what runs, and the logs.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Identity;
use crate::error::{Error, ErrorKind};
use crate::place::{Place, write_private};

/// The folder of what runs.
#[derive(Debug, Clone)]
pub struct RunFolder {
    folder: PathBuf,
}

/// Held by the one who supervises; free when its process ends, however it does.
#[derive(Debug)]
pub struct RunLock {
    _file: fs::File,
}

/// Where a program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It was started and is not healthy yet.
    Starting,
    /// It runs.
    Running,
    /// It ended with a failure and is started again after a while, or was never started.
    Failed,
    /// It ended by itself, without a failure.
    Done,
    /// It was stopped.
    Stopped,
}

impl RunState {
    /// Returns the word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// What is known of a program's health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It answers, or has run for a second where nothing can be asked.
    Healthy,
    /// The last answer that was none.
    Unhealthy(String),
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The service.
    pub service: String,
    /// Where it stands.
    pub state: RunState,
    /// Its process, which leads a group of its own.
    pub process: Option<Identity>,
    /// Its health.
    pub health: Health,
    /// How often it was started.
    pub starts: u32,
    /// How it ended the last time.
    pub ended: Option<String>,
}

impl Entry {
    /// Makes the entry of a program that was not started yet.
    pub fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            state: RunState::Starting,
            process: None,
            health: Health::Unknown,
            starts: 0,
            ended: None,
        }
    }

    /// Returns the health as it is shown.
    pub fn health_word(&self) -> String {
        match (&self.health, self.state, &self.ended) {
            (Health::Healthy, RunState::Running | RunState::Starting, _) => "healthy".to_owned(),
            (Health::Unhealthy(why), RunState::Running | RunState::Starting, _) => format!("unhealthy: {why}"),
            (_, RunState::Failed, Some(how)) => how.clone(),
            _ => "-".to_owned(),
        }
    }
}

/// What a supervisor writes down, at each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// The supervisor.
    pub supervisor: Option<Identity>,
    /// Whether it runs without a terminal.
    pub detached: bool,
    /// The variable that all its programs have, to know them by.
    pub mark: String,
    /// The programs, in the order of the manifest.
    pub services: Vec<Entry>,
}

impl RunFolder {
    /// Names the folder of a solution.
    pub fn of(root: &Path) -> Self {
        Self::at(Place::of(root).folder().join("run"))
    }

    /// Names a folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn make(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.folder).map_err(|error| {
            Error::new(ErrorKind::Configuration, format!("cannot make {}", self.folder.display()))
                .cause(error.to_string())
        })
    }

    /// Takes the lock of the one who supervises; none when somebody has it.
    ///
    /// # Errors
    ///
    /// The folder or the lock cannot be written.
    pub fn try_lock(&self) -> Result<Option<RunLock>, Error> {
        self.make()?;
        let path = self.folder.join(".lock");
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Configuration, format!("cannot lock {}", path.display())).cause(error.to_string())
        };
        let options = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(RunLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Returns the log of a service's program, where it has one.
    pub fn log_of(&self, service: &str) -> PathBuf {
        self.folder.join(format!("{service}.log"))
    }

    /// Returns the log of the supervisor itself; no service's name begins like it.
    pub fn own_log(&self) -> PathBuf {
        self.folder.join(".supervisor.log")
    }

    fn board_path(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    /// Reads what is written down; none when nothing is, or not by this version.
    pub fn board(&self) -> Option<Board> {
        let text = fs::read_to_string(self.board_path()).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes it down, whole or not at all.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn write(&self, board: &Board) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(board).map_err(|error| {
            Error::new(ErrorKind::Failed, "cannot write the state of the services").cause(error.to_string())
        })?;
        write_private(&self.board_path(), &text)
    }

    /// Forgets what was written down, after everything in it has ended.
    pub(super) fn clear(&self) {
        // Whoever reads it later finds processes that are not there.
        let _kept = fs::remove_file(self.board_path());
    }
}
