//! `pgfleet migration resume`, `reset`, `mark-applied`, `forget` and `accept`: mend one database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgfleet_control::fleet::{TargetReport, Work, run_all};
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::repair::{Repair, Repaired, repair};
use pgfleet_migrate::run::looking;
use pgfleet_migrate::{Error, ErrorKind, Options, Set, Target};
use pgfleet_sql::version::Version;

use crate::args;
use crate::commands::migrate::{bare, record, version};
use crate::context::{Context, who};
use crate::error::{CommandError, Exit};

pub(crate) async fn run(context: &Context, action: Repair, arguments: &args::Repair) -> Result<Exit, CommandError> {
    let wanted = version(&arguments.version)?;
    if let Some(folder) = &arguments.dir {
        let (target, set) = bare(arguments.url.as_deref(), folder, arguments.set.as_deref(), None)?;
        let options = Options { who: who(), stop: context.stop.clone(), ..Options::default() };
        let repaired = mend(context, &target, &set, action, &wanted, &options).await?;
        if context.talk.json {
            context.talk.json(&repaired)?;
        }
        say(context, &repaired);
        return Ok(Exit::Done);
    }
    let solution = context.open().await?;
    let service = arguments.service.as_deref().unwrap_or_default();
    let jobs = solution.prepared(&[service.to_owned()], &BTreeMap::new(), &context.talk.listener()).await?;
    let Some(job) = jobs.into_iter().next() else {
        return Err(CommandError::new(Exit::Configuration, format!("the service {service} has no database")));
    };
    if let Some(refused) = job.handling.refusal() {
        return Err(refused.into());
    }
    let set = job.path.chosen(arguments.set.as_deref(), &format!("cannot {} {wanted}", action.word()))?;
    let options = solution.options().clone();
    let began = Instant::now();
    // On a laptop this is daily work; elsewhere a history that says what is not misleads others.
    if solution.manifest.env != "dev" && matches!(action, Repair::Forget | Repair::Accept) {
        let dry = Options { dry_run: true, ..options.clone() };
        let planned = repair(&job.target, set, action, &wanted, &dry, &Silent).await?;
        if let Some(difference) = &planned.difference {
            context.talk.say(difference);
        }
        let (word, label) = (action.word(), &planned.label);
        context.talk.confirm(&format!("{word} {label} of {service} in environment {}", solution.manifest.env))?;
    }
    let repaired = match mend(context, &job.target, set, action, &wanted, &options).await {
        Ok(repaired) => repaired,
        // A refusal changed nothing.
        Err(error) if matches!(error.kind(), ErrorKind::Findings | ErrorKind::Files | ErrorKind::Locked) => {
            return Err(error.into());
        }
        Err(error) => {
            let report = TargetReport {
                service: job.service.clone(),
                server: job.server.clone(),
                database: job.target.address.database().to_owned(),
                result: Err(error),
                took: began.elapsed(),
            };
            let reports = [report];
            record(context, &solution, action.word(), &reports).await;
            let [report] = reports;
            return report.result.map(|_| Exit::Done).map_err(CommandError::from);
        }
    };
    let mut document = serde_json::json!(repaired);
    document["service"] = job.service.clone().into();
    document["server"] = job.server.clone().into();
    document["database"] = job.target.address.database().into();
    // What the control database says of this target is no longer so.
    let mut looked = run_all(vec![job], Work::Migrate, &looking(&options), 1, Arc::new(Silent)).await;
    for report in &mut looked {
        document["state"] = report.state().word().into();
        if let Ok(done) = &mut report.result {
            // What was changed, for the audit; a look itself changes nothing.
            done.applied = vec![repaired.label.clone()];
        }
    }
    record(context, &solution, action.word(), &looked).await;
    if context.talk.json {
        context.talk.json(&document)?;
    }
    say(context, &repaired);
    Ok(Exit::Done)
}

/// Mends under the eyes of whoever waits; Ctrl-C ends it as it ends a run.
async fn mend(
    context: &Context,
    target: &Target,
    set: &Set,
    action: Repair,
    version: &Version,
    options: &Options,
) -> Result<Repaired, Error> {
    let progress = context.talk.progress(1, "mending");
    let orderly = context.orderly();
    let result = repair(target, set, action, version, options, &progress).await;
    drop(orderly);
    progress.finish();
    result
}

/// Says what was done and what is left to do.
fn say(context: &Context, repaired: &Repaired) {
    let Repaired { target, label, .. } = repaired;
    if let Some(difference) = &repaired.difference {
        context.talk.say(difference);
    }
    let at = repaired.statement.unwrap_or_default();
    let text = match repaired.action {
        Repair::Resume => format!("{label} went on at statement {at} and is done"),
        Repair::Reset => format!("{label}, which stopped at statement {at}, begins again with the next run"),
        Repair::MarkApplied => format!("{label} is recorded as applied; nothing was run"),
        Repair::Forget => format!("{label} is no longer recorded as applied; nothing was undone"),
        Repair::Accept => format!("{label} is accepted as it is in the file"),
    };
    context.talk.say(&format!("{target}: {text}"));
    for index in &repaired.left {
        context.talk.note(&format!("{target}: the index {index} is left INVALID: DROP INDEX CONCURRENTLY {index}"));
    }
}
