//! Rollouts: one durable run of migrations over many databases.
//!
//! A rollout is a row in the control database, and each of its targets is one. Any number of processes
//! on any number of machines work on it: each takes targets, works on them, and writes down how they
//! ended. What a process had taken that died is taken by another. Targets come in waves: the services'
//! own databases, the templates, a few tenants, then ever more; a failure in one of the first stops
//! what would come behind it.
//!
//! | module | |
//! |---|---|
//! | `plan` | which targets there are, in which waves |
//! | `begin` | making a rollout, or finding the one to go on with |
//! | `look` | what is pending, without changing anything |
//! | `round` | one exchange with the control database: results for targets |
//! | `target` | the work on one target |
//! | `work` | a worker |
//! | `revert` | taking back what a rollout did |
//! | `verbs` | pausing, resuming, retrying, cancelling |
//! | `read` | what the rows say |

mod begin;
mod end;
mod look;
mod outlook;
mod plan;
mod present;
mod read;
mod results;
mod revert;
mod round;
mod server_work;
mod survey;
mod target;
mod verbs;
mod work;

use std::collections::BTreeMap;

use pgfleet_sql::checksum::raw_hash;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use uuid::Uuid;

use crate::error::Error;

pub use begin::{Ask, Begun, Settled};
pub use look::Looked;
pub use outlook::{Outlook, Wave};
pub use read::{Counts, FailedTarget, Rollout, RolloutWorker};
pub use revert::AskRevert;
pub use work::{Ended, Go, Progress};

/// The words for a rollout's state, a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutState {
    /// Written down; nobody has begun.
    Planned,
    /// Being worked on, or waiting for somebody to.
    Running,
    /// Somebody said so; what runs is finished, nothing more is taken.
    Paused,
    /// Too much failed; nothing more is taken.
    Halted,
    /// Everything was tried, and nothing new was found.
    Done,
    /// Somebody ended it.
    Cancelled,
}

impl RolloutState {
    const ALL: [Self; 6] = [Self::Planned, Self::Running, Self::Paused, Self::Halted, Self::Done, Self::Cancelled];

    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns whether nothing more is going to happen.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }

    /// A word of a newer version is one that we do not work on.
    fn of_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.word() == word).unwrap_or(Self::Paused)
    }
}

/// What a rollout does: which part of the fleet is brought to what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// Only these services; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Only these tenants; all, and the hosts and templates, when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// Whether every target is looked at, whatever is known of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recheck: bool,
    /// Nothing above this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only this set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Names of the properties that were given for the seeds of hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<String>,
    /// The prints of the services' plans.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prints: BTreeMap<String, String>,
    /// What is taken back, instead of migrating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert: Option<Reverted>,
    /// From this the ids are made under which histories record it.
    #[serde(default)]
    pub run: String,
}

/// What a rollout takes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reverted {
    /// What this rollout applied.
    pub rollout: i64,
    /// Of this service.
    pub service: String,
    /// From this the ids were made under which histories recorded it.
    pub run: String,
}

impl What {
    /// Returns what tells this work from any other, on whichever machine it is asked for.
    fn plan(&self) -> String {
        // How it is done is not what is done.
        let same = Self { recheck: false, run: String::new(), ..self.clone() };
        format!("v1:{}", raw_hash(serde_json::to_string(&same).unwrap_or_default().as_bytes()))
    }

    /// Returns whether it leaves a service's databases at the head of its plan.
    pub fn reaches_head(&self) -> bool {
        self.to.is_none() && self.set.is_none() && self.revert.is_none()
    }
}

/// Returns the id under which a service's histories record a rollout.
///
/// The same for all its databases and for every try, so that what a process applied that died is known
/// as this rollout's; services differ, since two may be in one database.
fn run_of(base: &str, service: &str) -> String {
    let mut bytes = Uuid::parse_str(base).unwrap_or_default().into_bytes();
    let hash = sha2::Sha256::new().chain_update(bytes).chain_update(service).finalize();
    // The first half holds the time, by which runs are in order.
    bytes[8..].copy_from_slice(&hash[..8]);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Uuid::from_bytes(bytes).to_string()
}

fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot read or write rollouts in the control database", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_known_again_whoever_asks_for_it() {
        let what = What { services: vec!["trip".to_owned()], run: Uuid::now_v7().to_string(), ..What::default() };
        let again = What { recheck: true, run: Uuid::now_v7().to_string(), ..what.clone() };
        assert_eq!(what.plan(), again.plan());
        assert_ne!(what.plan(), What { to: Some("3".to_owned()), ..what.clone() }.plan());
        let text = serde_json::to_string(&what).unwrap();
        assert_eq!(serde_json::from_str::<What>(&text).unwrap(), what);
    }

    #[test]
    fn a_run_is_the_rollouts_and_the_services() {
        let base = Uuid::now_v7();
        let text = base.to_string();
        assert_eq!(run_of(&text, "trip"), run_of(&text, "trip"));
        assert_ne!(run_of(&text, "trip"), run_of(&text, "user"));
        let run: Uuid = run_of(&text, "trip").parse().unwrap();
        assert_eq!((run.get_version_num(), &run.as_bytes()[..8]), (7, &base.as_bytes()[..8]));
    }
}
