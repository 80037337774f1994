//! `pgfleet seed`: runs seeds that are new or changed, where no migration is pending.

use std::sync::Arc;
use std::time::Instant;

use pgfleet_migrate::{Options, Outcome, run};

use crate::args::Seed;
use crate::commands::guests;
use crate::commands::migrate::{finish, record};
use crate::context::{Context, properties};
use crate::error::{CommandError, Exit};

pub(crate) async fn run(context: &Context, arguments: &Seed) -> Result<Exit, CommandError> {
    let mut solution = context.open().await?;
    let extra = properties(&arguments.property)?;
    let concurrency = solution.manifest.migrations.concurrency as usize;
    let count = solution.services(&arguments.service)?.len();
    let progress = Arc::new(context.talk.progress(count, "seeding"));
    // Nothing is seeded anywhere while a migration is pending somewhere.
    let looking = run::looking(solution.options());
    let looked = solution.migrate(&arguments.service, &extra, &looking, concurrency, progress.clone()).await?;
    for report in &looked {
        if let Ok(found) = &report.result
            && found.outcome == Outcome::Pending
            && !found.pending.is_empty()
        {
            return Err(CommandError::new(
                Exit::Failed,
                format!("cannot seed {}: {} migrations are pending", report.service, found.pending.len()),
            )
            .hinted("pgfleet migrate applies them and seeds"));
        }
    }
    let began = Instant::now();
    let orderly = context.orderly();
    let options = Options { always_seed: arguments.always, ..solution.options().clone() };
    let reports = solution.seed(&arguments.service, &extra, &options, concurrency, progress.clone()).await;
    drop(orderly);
    progress.finish();
    let reports = reports?;
    record(context, &solution, "seed", &reports).await;
    let exit = finish(context, &reports, began.elapsed(), false)?;
    Ok(exit.max(guests::seed(context, &solution, (&[], &arguments.service), &options).await?))
}
