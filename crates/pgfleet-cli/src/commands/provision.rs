//! `pgfleet provision`: roles, databases and rights.

use std::time::Instant;

use crate::args::Provision;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{counted, human};

pub(crate) async fn run(context: &Context, arguments: &Provision) -> Result<Exit, CommandError> {
    let began = Instant::now();
    let loaded = context.load()?;
    let mut solution = context.start(loaded, context.global.wait).await?;
    let done = solution.provision(arguments.dry_run).await?;
    if context.talk.json {
        context.talk.json(&done)?;
        return Ok(Exit::Done);
    }
    let mut count = 0;
    for server in &done {
        for statement in &server.statements {
            count += 1;
            let place = statement.database.as_deref().map(|name| format!(" -- in {name}")).unwrap_or_default();
            if arguments.dry_run {
                context.talk.data(&format!("{};{place}", statement.sql));
            }
        }
        for database in &server.created {
            context.talk.say(&format!("created database {database} on {}", server.server));
        }
    }
    let took = human(began.elapsed());
    if count == 0 {
        context.talk.say(&format!("nothing to do: everything is as the manifest says ({took})"));
    } else if arguments.dry_run {
        context.talk.say(&format!("{} would run; nothing was changed", counted(count, "statement")));
    } else {
        context.talk.say(&format!("{} ran ({took})", counted(count, "statement")));
    }
    Ok(Exit::Done)
}
