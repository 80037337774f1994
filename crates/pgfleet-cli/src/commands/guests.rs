//! Seeding tenants that have no database of their own, in the services' own databases.

use pgfleet_control::Solution;
use pgfleet_migrate::Options;

use crate::context::Context;
use crate::error::{CommandError, Exit, render_migration};
use crate::talk::counted;

/// Seeds those that are not known to be seeded, and says what became of them.
pub(crate) async fn seed(
    context: &Context,
    solution: &Solution,
    (tenants, services): (&[String], &[String]),
    options: &Options,
) -> Result<Exit, CommandError> {
    let Some(catalogue) = solution.catalogue_if_any().await? else { return Ok(Exit::Done) };
    let always_seed = options.always_seed || solution.manifest.tenants.always_seed;
    let options = Options { always_seed, ..options.clone() };
    let listener = context.talk.listener();
    let seeded = Box::pin(solution.seed_guests(&catalogue, (tenants, services), &options, &listener)).await;
    catalogue.close().await;
    let seeded = seeded?;
    let mut exit = Exit::Done;
    let mut changed = 0;
    for guest in &seeded {
        match &guest.report.result {
            Ok(report) => changed += usize::from(!report.seeded.is_empty()),
            Err(error) => {
                let own = render_migration(error);
                exit = exit.max(own.exit);
                context.talk.error(&own);
            }
        }
    }
    if changed > 0 {
        let all = counted(seeded.len(), "tenant");
        context.talk.say(&format!("{all} without a database of their own: {changed} seeded"));
    }
    Ok(exit)
}
