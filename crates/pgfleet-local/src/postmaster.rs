//! A running server, as `postmaster.pid` and the process table show it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::StopMode;
use crate::error::{Error, Kind, Result};
use crate::{files, port};

const PID_FILE: &str = "postmaster.pid";

/// The socket and its lock file.
const SOCKET_PREFIX: &str = ".s.PGSQL.";

const POLL: Duration = Duration::from_millis(10);

/// How long after an immediate stop children that still live are killed: a second more than the server waits with it. It does
/// so once, and a child that it made afterwards, for a client that connected and says nothing, would hold it up for a minute.
const KILL_AFTER: Duration = Duration::from_secs(6);

/// How long a stop may take.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// The server of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    pub(crate) socket_dir: PathBuf,
    status: String,
    data_dir: PathBuf,
}

/// What a process id from a pid file stands for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// No such process.
    Gone,
    /// A process, but not the server of this data directory (or only its unburied remains).
    Other,
    /// The server.
    Ours,
}

impl Postmaster {
    /// The server that runs on a data directory, if there is one.
    ///
    /// A pid file alone proves nothing: after a crash it stays, and its number may belong to
    /// another program by now.
    pub(crate) fn find(data_dir: &Path) -> Result<Option<Self>> {
        let Some(text) = files::read_optional(&data_dir.join(PID_FILE))? else { return Ok(None) };
        let Some((postmaster, written_for)) = parse(&text, data_dir) else { return Ok(None) };
        let process = look_at(postmaster.pid, data_dir, &written_for);
        Ok((process == Process::Ours).then_some(postmaster))
    }

    /// True when the server says so itself and its port answers.
    pub(crate) fn accepts_connections(&self) -> bool {
        matches!(self.status.as_str(), "ready" | "standby") && port::answers(self.port)
    }

    /// Waits until the server accepts connections; `None` when it ended instead.
    pub(crate) fn wait_ready(self, limit: Duration, log: &Path) -> Result<Option<Self>> {
        let begin = Instant::now();
        let mut current = self;
        while !current.accepts_connections() {
            if begin.elapsed() > limit {
                return Err(Kind::NotReady { pid: current.pid, seconds: limit.as_secs(), log: log.to_owned() }.into());
            }
            std::thread::sleep(POLL);
            match Self::find(&current.data_dir)? {
                Some(found) => current = found,
                None => return Ok(None),
            }
        }
        Ok(Some(current))
    }

    /// Stops the server by the signal that `pg_ctl` would send, so that it works also when the
    /// programs it was started from are gone, and waits for the process to end.
    pub(crate) fn stop(&self, mode: StopMode) -> Result<()> {
        let signal = match mode {
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        };
        match kill(nix_pid(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(Error::io(
                    "signal the server of",
                    &self.data_dir,
                    io::Error::from_raw_os_error(errno as i32),
                ));
            }
        }
        let begin = Instant::now();
        while look_at(self.pid, &self.data_dir, &self.data_dir) == Process::Ours {
            if mode == StopMode::Immediate && begin.elapsed() > KILL_AFTER {
                for child in server_processes(&self.data_dir).filter(|pid| *pid != self.pid) {
                    // It may have ended by itself.
                    let _ = kill(nix_pid(child), Signal::SIGKILL);
                }
            }
            if begin.elapsed() > STOP_LIMIT {
                return Err(Kind::NotStopped { pid: self.pid, seconds: STOP_LIMIT.as_secs() }.into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

#[cfg(feature = "testing")]
impl Postmaster {
    /// Kills the server and all its processes, and waits until they are gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let begin = Instant::now();
        // First the postmaster, so that nobody starts others.
        let _gone = kill(nix_pid(self.pid), Signal::SIGKILL);
        while look_at(self.pid, &self.data_dir, &self.data_dir) == Process::Ours || has_server_process(&self.data_dir) {
            for child in server_processes(&self.data_dir) {
                let _gone = kill(nix_pid(child), Signal::SIGKILL);
            }
            if begin.elapsed() > STOP_LIMIT {
                return Err(Kind::NotStopped { pid: self.pid, seconds: STOP_LIMIT.as_secs() }.into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Clears what a server that was killed left behind, as far as it would stop the next one.
///
/// Children of a killed postmaster need a moment to end; they are waited for. Then the socket files
/// go: the folder is this cluster's alone. A server finds out itself that a pid file is stale when
/// the process is gone. It refuses to start when the number was given to another process of the
/// same user, or when the dead postmaster was not reaped (a container without an init); only then
/// the pid file is removed here, so that the server's own checks keep their say.
pub(crate) fn clear_remains(data_dir: &Path, socket_dir: &Path, limit: Duration) -> Result<()> {
    let path = data_dir.join(PID_FILE);
    let Some(text) = files::read_optional(&path)? else { return Ok(()) };
    let process = match parse(&text, data_dir) {
        Some((postmaster, written_for)) => look_at(postmaster.pid, data_dir, &written_for),
        // Empty or torn: the machine went down.
        None => Process::Other,
    };
    if process == Process::Ours {
        return Ok(());
    }
    let begin = Instant::now();
    while has_server_process(data_dir) {
        if begin.elapsed() > limit {
            return Err(Error::invalid(format!(
                "processes of a server that was killed still work in {}",
                data_dir.display()
            )));
        }
        std::thread::sleep(POLL);
    }
    files::remove_leftovers(socket_dir, SOCKET_PREFIX);
    if process == Process::Other {
        tracing::info!(file = %path.display(), "removing a stale pid file");
        files::remove_file(&path)?;
    }
    Ok(())
}

/// True while the process exists, also as one of another user.
#[cfg(feature = "testing")]
pub(crate) fn is_alive(pid: u32) -> bool {
    kill(nix_pid(pid), None) != Err(Errno::ESRCH)
}

fn nix_pid(pid: u32) -> Pid {
    // Parsed from an i32, so it fits.
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// The pid file's lines: pid, data directory, start time, port, socket folder, listen address,
/// shared memory, status. The last ones are missing while the server starts.
fn parse(text: &str, data_dir: &Path) -> Option<(Postmaster, PathBuf)> {
    let mut lines = text.lines();
    // Negative in a single-user server, which is not one to connect to.
    let pid: i32 = lines.next()?.trim().parse().ok()?;
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 1)?;
    let written_for = PathBuf::from(lines.next()?);
    let _start = lines.next();
    let port = lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    let socket_dir = PathBuf::from(lines.next().unwrap_or_default());
    let status = lines.nth(2).unwrap_or_default().trim().to_owned();
    Some((Postmaster { pid, port, socket_dir, status, data_dir: data_dir.to_owned() }, written_for))
}

/// Compares a process with the server of a data directory. The working directory is the proof: a
/// postmaster changes into its data directory. Where it cannot be read, the program's name and the
/// directory named in the pid file have to do.
fn look_at(pid: u32, data_dir: &Path, written_for: &Path) -> Process {
    if kill(nix_pid(pid), None) == Err(Errno::ESRCH) {
        return Process::Gone;
    }
    match program_of(pid) {
        Some(name) if name == "postgres" => {}
        Some(_) => return Process::Other,
        None => return Process::Gone,
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) if cwd == data_dir => Process::Ours,
        // It ended between the two looks.
        Err(_) if kill(nix_pid(pid), None) == Err(Errno::ESRCH) => Process::Gone,
        Err(_) if written_for == data_dir => Process::Ours,
        Ok(_) | Err(_) => Process::Other,
    }
}

/// The name of a process's program; an ended but unreaped one has the name `defunct`.
fn program_of(pid: u32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let name = stat.get(stat.find('(')? + 1..stat.rfind(')')?)?;
        let state = stat.get(stat.rfind(')')? + 1..)?.trim_start().chars().next()?;
        let ended = matches!(state, 'Z' | 'X' | 'x');
        return Some(if ended { "defunct" } else { name }.to_owned());
    }
    let output = Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let name = Path::new(text.trim()).file_name()?;
    Some(name.to_string_lossy().into_owned())
}

/// True while some `postgres` process works in the data directory (where the system shows it).
fn has_server_process(data_dir: &Path) -> bool {
    server_processes(data_dir).next().is_some()
}

fn server_processes(data_dir: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(move |pid| {
        program_of(*pid).is_some_and(|name| name == "postgres")
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data_dir)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid_file(pid: u32, data_dir: &Path) -> String {
        format!("{pid}\n{}\n1700000000\n54321\n/tmp/s\n127.0.0.1\n 1 2\nready   \n", data_dir.display())
    }

    #[test]
    fn a_pid_file_is_read_whole_and_half() {
        let data_dir = Path::new("/d");
        let (found, written_for) = parse(&pid_file(77, data_dir), data_dir).unwrap();
        assert_eq!((found.pid, found.port, found.status.as_str()), (77, 54321, "ready"));
        assert_eq!(written_for, data_dir);
        let (found, _) = parse("77\n/d\n1700000000\n", data_dir).unwrap();
        assert_eq!((found.port, found.status.as_str()), (0, ""));
        assert_eq!(parse("", data_dir), None);
        assert_eq!(parse("-77\n/d\n", data_dir), None);
    }

    #[test]
    fn a_pid_of_another_program_is_not_the_server_and_its_file_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PID_FILE);
        fs::write(&path, pid_file(std::process::id(), folder.path())).unwrap();
        assert_eq!(Postmaster::find(folder.path()).unwrap(), None);
        clear_remains(folder.path(), folder.path(), Duration::from_secs(1)).unwrap();
        assert!(!path.exists());
    }
}
