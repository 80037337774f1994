//! What a run did, for people and for `--json`.

use serde::{Deserialize, Serialize};

use crate::plan::Entry;

/// How a run on one target ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing was pending.
    UpToDate,
    /// Something was applied or seeded.
    Applied,
    /// Another run did it while we waited for its lock.
    DoneByAnother,
    /// Only looked at: something is pending.
    Pending,
}

/// What a run did on one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The target's name.
    pub target: String,
    /// The set's name.
    pub set: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The newest version before.
    pub from: Option<String>,
    /// The newest version after.
    pub to: Option<String>,
    /// The versions of each set before and after, where the path has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<SetReport>,
    /// Labels of applied migrations and repeatables, in order.
    pub applied: Vec<String>,
    /// Names of seeds that ran, in order.
    pub seeded: Vec<String>,
    /// What would be applied, for a dry run or a look.
    pub pending: Vec<String>,
    /// Seeds that would run.
    pub pending_seeds: Vec<String>,
    /// Things worth knowing: edited comments, a database that is ahead.
    pub notes: Vec<String>,
    /// Why a run would stop before doing anything; filled by a look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// Whether the database was created.
    pub created: bool,
    /// Milliseconds in all.
    pub took_ms: u64,
    /// Every migration with its state; filled by a look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
}

/// The versions of one set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetReport {
    /// The set's name.
    pub set: String,
    /// The newest version before.
    pub from: Option<String>,
    /// The newest version after.
    pub to: Option<String>,
}
