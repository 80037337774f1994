//! `pgfleet status`: where every database stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_control::fleet::{TargetReport, TargetState, Work, run_all};
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::{Report, run};

use crate::args::Status;
use crate::commands::migrate::document;
use crate::context::Context;
use crate::error::{CommandError, Exit, relative_text, render_migration};
use crate::talk::{Talk, counted};

pub(crate) async fn run(context: &Context, arguments: &Status) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let options = run::looking(solution.options());
    let jobs = solution.prepared(&arguments.service, &BTreeMap::new(), &context.talk.listener()).await?;
    let concurrency = solution.manifest.migrations.concurrency as usize;
    let mut reports = run_all(jobs, Work::Migrate, &options, concurrency, Arc::new(Silent)).await;
    let not_current = reports.iter().filter(|report| report.state() != TargetState::Current).count();
    let total = reports.len();
    let unreachable = reports.iter().all(|report| report.state() == TargetState::Unreachable);
    if arguments.pending {
        reports.retain(|report| report.state() == TargetState::Behind);
    }
    if arguments.failed {
        reports.retain(|report| {
            matches!(report.state(), TargetState::Failed | TargetState::Interrupted | TargetState::Unreachable)
        });
    }
    if context.talk.json {
        context.talk.json(&reports.iter().map(document).collect::<Vec<_>>())?;
    } else {
        print(context, &reports, !arguments.service.is_empty());
        context.talk.say(&format!("{}, {} current", counted(total, "database"), total - not_current));
    }
    if unreachable && total > 0 {
        return Ok(Exit::Unreachable);
    }
    Ok(if arguments.check && not_current > 0 { Exit::Findings } else { Exit::Done })
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
