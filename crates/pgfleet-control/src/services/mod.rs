//! Running the services' programs: started, watched, started again, stopped.
//!
//! [`Supervisor`] keeps one program per service running, in a process group of its own, with the
//! environment that [`crate::environment`] makes. What it keeps true:
//!
//! * A program runs at most once. One supervisor per solution holds a lock ([`folder::RunFolder`]) that
//!   dies with its process. Each program waits at a gate until its process id is written down, and ends
//!   when the supervisor dies before that; so whoever comes next finds everything that runs
//!   ([`orphans`]).
//! * A process id is never trusted alone: it is kept with the time at which the process began.
//! * Nothing here prints: lines and events go to a [`Watcher`].

pub mod folder;
pub mod health;
mod log;
pub mod orphans;
mod output;
mod process;
mod supervisor;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub use folder::{Board, Entry, Health, RunFolder, RunLock, RunState};
pub use log::LogFiles;
pub(crate) use output::{Lines, Tail};
pub use process::Identity;
pub(crate) use process::end_group;
pub use supervisor::{Stopper, Supervisor, Watcher};

use crate::error::Error;
use crate::manifest::{Manifest, Service, env_name};
use crate::solution::Solution;

/// How long a program may take to end after it was asked to, before it is killed.
pub const TO_END: Duration = Duration::from_secs(10);

/// What is started for one service, and how.
#[derive(Debug, Clone)]
pub struct Program {
    /// The service.
    pub service: String,
    /// The command, for `sh -c`.
    pub command: String,
    /// The folder that it is started in.
    pub folder: PathBuf,
    /// Its own variables.
    pub variables: Vec<(String, SecretString)>,
    /// Variables of the surroundings that it does not get.
    pub without: Vec<String>,
    /// How its health is asked for; without it, it is healthy when it has run for a second.
    pub health: Option<health::Check>,
    /// How long it may take to become healthy.
    pub health_timeout: Duration,
}

/// Something that happened to a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// It was started, as this process.
    Started(u32),
    /// It is healthy for the first time since it was started.
    Healthy,
    /// It was not healthy in time; the last answer. It goes on.
    NotHealthy(String),
    /// It failed, and is started again after a while.
    Failed {
        /// How it ended.
        how: String,
        /// When it is started again.
        again: Duration,
    },
    /// It ended by itself without a failure, and is not started again.
    Done,
    /// It was stopped.
    Stopped {
        /// Whether it had to be killed.
        killed: bool,
    },
}

impl std::fmt::Display for Happened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Started(pid) => write!(f, "started (pid {pid})"),
            Self::Healthy => f.write_str("healthy"),
            Self::NotHealthy(why) => write!(f, "not healthy: {why}"),
            Self::Failed { how, again } => write!(f, "{how}; started again in {:.1} s", again.as_secs_f32()),
            Self::Done => f.write_str("done: it ended by itself, and is not started again"),
            Self::Stopped { killed: false } => f.write_str("stopped"),
            Self::Stopped { killed: true } => {
                write!(f, "killed: it had not ended {} s after it was asked to", TO_END.as_secs())
            }
        }
    }
}

impl Solution {
    /// Returns what is to be started for a service; none without `run`.
    ///
    /// `surroundings` are the names of the variables that the program would inherit.
    ///
    /// # Errors
    ///
    /// As [`Solution::environment`].
    pub fn program_of(&self, service: &Service, surroundings: &[String]) -> Result<Option<Program>, Error> {
        let Some(command) = &service.run else { return Ok(None) };
        Ok(Some(Program {
            service: service.name.clone(),
            command: command.clone(),
            folder: self.manifest.root.clone(),
            variables: self.environment(service)?,
            without: surroundings.iter().filter(|name| is_withheld(&self.manifest, service, name)).cloned().collect(),
            health: service.health.as_deref().and_then(|text| text.parse().ok()),
            health_timeout: service.health_timeout,
        }))
    }
}

/// Whether a variable of the surroundings is not for a service: connection strings and keys, overrides of
/// the manifest, which may hold secrets, and whatever is named after another service.
fn is_withheld(manifest: &Manifest, service: &Service, name: &str) -> bool {
    let Some(rest) = name.strip_prefix("PGFLEET_") else { return false };
    let secret = ["_URL", "_KEY"].iter().any(|end| rest.ends_with(end)) || rest == "KEY" || rest == "URL";
    let override_of_others = rest.contains("__") && !rest.starts_with("SOLUTION__");
    let others = manifest.services.iter().filter(|other| other.name != service.name);
    let of_another = || others.map(|other| env_name(&other.name)).any(|other| rest.starts_with(&format!("{other}_")));
    secret || rest.starts_with("ADMIN_") || override_of_others || of_another()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Sources;

    #[test]
    fn what_is_not_for_a_service_is_withheld() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("pgfleet.toml");
        std::fs::write(&manifest, "[solution]\nname = \"x\"\n[services.trip]\n[services.order-item]\n").unwrap();
        let manifest = Manifest::load(&Sources { manifest, ..Sources::default() }).unwrap().manifest;
        let trip = manifest.service("trip").unwrap();
        for name in [
            "PGFLEET_KEY",
            "PGFLEET_URL",
            "PGFLEET_TRIP_URL",
            "PGFLEET_ADMIN_URL",
            "PGFLEET_ORDER_ITEM_BUDGET",
            "PGFLEET_OLD_SERVICE_MIGRATOR_URL",
            "PGFLEET_SERVERS__MAIN__URL",
            "PGFLEET_SEEDS__PROPERTIES__ADMIN_PASSWORD",
        ] {
            assert!(is_withheld(&manifest, trip, name), "{name}");
        }
        for name in ["PATH", "PGHOST", "PGFLEET_ENV", "PGFLEET_LOG", "PGFLEET_SOLUTION__AUTO_MIGRATE", "MY_URL"] {
            assert!(!is_withheld(&manifest, trip, name), "{name}");
        }
    }
}
