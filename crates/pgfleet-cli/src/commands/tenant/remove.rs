//! `tenant delete` and `tenant restore`.

use pgfleet_control::manifest::parse_duration;
use pgfleet_control::tenants::{Keep, Tenant};

use super::report;
use crate::args::TenantDelete;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{counted, human};

pub(super) async fn delete(context: &Context, arguments: &TenantDelete) -> Result<Exit, CommandError> {
    let keep = match (&arguments.keep, arguments.now) {
        (_, true) => Keep::Not,
        (None, false) => Keep::AsConfigured,
        (Some(text), false) => Keep::For(parse_duration(text).ok_or_else(|| {
            CommandError::new(Exit::Usage, format!("--keep {text}: not a duration")).hinted("write 12h, or 30d")
        })?),
    };
    let solution = context.open().await?;
    let tenant = solution.tenant(&arguments.tenant).await?;
    let after = match keep {
        Keep::For(time) => time,
        Keep::AsConfigured | Keep::Not => solution.manifest.tenants.drop_after,
    };
    context.talk.confirm(&question(&tenant, keep, &human(after)))?;
    let removed = solution.delete_tenant(&arguments.tenant, keep).await?;
    for left in &removed.left {
        context.talk.note(&format!("it stays: {left}"));
    }
    if context.talk.json {
        context.talk.json(&removed)?;
        return Ok(Exit::Done);
    }
    for database in &removed.dropped {
        context.talk.say(&format!("dropped {database}"));
    }
    for database in &removed.closed {
        context.talk.say(&format!("closed {database}"));
    }
    let name = &removed.tenant;
    context.talk.say(&match &removed.drop_after {
        _ if removed.gone => format!("tenant {name} is gone"),
        Some(after) => {
            format!("tenant {name} is in quarantine until {after}; have it back: pgfleet tenant restore {name}")
        }
        None => format!("tenant {name} is in quarantine"),
    });
    Ok(Exit::Done)
}

/// Says what deleting a tenant means.
fn question(tenant: &Tenant, keep: Keep, after: &str) -> String {
    let name = &tenant.name;
    let databases: Vec<&str> = tenant.databases.iter().map(|own| own.database.as_str()).collect();
    match keep {
        _ if databases.is_empty() => {
            format!("delete tenant {name}; it has no database that was made for it, so this cannot be taken back")
        }
        Keep::Not => format!("delete tenant {name} and drop {} for good", databases.join(", ")),
        Keep::AsConfigured | Keep::For(_) => {
            let what = counted(databases.len(), "database");
            format!("delete tenant {name}; {what} of its own can be had back for {after}")
        }
    }
}

pub(super) async fn restore(context: &Context, tenant: &str) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let orderly = context.orderly();
    let done = solution.restore_tenant(tenant, &context.talk.listener()).await;
    drop(orderly);
    let done = done?;
    let word = done.tenant.state.word();
    let said = if done.changed { format!("is {word} again") } else { format!("is {word} already: nothing to do") };
    report(context, &done, &format!("tenant {tenant} {said}"))
}
