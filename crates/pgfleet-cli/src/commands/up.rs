//! `pgfleet up`: everything in order, then what to do with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgfleet_control::roles::Login;
use pgfleet_migrate::Outcome;

use crate::args::Up;
use crate::commands::migrate::{document, record};
use crate::commands::services::{self, Plan};
use crate::context::Context;
use crate::error::{CommandError, Exit, relative_text, render_migration};
use crate::talk::{Talk, counted, human};

pub(crate) async fn run(context: &Context, arguments: &Up) -> Result<Exit, CommandError> {
    let began = Instant::now();
    let loaded = context.load()?;
    // Unlike the other commands `up` waits for its servers unasked, as a starting service does.
    let mut solution = context.start(loaded, true).await?;
    let mut changed = false;
    for (name, server) in solution.servers() {
        let Some(local) = &server.local else { continue };
        let (major, minor) = local.version;
        changed |= local.started;
        if local.started {
            let made = if local.created { "made and started" } else { "started" };
            context.talk.say(&format!(
                "{made} server {name}: PostgreSQL {major}.{minor} on {}:{}, data in {}",
                local.host,
                local.port,
                local.data_dir.display()
            ));
        }
        if let Some(note) = &local.restart_needed {
            context.talk.note(&format!("server {name}: {note}"));
        }
    }
    for server in solution.provision(false).await? {
        for note in &server.notes {
            context.talk.note(note);
        }
        changed |= !server.statements.is_empty();
        if !server.statements.is_empty() {
            let created = if server.created.is_empty() {
                String::new()
            } else {
                format!(", databases {}", server.created.join(", "))
            };
            context.talk.say(&format!(
                "provisioned {}: {}{created}",
                server.server,
                counted(server.statements.len(), "statement")
            ));
        }
    }
    let mut options = solution.options().clone();
    options.wait_attempts = solution.manifest.migrations.wait_attempts;
    let concurrency = solution.manifest.migrations.concurrency as usize;
    let progress = Arc::new(context.talk.progress(solution.manifest.services.len(), "migrating"));
    let orderly = context.orderly();
    let reports = solution.migrate(&[], &BTreeMap::new(), &options, concurrency, progress.clone()).await;
    drop(orderly);
    progress.finish();
    let reports = reports?;
    record(context, &solution, "up", &reports).await;

    let mut exit = Exit::Done;
    let mut table = Talk::table(&["service", "database", "version", "connection", "took"]);
    for report in &reports {
        let service = solution.services(std::slice::from_ref(&report.service))?[0];
        let version = match &report.result {
            Ok(done) => {
                changed |= done.outcome == Outcome::Applied;
                for note in &done.notes {
                    context.talk.note(&format!("{}: {}", report.service, relative_text(note)));
                }
                done.to.clone().unwrap_or_else(|| "-".to_owned())
            }
            Err(error) => {
                let error = render_migration(error);
                context.talk.error(&error);
                exit = if exit == Exit::Done { error.exit } else { exit };
                "failed".to_owned()
            }
        };
        let connection = format!("psql \"{}\"", solution.pasteable(service, Login::App));
        table.add_row([report.service.clone(), report.database.clone(), version, connection, human(report.took)]);
    }
    let mut documents: Vec<_> = Vec::new();
    if context.talk.json {
        documents = reports.iter().map(document).collect();
        for (document, report) in documents.iter_mut().zip(&reports) {
            let service = solution.services(std::slice::from_ref(&report.service))?[0];
            document["connection"] = solution.pasteable(service, Login::App).into();
        }
    } else {
        context.talk.print_table(&table);
    }
    let took = human(began.elapsed());
    match (exit, changed) {
        (Exit::Done, true) => {
            let local = solution.servers().any(|(_, server)| server.local.is_some());
            let stop = if local { "; the server keeps running until pgfleet down" } else { "" };
            context.talk.say(&format!("up in {took}{stop}"));
        }
        (Exit::Done, false) => context.talk.say(&format!("nothing to do: everything is up ({took})")),
        _ => context.talk.say(&format!("not everything is up ({took})")),
    }
    let failed = reports.iter().filter(|report| report.result.is_err()).map(|report| report.service.as_str()).collect();
    let Some(plan) = Plan::of(&solution, &failed, documents.clone())? else {
        if context.talk.json {
            context.talk.json(&documents)?;
        }
        return Ok(exit);
    };
    // Their programs are not needed any more, and services may be built from the same file.
    context.programs.close().await;
    let ran = if arguments.detach {
        services::detach(context, &solution, plan).await?
    } else {
        services::stay(context, &solution, plan).await?
    };
    Ok(if exit == Exit::Done { ran } else { exit })
}
