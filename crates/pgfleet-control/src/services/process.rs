//! Processes that are no children of ours: known again, looked at, signalled.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How often a process that should end is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A process that is known again after its number was given to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it began, as the system tells it.
    pub born: String,
}

impl Identity {
    /// Returns the identity of a process; none when there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        born(pid).map(|born| Self { pid, born })
    }

    /// Returns whether the process still runs, and is the same.
    pub fn is_alive(&self) -> bool {
        born(self.pid).as_ref() == Some(&self.born)
    }

    /// Sends a signal to the process, if it is still the same.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = number(self.pid)
        {
            // It may have ended in between, which is what was wanted.
            let _gone = kill(pid, signal);
        }
    }

    /// Waits until the process has ended; says whether it has.
    pub async fn ended(&self, limit: Duration) -> bool {
        wait_until(limit, || !self.is_alive()).await
    }
}

fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

/// Looks again and again until a condition holds; says whether it does.
pub(super) async fn wait_until(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What `/proc/<pid>/stat` says: state, group, start.
struct Stat {
    state: char,
    group: u32,
    born: String,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        born: (*fields.get(19)?).to_owned(),
    })
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

/// When a process began; none when there is none, or it has ended and nobody took notice yet.
fn born(pid: u32) -> Option<String> {
    if has_proc() {
        return stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X' | 'x')).map(|stat| stat.born);
    }
    let output =
        std::process::Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (state, born) = text.split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| born.trim().to_owned())
}

/// Sends a signal to a whole process group.
pub(super) fn signal_group(group: u32, signal: Signal) {
    if let Some(group) = number(group) {
        // An empty group has nothing left to signal.
        let _gone = killpg(group, signal);
    }
}

/// Returns whether somebody in a process group still runs.
pub(super) fn group_runs(group: u32) -> bool {
    if has_proc() {
        return !members(group).is_empty();
    }
    number(group).is_some_and(|group| killpg(group, None) != Err(Errno::ESRCH))
}

/// Returns the running processes of a group.
pub(super) fn members(group: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.group == group && !matches!(stat.state, 'Z' | 'X' | 'x')))
        .collect()
}

/// Returns whether a process was started with this variable.
pub(super) fn has_variable(pid: u32, variable: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

/// Ends a process group: asks, waits, kills. Says whether it had to be killed.
pub(crate) async fn end_group(group: u32, limit: Duration) -> bool {
    signal_group(group, Signal::SIGTERM);
    if wait_until(limit, || !group_runs(group)).await {
        return false;
    }
    signal_group(group, Signal::SIGKILL);
    wait_until(limit, || !group_runs(group)).await;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_beginning() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert_eq!(Identity::of(std::process::id()).unwrap(), own);
        // Another process with this number would have begun at another time.
        assert!(!Identity { born: "1".to_owned(), ..own }.is_alive());
    }

    #[test]
    fn one_that_ended_is_not_alive_even_when_nobody_took_notice() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Identity::of(pid).is_some() {
            assert!(Instant::now() < deadline, "the ended process still counts as alive");
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
