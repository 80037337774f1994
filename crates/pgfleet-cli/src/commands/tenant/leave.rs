//! `pgfleet tenant delete` and `restore`, and `migrate` of one tenant.

use std::time::{Duration, Instant};

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

/// Reads a duration of the command line: `30s`, `12h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no duration; write 30s, 10m, 12h or 7d"))?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("`{text}` has no unit; write 30s, 10m, 12h or 7d")),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["7", "d", "1w", "99999999999999999999d", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
