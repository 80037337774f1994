//! `pgfleet rollout`: the runs of migrations over tenants' databases.

mod bar;
mod look;
mod show;
mod work;

use pgfleet_control::rollouts::{Ask, Rollout};

use crate::args::{RolloutGo, RolloutVerb};
use crate::context::{Context, properties};
use crate::error::{CommandError, Exit};

pub(crate) use look::Tenants;
pub(crate) use work::work;

pub(crate) async fn run(context: &Context, verb: RolloutVerb) -> Result<Exit, CommandError> {
    match verb {
        RolloutVerb::List => show::list(context).await,
        RolloutVerb::Show { rollout } => show::show(context, rollout).await,
        RolloutVerb::Pause { rollout } => {
            let solution = context.open().await?;
            let rollout = solution.pause_rollout(rollout).await?;
            let hint = format!("go on with it: pgfleet rollout resume {}", rollout.id);
            changed(context, &rollout, Some(&hint))
        }
        RolloutVerb::Cancel { rollout } => {
            let solution = context.open().await?;
            let rollout = solution.cancel_rollout(rollout).await?;
            changed(context, &rollout, None)
        }
        RolloutVerb::Resume(arguments) => go_on(context, arguments, false).await,
        RolloutVerb::Retry(arguments) => go_on(context, arguments, true).await,
    }
}

/// Says what a rollout is now.
fn changed(context: &Context, rollout: &Rollout, hint: Option<&str>) -> Result<Exit, CommandError> {
    if context.talk.json {
        context.talk.json(rollout)?;
    }
    context.talk.say(&show::sentence(rollout));
    if rollout.counts.running > 0 {
        context.talk.note(&format!("{} are still worked on", show::databases(rollout.counts.running)));
    }
    if let Some(hint) = hint {
        context.talk.say(&format!("hint: {hint}"));
    }
    Ok(Exit::Done)
}

/// Has a rollout go on, and works on it.
async fn go_on(context: &Context, arguments: RolloutGo, retry: bool) -> Result<Exit, CommandError> {
    let mut solution = context.open().await?;
    let ask = Ask {
        concurrency: arguments.concurrency,
        max_failures: arguments.max_failures,
        properties: properties(&arguments.property)?,
        ..Ask::default()
    };
    let listener = context.talk.listener();
    let id = arguments.rollout;
    let plans = if retry {
        solution.retry_rollout(id, &ask, &listener).await?
    } else {
        solution.resume_rollout(id, &ask, &listener).await?
    };
    let options = solution.options().clone();
    work(context, solution, id, plans, ask.properties, &options).await
}
