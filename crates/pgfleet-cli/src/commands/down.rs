//! `pgfleet down`: stops the services' programs, then the local PostgreSQL; the data stays.

use crate::commands::services;
use crate::context::Context;
use crate::error::{CommandError, Exit};

pub(crate) async fn run(context: &Context) -> Result<Exit, CommandError> {
    let loaded = context.load()?;
    // First who uses it, then the server.
    services::stop(context, &loaded.manifest.root).await?;
    let stopped = pgfleet_control::local::stop(&loaded.manifest).await?;
    if context.talk.json {
        context.talk.json(&stopped)?;
    }
    for server in &stopped {
        if server.was_running {
            context.talk.say(&format!("stopped the local server {}; its data stays", server.server));
        } else {
            context.talk.say(&format!("the local server {} was not running", server.server));
        }
    }
    if stopped.is_empty() {
        context.talk.say("this solution has no local server; nothing was stopped");
    }
    context.talk.say("hint: to undo a migration: pgfleet revert");
    Ok(Exit::Done)
}
