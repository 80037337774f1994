//! `pgfleet tenant delete` and `restore`, and `migrate` of one tenant.

use std::time::Instant;

use pgfleet_control::tenants::Keep;

use super::report;
use crate::args::{TenantDelete, TenantMigrate};
use crate::commands::migrate::finish;
use crate::context::Context;
use crate::error::{CommandError, Exit};

pub(super) async fn delete(context: &Context, arguments: &TenantDelete) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let tenant = &arguments.tenant;
    // That there is none is said before anybody is asked.
    solution.tenant(tenant).await?;
    let keep = match (arguments.now, arguments.keep) {
        (true, _) => Keep::Not,
        (false, Some(keep)) => Keep::For(keep),
        (false, None) => Keep::AsConfigured,
    };
    let what = if arguments.now { "and drop its databases now" } else { "and close its databases" };
    context.talk.confirm(&format!("delete tenant {tenant} {what}"))?;
    let removed = solution.delete_tenant(tenant, keep).await?;
    if context.talk.json {
        context.talk.json(&removed)?;
        return Ok(Exit::Done);
    }
    for (done, all) in [("closed", &removed.closed), ("dropped", &removed.dropped), ("left as it is", &removed.left)] {
        for database in all {
            context.talk.say(&format!("{done}: {database}"));
        }
    }
    match (&removed.drop_after, removed.gone) {
        (_, true) => context.talk.say(&format!("tenant {tenant} is gone")),
        (Some(after), false) => {
            context.talk.say(&format!("tenant {tenant} is deleted; its databases are dropped after {after}"));
            context.talk.say(&format!("hint: until then it can be had back: pgfleet tenant restore {tenant}"));
        }
        (None, false) => context.talk.say(&format!("tenant {tenant} is deleted")),
    }
    Ok(Exit::Done)
}

pub(super) async fn restore(context: &Context, tenant: &str) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let done = solution.restore_tenant(tenant, &context.talk.listener()).await?;
    let word = done.tenant.state.word();
    report(context, &done, &format!("tenant {tenant} is back, and {word}"))
}

pub(super) async fn migrate(context: &Context, arguments: &TenantMigrate) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let began = Instant::now();
    let concurrency = solution.manifest.migrations.concurrency as usize;
    let listener = context.talk.listener();
    let orderly = context.orderly();
    let options = solution.options().clone();
    let reports = solution.migrate_tenant(&arguments.tenant, &options, concurrency, &listener).await;
    drop(orderly);
    let reports = reports?;
    // What was set aside is tried again by whoever runs the messages.
    if reports.iter().all(|report| report.result.is_ok()) {
        solution.start_failed_messages(Some(&arguments.tenant)).await?;
    }
    finish(context, &reports, began.elapsed(), false)
}
