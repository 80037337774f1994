//! Working on a rollout in this process, and telling how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::plans::Plans;
use pgfleet_control::rollouts::{Ended, FailedTarget, Go, Rollout, RolloutState};
use pgfleet_migrate::Options;

use super::bar::Bar;
use super::show::sentence;
use crate::commands::guests;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::human;

/// How long a server may be away before that counts as failing.
const PATIENCE: Duration = Duration::from_mins(2);

/// How many failed databases are named; `rollout show` has more.
const NAMED: usize = 20;

/// Works on a rollout until it is over, and tells how it ended.
pub(crate) async fn work(
    context: &Context,
    solution: Solution,
    id: i64,
    plans: Plans,
    properties: BTreeMap<String, String>,
    options: &Options,
) -> Result<Exit, CommandError> {
    let solution = Arc::new(solution);
    let bar = Arc::new(Bar::new(context.talk.clone(), id));
    let progress = bar.clone();
    let go = Go {
        options: options.clone(),
        observer: bar.clone(),
        progress: Arc::new(move |now| progress.show(now)),
        properties,
        patience: PATIENCE,
    };
    let orderly = context.orderly();
    let ended = solution.work_on_rollout(id, plans, go).await;
    drop(orderly);
    bar.finish();
    let ended = ended?;
    let failed = if ended.rollout.counts.failed > 0 { solution.failed_targets(id).await? } else { Vec::new() };
    if context.talk.json {
        context.talk.json(&serde_json::json!({ "rollout": ended.rollout, "failed": failed }))?;
    }
    let mut exit = tell(context, &ended, &failed);
    // What has no database of its own follows its host.
    if exit == Exit::Done && ended.rollout.what.tenants.is_empty() && ended.rollout.what.reaches_head() {
        exit = guests::seed(context, &solution, (&[], &ended.rollout.what.services), options).await?;
    }
    Ok(exit)
}

/// Tells how the work ended and picks the exit code.
fn tell(context: &Context, ended: &Ended, failed: &[FailedTarget]) -> Exit {
    let Ended { rollout, stopped } = ended;
    for target in failed.iter().take(NAMED) {
        context.talk.error(&CommandError::new(Exit::Failed, target.error.clone()));
    }
    let id = rollout.id;
    let more = rollout.counts.failed - i64::try_from(failed.len().min(NAMED)).unwrap_or(i64::MAX);
    if more > 0 {
        context.talk.say(&format!("… and {more} more: pgfleet rollout show {id}"));
    }
    context.talk.say(&format!("{} {}", sentence(rollout), pace(rollout)));
    let (exit, hint) = match rollout.state {
        _ if *stopped => (Exit::Interrupted, Some(format!("go on with it: pgfleet rollout resume {id}"))),
        RolloutState::Done if rollout.counts.failed == 0 => (Exit::Done, None),
        RolloutState::Done => (Exit::Failed, Some(format!("try again what failed: pgfleet rollout retry {id}"))),
        RolloutState::Halted => (
            Exit::Failed,
            Some(format!(
                "mend what failed and try it again: pgfleet rollout retry {id}; or go on without: \
                 pgfleet rollout resume {id}"
            )),
        ),
        RolloutState::Paused => (Exit::Failed, Some(format!("go on with it: pgfleet rollout resume {id}"))),
        _ => (Exit::Failed, None),
    };
    if let Some(hint) = hint {
        context.talk.say(&format!("hint: {hint}"));
    }
    exit
}

/// How long it took, and how fast that is.
fn pace(rollout: &Rollout) -> String {
    let took = human(Duration::from_secs_f64(rollout.seconds.max(0.0)));
    #[expect(clippy::cast_precision_loss, reason = "databases are fewer than 2^52")]
    let rate = rollout.counts.ended() as f64 / rollout.seconds.max(0.001);
    if rollout.state == RolloutState::Done && rate >= 1.0 {
        format!("({took}, {rate:.0} a second)")
    } else {
        format!("({took})")
    }
}
