//! `pgfleet revert`: undoes migrations, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgfleet_control::rollouts::{Ask, AskRevert, Begun};
use pgfleet_migrate::revert::{Goal, revert};
use pgfleet_migrate::{Options, Outcome, Report};

use crate::args::Revert;
use crate::commands::migrate::{bare, finish, record, version};
use crate::commands::rollout;
use crate::context::{Context, who};
use crate::error::{CommandError, Exit};

pub(crate) async fn run(context: &Context, arguments: &Revert) -> Result<Exit, CommandError> {
    let goal = match (&arguments.goal.steps, &arguments.goal.to) {
        (Some(steps), _) => Goal::Steps(*steps as usize),
        (None, Some(to)) if to.trim_start_matches('0').is_empty() => Goal::To(None),
        (None, Some(to)) => Goal::To(Some(version(to)?)),
        (None, None) => match arguments.goal.rollout {
            Some(id) => return of_rollout(context, arguments, id).await,
            None => return Err(CommandError::new(Exit::Usage, "say how far: --steps N, --to VERSION or --rollout R")),
        },
    };
    let progress = Arc::new(context.talk.progress(1, "reverting"));
    let began = Instant::now();
    if let (Some(url), Some(folder)) = (&arguments.url, &arguments.dir) {
        let (target, set) = bare(Some(url), folder, arguments.set.as_deref(), None)?;
        let options =
            Options { who: who(), stop: context.stop.clone(), dry_run: arguments.dry_run, ..Options::default() };
        let orderly = context.orderly();
        let result = revert(&target, &set.into(), &goal, &options, &*progress).await;
        drop(orderly);
        progress.finish();
        let report = result?;
        if context.talk.json {
            context.talk.json(&report)?;
        }
        say(context, &report);
        return Ok(Exit::Done);
    }
    let solution = context.open().await?;
    let service = arguments.service.as_deref().unwrap_or_default();
    solution.services(&[service.to_owned()])?;
    let mut options = solution.options().clone();
    options.dry_run = arguments.dry_run;
    options.set.clone_from(&arguments.set);
    // On a laptop going back is daily work; elsewhere the data that a down drops is somebody's.
    if solution.manifest.env != "dev" && !arguments.dry_run {
        let whose = arguments.tenant.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
        context.talk.confirm(&format!("revert {service}{whose} in environment {}", solution.manifest.env))?;
    }
    let orderly = context.orderly();
    let reports = match &arguments.tenant {
        Some(tenant) => solution.revert_tenant(tenant, service, goal, &options, progress.clone()).await,
        None => solution.revert(service, goal, &options, progress.clone()).await,
    };
    drop(orderly);
    progress.finish();
    let reports = reports?;
    if !arguments.dry_run && arguments.tenant.is_none() {
        record(context, &solution, "revert", &reports).await;
    }
    if let [only] = reports.as_slice()
        && let Ok(report) = &only.result
        && !context.talk.json
    {
        say(context, report);
        return Ok(Exit::Done);
    }
    finish(context, &reports, began.elapsed(), false)
}

/// Takes back what a rollout applied, as a rollout of its own.
async fn of_rollout(context: &Context, arguments: &Revert, id: i64) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let service = arguments.service.clone().unwrap_or_default();
    solution.services(std::slice::from_ref(&service))?;
    if solution.manifest.env != "dev" {
        let question = format!("revert what rollout {id} did to {service} in environment {}", solution.manifest.env);
        context.talk.confirm(&question)?;
    }
    let ask = AskRevert { rollout: id, service };
    let begun = solution.begin_revert(&ask, &Ask::default(), &context.talk.listener()).await?;
    let Begun::Rollout { id, joined, plans } = begun else { return Ok(Exit::Done) };
    if joined {
        context.talk.say(&format!("going on with rollout {id}"));
    }
    let options = solution.options().clone();
    rollout::work(context, solution, id, plans, BTreeMap::new(), &options).await
}

fn say(context: &Context, report: &Report) {
    let version = report.to.as_deref().unwrap_or("nothing applied");
    match report.outcome {
        Outcome::UpToDate => context.talk.say(&format!("{}: nothing to revert, at {version}", report.target)),
        Outcome::Pending => {
            for label in &report.pending {
                context.talk.data(label);
            }
            context.talk.say(&format!("{}: would revert {}, down to {version}", report.target, report.pending.len()));
        }
        _ => context.talk.say(&format!("{}: reverted {}, now at {version}", report.target, report.applied.len())),
    }
}
