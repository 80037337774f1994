//! What is to be done in tenants' databases, for `--check` and `--dry-run`.

use std::sync::Arc;

use pgfleet_control::Solution;
use pgfleet_control::fleet::TargetReport;
use pgfleet_control::rollouts::{Ask, Looked, Outlook, Settled};
use pgfleet_control::targets::TargetKind;
use pgfleet_migrate::Options;

use super::show::{databases, sentence};
use crate::commands::migrate::document;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, counted};

/// How many databases are named.
const NAMED: usize = 20;

/// What was found of tenants' databases.
#[expect(clippy::large_enum_variant, reason = "there is one of them")]
pub(crate) enum Tenants {
    /// There are none.
    None,
    /// All are known to be where they should be, but for those that are being moved.
    Current(Settled),
    /// What a rollout would do.
    Outlook(Outlook),
    /// What the databases themselves say.
    Looked(Looked),
}

impl Tenants {
    /// Finds out what is to be done, and changes nothing.
    ///
    /// For a check the databases are asked of which nobody knows enough; a dry run says what a rollout
    /// would do.
    pub(crate) async fn look(
        context: &Context,
        solution: &Arc<Solution>,
        ask: &Ask,
        options: &Options,
        check: bool,
    ) -> Result<Self, CommandError> {
        let listener = context.talk.listener();
        let Some(outlook) = solution.outlook(ask, options, &listener).await? else { return Ok(Self::None) };
        if let Some(targets) = outlook.current {
            return Ok(Self::Current(Settled { targets, moving: outlook.moving }));
        }
        if check && outlook.unfinished.is_none() {
            return Ok(Self::Looked(solution.look_at_tenants(ask, options, &listener).await?));
        }
        Ok(Self::Outlook(outlook))
    }

    /// Says what was found and picks the exit code; `hosts` are printed with it for `--json`.
    pub(crate) fn finish(self, context: &Context, hosts: &[TargetReport], check: bool) -> Result<Exit, CommandError> {
        let talk = &context.talk;
        let mut exit = Exit::Done;
        let found = match &self {
            Self::None => serde_json::Value::Null,
            Self::Current(Settled { targets, moving }) => {
                talk.say(&format!("{} of tenants: nothing to do", counted(*targets, "schema")));
                say_moving(talk, moving);
                exit = if check && !moving.is_empty() { Exit::Findings } else { Exit::Done };
                match moving[..] {
                    [] => serde_json::json!({ "current": targets }),
                    _ => serde_json::json!({ "current": targets, "moving": moving }),
                }
            }
            Self::Outlook(outlook) => {
                if let Some(rollout) = &outlook.unfinished {
                    talk.say(&sentence(rollout));
                }
                for wave in &outlook.waves {
                    let of = match wave.kind {
                        TargetKind::Host => "of services",
                        TargetKind::Template => "that tenants' are copied from",
                        TargetKind::Tenant => "of tenants",
                    };
                    let number = i64::try_from(wave.targets).unwrap_or(i64::MAX);
                    talk.say(&format!("wave {}: {} {of}", wave.wave, databases(number)));
                }
                exit = if check { Exit::Findings } else { Exit::Done };
                serde_json::json!(outlook)
            }
            Self::Looked(looked) => {
                let Looked { targets, looked: asked, moving, pending, blocked, findings } = looked;
                for finding in findings.iter().take(NAMED) {
                    talk.say(finding);
                }
                let all = pending + blocked;
                if all > NAMED.min(findings.len()) {
                    talk.say(&format!("… and {} more", all - NAMED.min(findings.len())));
                }
                talk.say(&format!(
                    "{} of tenants, {asked} looked at: {pending} pending, {blocked} blocked",
                    counted(*targets, "schema")
                ));
                say_moving(talk, moving);
                exit = if all > 0 || !moving.is_empty() { Exit::Findings } else { Exit::Done };
                serde_json::json!(looked)
            }
        };
        if talk.json {
            let hosts: Vec<_> = hosts.iter().map(document).collect();
            talk.json(&serde_json::json!({ "hosts": hosts, "tenants": found }))?;
        }
        Ok(exit)
    }
}

/// Says which tenants were left out, since somebody moves them.
fn say_moving(talk: &Talk, moving: &[String]) {
    for tenant in moving.iter().take(NAMED) {
        talk.say(&format!(
            "tenant {tenant} is being moved and was left out; when that is over (pgfleet tenant move {tenant} --status): \
             pgfleet migrate"
        ));
    }
    if let Some(more) = moving.len().checked_sub(NAMED).filter(|more| *more > 0) {
        talk.say(&format!("… and {more} more"));
    }
}
