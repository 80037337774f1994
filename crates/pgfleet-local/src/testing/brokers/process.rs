//! The processes of a broker, known by a lock that they hold.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::error::{Error, Kind, Result};
use crate::{files, port};

/// How long a broker may take until it answers, also on a machine that compiles meanwhile.
const READY_LIMIT: Duration = Duration::from_mins(2);
const END_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(10);

/// How much of its output an error shows.
const TAIL: usize = 2_000;

/// A group of processes that began as one command in a folder.
///
/// All of them write to one file, and its lock belongs to the open file: it is free when the last of them is dead, whoever
/// started them. A recorded number of a process says less, since numbers are used again.
#[derive(Debug)]
pub(super) struct Process {
    folder: PathBuf,
}

impl Process {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Returns whether any of its processes lives.
    pub(super) fn runs(&self) -> Result<bool> {
        let path = self.output();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(Error::io("open", &path, source)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &path, source)),
        }
    }

    /// Runs the command and waits until somebody listens on the port.
    pub(super) fn start(&self, mut command: Command, clients: u16) -> Result<()> {
        if port::answers(clients) {
            return Err(Error::invalid(format!("port {clients} is somebody else's")));
        }
        let path = self.output();
        let output = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let output = output.map_err(|source| Error::io("write", &path, source))?;
        output.lock().map_err(|source| Error::io("lock", &path, source))?;
        let other = output.try_clone().map_err(|source| Error::io("open", &path, source))?;
        command.stdout(output).stderr(other).process_group(0);
        let program = command.get_program().display().to_string();
        let mut child = command.spawn().map_err(|source| Kind::Spawn { program: program.clone(), source })?;
        // Our copies of the open file.
        drop(command);
        files::replace(&self.group(), child.id().to_string().as_bytes(), 0o600, None)?;
        let began = Instant::now();
        while !port::answers(clients) {
            let ended = child.try_wait().ok().flatten();
            if ended.is_some() || began.elapsed() > READY_LIMIT {
                let _ = self.end(true);
                let _ = child.wait();
                let text = files::read_from(&path, 0);
                let tail = text.get(text.floor_char_boundary(text.len().saturating_sub(TAIL))..).unwrap_or_default();
                return Err(Error::invalid(format!("{program} does not start; its output: {tail}")));
            }
            thread::sleep(POLL);
        }
        // Whoever starts it does not stay: without somebody who waits, a dead child would keep its number.
        thread::spawn(move || drop(child.wait()));
        Ok(())
    }

    /// Ends all of its processes; says whether there were any.
    pub(super) fn end(&self, at_once: bool) -> Result<bool> {
        if !self.runs()? {
            return Ok(false);
        }
        let group = files::read_optional(&self.group())?.and_then(|text| text.parse().ok()).map(Pid::from_raw);
        let Some(group) = group.filter(|group| group.as_raw() > 1) else {
            return Err(Error::invalid(format!("{} does not say which processes run", self.group().display())));
        };
        let signal = |signal| match killpg(group, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(Error::invalid(format!("processes of group {group} cannot be ended: {error}"))),
        };
        signal(if at_once { Signal::SIGKILL } else { Signal::SIGTERM })?;
        let began = Instant::now();
        while self.runs()? {
            if began.elapsed() > END_LIMIT {
                signal(Signal::SIGKILL)?;
                return Err(Error::invalid(format!("processes of group {group} do not end")));
            }
            thread::sleep(POLL);
        }
        Ok(true)
    }

    fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    fn group(&self) -> PathBuf {
        self.folder.join("group")
    }
}
