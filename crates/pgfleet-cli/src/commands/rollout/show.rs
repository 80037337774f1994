//! `rollout list` and `rollout show`.

use std::time::Duration;

use pgfleet_control::rollouts::{FailedTarget, Rollout, RolloutState, What};

use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, human};

pub(super) async fn list(context: &Context) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let rollouts = solution.rollouts().await?;
    if context.talk.json {
        context.talk.json(&rollouts)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["rollout", "state", "what", "done", "failed", "of", "began (UTC)", "took", "by"]);
    for rollout in &rollouts {
        table.add_row([
            rollout.id.to_string(),
            rollout.state.word().to_owned(),
            what(&rollout.what),
            rollout.counts.done.to_string(),
            rollout.counts.failed.to_string(),
            rollout.counts.total().to_string(),
            rollout.created_at.clone(),
            took(rollout),
            format!("{} on {}", rollout.os_user, rollout.host),
        ]);
    }
    context.talk.print_table(&table);
    Ok(Exit::Done)
}

pub(super) async fn show(context: &Context, id: i64) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let rollout = solution.rollout(id).await?;
    let failed = solution.failed_targets(id).await?;
    if context.talk.json {
        context.talk.json(&serde_json::json!({ "rollout": rollout, "failed": failed }))?;
        return Ok(Exit::Done);
    }
    print(context, &rollout);
    if !failed.is_empty() {
        context.talk.data("");
        print_failed(context, &failed);
    }
    let left = rollout.counts.failed - i64::try_from(failed.len()).unwrap_or(i64::MAX);
    if left > 0 {
        context.talk.say(&format!("… and {} more failed", databases(left)));
    }
    Ok(Exit::Done)
}

fn print(context: &Context, rollout: &Rollout) {
    let line = |name: &str, text: &str| context.talk.data(&format!("{name:<12}{text}"));
    line("rollout", &rollout.id.to_string());
    line("state", rollout.state.word());
    if let Some(reason) = &rollout.reason {
        line("because", reason);
    }
    line("what", &what(&rollout.what));
    line("wave", &format!("{} of {}", rollout.wave, rollout.last_wave));
    let counts = &rollout.counts;
    let mut words = vec![format!("{} done", counts.done), format!("{} failed", counts.failed)];
    for (number, word) in [(counts.running, "running"), (counts.waiting, "waiting"), (counts.skipped, "skipped")] {
        if number > 0 {
            words.push(format!("{number} {word}"));
        }
    }
    line("databases", &format!("{}: {}", counts.total(), words.join(", ")));
    line("at a time", &format!("{} of each server", rollout.concurrency));
    line("halts", &format!("when more than {} failed", databases(rollout.max_failures.into())));
    line("began", &format!("{} by {} on {}", rollout.created_at, rollout.os_user, rollout.host));
    line("took", &took(rollout));
    for worker in &rollout.workers {
        line("worker", &format!("{} on {} since {}", worker.os_user, worker.host, worker.since));
    }
    if rollout.workers.is_empty() && rollout.state == RolloutState::Running {
        context.talk.note(&format!("nobody works on it: pgfleet rollout resume {}", rollout.id));
    }
}

fn print_failed(context: &Context, failed: &[FailedTarget]) {
    let mut table = Talk::table(&["failed", "server", "database", "wave", "tries", "error"]);
    for target in failed {
        let name = if target.tenant.is_empty() { target.kind.clone() } else { target.tenant.clone() };
        table.add_row([
            name,
            target.server.clone(),
            target.database.clone(),
            target.wave.to_string(),
            target.attempts.to_string(),
            target.error.clone(),
        ]);
    }
    context.talk.print_table(&table);
}

/// Says in a few words what a rollout does.
fn what(what: &What) -> String {
    if let Some(revert) = &what.revert {
        return format!("revert {} of rollout {}", revert.service, revert.rollout);
    }
    let mut text = "migrate".to_owned();
    for (names, word) in [(&what.services, ""), (&what.tenants, "tenant ")] {
        match names.as_slice() {
            [] => {}
            [one] => text.push_str(&format!(" {word}{one}")),
            [first, others @ ..] => text.push_str(&format!(" {word}{first} and {} more", others.len())),
        }
    }
    if let Some(to) = &what.to {
        text.push_str(&format!(" to {to}"));
    }
    if let Some(set) = &what.set {
        text.push_str(&format!(", set {set}"));
    }
    if what.recheck {
        text.push_str(", every one");
    }
    text
}

/// Says in one sentence how far a rollout is.
pub(super) fn sentence(rollout: &Rollout) -> String {
    let counts = &rollout.counts;
    let mut text = format!(
        "rollout {} is {}: {} of {} done",
        rollout.id,
        rollout.state.word(),
        counts.done,
        databases(counts.total())
    );
    if counts.failed > 0 {
        text.push_str(&format!(", {} failed", counts.failed));
    }
    if let Some(reason) = &rollout.reason {
        text.push_str(&format!("; {reason}"));
    }
    text
}

fn took(rollout: &Rollout) -> String {
    human(Duration::from_secs_f64(rollout.seconds.max(0.0)))
}

/// Renders a number of databases.
pub(super) fn databases(number: i64) -> String {
    format!("{number} {}", if number == 1 { "database" } else { "databases" })
}
