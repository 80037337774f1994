//! `pgfleet status`: where every database stands.

mod tenants;

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_control::Solution;
use pgfleet_control::fleet::{TargetReport, TargetState, Work, run_all};
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::{Observer, Report, run};

use crate::args::Status;
use crate::commands::migrate::document;
use crate::context::Context;
use crate::error::{CommandError, Exit, relative_text, render_migration};
use crate::talk::{Talk, counted};

pub(crate) async fn run(context: &Context, arguments: &Status) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let listener = context.talk.listener();
    // The services' own databases are few, and asked; tenants' are remembered.
    let mut reports =
        if arguments.tenant.is_empty() { hosts(&solution, arguments, &listener).await? } else { Vec::new() };
    let all = tenants::read(&solution, arguments, &listener).await?;
    let not_current = reports.iter().filter(|report| report.state() != TargetState::Current).count();
    let total = reports.len();
    let unreachable = total > 0 && reports.iter().all(|report| report.state() == TargetState::Unreachable);
    if arguments.pending {
        reports.retain(|report| report.state() == TargetState::Behind);
    }
    if arguments.failed {
        reports.retain(|report| is_failed(report.state()));
    }
    let cells = all.chosen(arguments);
    if context.talk.json {
        let hosts = reports.iter().map(document);
        let documents: Vec<_> = hosts.chain(cells.iter().map(|cell| serde_json::json!(cell))).collect();
        context.talk.json(&documents)?;
    } else {
        if arguments.tenant.is_empty() {
            print(context, &reports, !arguments.service.is_empty());
        }
        all.print(context, &cells, arguments);
        let mut said = format!("{}, {} current", counted(total, "database"), total - not_current);
        if !all.cells.is_empty() {
            let current = all.cells.len() - all.not_current();
            let own = format!("{} of tenants, {current} current", counted(all.cells.len(), "schema"));
            said = if arguments.tenant.is_empty() { format!("{said}; {own}") } else { own };
        }
        context.talk.say(&said);
    }
    if unreachable {
        return Ok(Exit::Unreachable);
    }
    let pending = not_current + all.not_current();
    Ok(if arguments.check && pending > 0 { Exit::Findings } else { Exit::Done })
}

/// Looks at the services' own databases.
async fn hosts(
    solution: &Solution,
    arguments: &Status,
    listener: &Arc<dyn Observer>,
) -> Result<Vec<TargetReport>, CommandError> {
    let options = run::looking(solution.options());
    let jobs = solution.prepared(&arguments.service, &BTreeMap::new(), listener).await?;
    let concurrency = solution.manifest.migrations.concurrency as usize;
    Ok(run_all(jobs, Work::Migrate, &options, concurrency, Arc::new(Silent)).await)
}

/// Whether somebody has to do something about it.
fn is_failed(state: TargetState) -> bool {
    matches!(state, TargetState::Failed | TargetState::Interrupted | TargetState::Unreachable)
}

fn print(context: &Context, reports: &[TargetReport], each: bool) {
    let mut table = Talk::table(&["service", "database", "version", "state", "pending", "seeds"]);
    for report in reports {
        let mut cells = vec![report.service.clone(), report.database.clone()];
        match &report.result {
            Ok(done) => cells.extend([
                done.to.clone().unwrap_or_else(|| "-".to_owned()),
                report.state().word().to_owned(),
                done.pending.len().to_string(),
                if done.pending_seeds.is_empty() {
                    "done".to_owned()
                } else {
                    format!("{} to run", done.pending_seeds.len())
                },
            ]),
            Err(_) => cells.extend(["-".to_owned(), report.state().word().to_owned(), "-".to_owned(), "-".to_owned()]),
        }
        table.add_row(cells);
    }
    context.talk.print_table(&table);
    for report in reports {
        match &report.result {
            Ok(done) => {
                if each {
                    print_entries(context, done);
                }
                if let Some(blocked) = &done.blocked {
                    context.talk.say(&format!("blocked: {blocked}"));
                }
                for note in &done.notes {
                    context.talk.note(&format!("{}: {}", report.service, relative_text(note)));
                }
            }
            Err(error) => context.talk.error(&render_migration(error)),
        }
    }
}

/// Lists every migration of one database.
fn print_entries(context: &Context, report: &Report) {
    let mut table = Talk::table(&["migration", "state", "applied (UTC)", "way back"]);
    for entry in &report.entries {
        let state = serde_json::to_value(entry.state).ok().and_then(|value| value.as_str().map(str::to_owned));
        table.add_row([
            entry.label(),
            state.unwrap_or_default(),
            entry.applied_at.clone().unwrap_or_else(|| "-".to_owned()),
            if entry.reversible { "yes" } else { "no" }.to_owned(),
        ]);
    }
    context.talk.data("");
    context.talk.print_table(&table);
}
