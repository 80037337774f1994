//! Bringing the server up: find it, or make its data, choose a port and start it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::binaries::{Binaries, Search};
use crate::cluster::{ClusterOptions, Running, running};
use crate::error::{Error, Kind, Result};
use crate::place::Place;
use crate::postmaster::{Postmaster, clear_remains};
use crate::state::State;
use crate::{files, initdb, port, settings};

/// How long a server may start or recover.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// How long the children of a killed postmaster may keep its shared memory.
const REMAINS_LIMIT: Duration = Duration::from_secs(15);
const REMAINS_POLL: Duration = Duration::from_millis(100);

/// How many ports are tried when others bind them between our look and the server's start.
const PORT_TRIES: u32 = 20;

/// A log larger than this is set aside at a start.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// How much of the log an error shows.
const TAIL_LINES: usize = 15;

/// What a failed start was about, as far as trying again can help.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    Port,
    Remains,
    Other,
}

/// One start, under the cluster's lock.
pub(crate) struct Starter<'a> {
    options: &'a ClusterOptions,
    place: &'a Place,
}

impl<'a> Starter<'a> {
    pub(crate) fn new(options: &'a ClusterOptions, place: &'a Place) -> Self {
        Self { options, place }
    }

    pub(crate) fn run(&self) -> Result<Running> {
        if let Some(running) = self.find_running()? {
            return Ok(running);
        }
        let major = self.place.data_major()?;
        let binaries = match major {
            Some(major) => self.binaries_for(major)?,
            None => self.binaries(&self.options.search)?,
        };
        if major.is_none() {
            initdb::create(self.options, self.place, &binaries)?;
        }
        let mut running = self.start(&binaries)?;
        running.created = major.is_none();
        running.started = true;
        Ok(running)
    }

    fn find_running(&self) -> Result<Option<Running>> {
        let Some(postmaster) = Postmaster::find(&self.place.data_dir)? else { return Ok(None) };
        let log = self.place.log_file();
        let Some(postmaster) = postmaster.wait_ready(READY_LIMIT, &log)? else { return Ok(None) };
        let state = match &self.place.state {
            Some(state) if state.port == postmaster.port && state.state_dir == self.place.state_dir => state.clone(),
            // We died between the start and the note of it, or the note was lost.
            other => {
                let binaries = match (other, self.place.data_major()?) {
                    (Some(state), _) => Binaries { bin_dir: state.bin_dir.clone(), version: state.version },
                    (None, Some(major)) => self.binaries_for(major)?,
                    (None, None) => self.binaries(&self.options.search)?,
                };
                self.remember(&postmaster, &binaries)?
            }
        };
        running(self.options, self.place, &postmaster, &state).map(Some)
    }

    fn binaries(&self, search: &Search) -> Result<Binaries> {
        Binaries::find_or_fetch_as(search, &self.place.user, self.options.allow_fetch)
    }

    /// A data directory can be used by the major version only that made it.
    fn binaries_for(&self, major: u32) -> Result<Binaries> {
        if self.options.search.major.is_some_and(|asked| asked != major) {
            return Err(Error::invalid(format!(
                "{} was made by PostgreSQL {major}, and version {} is asked for: dump and restore \
                 it, or remove it",
                self.place.data_dir.display(),
                self.options.search.major.unwrap_or_default()
            )));
        }
        self.binaries(&self.options.search.clone().with_major(major))
    }

    fn remember(&self, postmaster: &Postmaster, binaries: &Binaries) -> Result<State> {
        let state = State {
            state_dir: self.place.state_dir.clone(),
            data_dir: self.place.data_dir.clone(),
            socket_dir: postmaster.socket_dir.clone(),
            port: postmaster.port,
            bin_dir: binaries.bin_dir.clone(),
            version: binaries.version,
        };
        state.write(&self.place.state_dir)?;
        Ok(state)
    }

    fn start(&self, binaries: &Binaries) -> Result<Running> {
        let place = self.place;
        place.prepare_parent()?;
        let socket_dir = place.prepare_socket_dir()?;
        let log = self.prepare_log()?;
        let remembered = place.state.as_ref().map(|state| state.port);
        let mut port = match remembered {
            Some(port) if port::is_free(port) => port,
            other => port::free_from(other.unwrap_or_else(|| port::base(place.fingerprint)))?,
        };
        let begin = Instant::now();
        let mut ports = 0;
        loop {
            clear_remains(&place.data_dir, &socket_dir, REMAINS_LIMIT)?;
            let asked = settings::for_start(self.options, port, &socket_dir)?;
            settings::write(&place.data_dir, &asked, &place.user)?;
            let offset = fs::metadata(&log).map_or(0, |meta| meta.len());
            self.pg_ctl_start(binaries, &log)?;
            // What pg_ctl says is not asked: a server that recovers for longer than pg_ctl waits is
            // still a server, and is waited for here.
            if let Some(postmaster) = Postmaster::find(&place.data_dir)?
                && let Some(postmaster) = postmaster.wait_ready(READY_LIMIT, &log)?
            {
                let state = self.remember(&postmaster, binaries)?;
                return running(self.options, place, &postmaster, &state);
            }
            let text = files::read_from(&log, offset);
            match trouble(&text) {
                Trouble::Port if ports < PORT_TRIES => {
                    ports += 1;
                    port = port::free_from(port.saturating_add(1))?;
                }
                Trouble::Remains if begin.elapsed() < REMAINS_LIMIT => {
                    std::thread::sleep(REMAINS_POLL);
                }
                _ => return Err(Kind::Start { log, tail: tail(&text) }.into()),
            }
        }
    }

    /// The server's user appends to the log, in a folder where it may not create files.
    fn prepare_log(&self) -> Result<std::path::PathBuf> {
        let log = self.place.log_file();
        if fs::metadata(&log).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
            fs::rename(&log, self.place.old_log_file()).map_err(|source| Error::io("rename", &log, source))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            // A link put there by the server's user would give it the file behind the link.
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&log)
            .map_err(|source| Error::io("write", &log, source))?;
        self.place.user.give_file(&file, &log)?;
        Ok(log)
    }

    fn pg_ctl_start(&self, binaries: &Binaries, log: &Path) -> Result<()> {
        let program = binaries.bin_dir.join("pg_ctl");
        let status = self
            .place
            .user
            .command(&program)
            .args(["start", "--wait", "--silent", "--timeout=120", "--pgdata"])
            .arg(&self.place.data_dir)
            .arg("--log")
            .arg(log)
            // A piped stream would be inherited by the server and stay open as long as it runs.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // pg_ctl detaches the server; this also keeps Ctrl-C from pg_ctl in the meantime.
            .process_group(0)
            .status()
            .map_err(|source| Kind::Spawn { program: program.display().to_string(), source })?;
        tracing::debug!(%status, data_dir = %self.place.data_dir.display(), "pg_ctl start");
        Ok(())
    }
}

fn trouble(log: &str) -> Trouble {
    let says = |text: &str| log.contains(text);
    if says("could not bind") || says("could not create any TCP/IP sockets") {
        Trouble::Port
    } else if says("pre-existing shared memory block") || (says("lock file") && says("already exists")) {
        Trouble::Remains
    } else {
        Trouble::Other
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    if lines.is_empty() { "(nothing was logged)".to_owned() } else { lines[from..].join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_say_whether_trying_again_can_help() {
        let bind = "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use";
        assert_eq!(trouble(bind), Trouble::Port);
        let memory = "FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use";
        assert_eq!(trouble(memory), Trouble::Remains);
        let lock = "FATAL:  lock file \"postmaster.pid\" already exists";
        assert_eq!(trouble(lock), Trouble::Remains);
        assert_eq!(trouble("FATAL:  syntax error in file"), Trouble::Other);
    }
}
