//! `pgfleet provision`: roles, databases and rights.

use std::time::Instant;

use pgfleet_control::Solution;
use pgfleet_control::roles::Login;
use pgfleet_control::rotation::Rotation;

use crate::args::Provision;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{counted, human};

pub(crate) async fn run(context: &Context, arguments: &Provision) -> Result<Exit, CommandError> {
    let began = Instant::now();
    let loaded = context.load()?;
    let mut solution = context.start(loaded, context.global.wait).await?;
    if let Some(service) = &arguments.rotate {
        return rotate(context, &mut solution, service, arguments).await;
    }
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
        for note in &server.notes {
            context.talk.note(note);
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

/// Gives a login a new password, or lets the old one in no more.
async fn rotate(
    context: &Context,
    solution: &mut Solution,
    service: &str,
    arguments: &Provision,
) -> Result<Exit, CommandError> {
    let login: Login = arguments.role.parse().map_err(|error: String| CommandError::new(Exit::Usage, error))?;
    let before = solution.rotations(service, login).await?;
    for Rotation { retiring, sessions, .. } in before.iter().filter(|rotation| rotation.sessions > 0) {
        let role = retiring.as_deref().unwrap_or_default();
        let sessions = counted_sessions(*sessions);
        context.talk.confirm(&format!("{sessions} of role {role} began with the old password; let it in no more"))?;
    }
    if arguments.finish && before.iter().all(|rotation| rotation.retiring.is_none()) {
        context.talk.say(&format!("nothing to do: no old password of {service} ({}) works", login.word()));
        return Ok(Exit::Done);
    }
    let done = if arguments.finish {
        solution.finish_rotation(service, login).await?
    } else {
        solution.rotate(service, login).await?
    };
    if context.talk.json {
        context.talk.json(&done)?;
        return Ok(Exit::Done);
    }
    for rotation in &done {
        let Rotation { server, active, retiring, sessions, .. } = rotation;
        let Some(old) = retiring else { continue };
        if arguments.finish {
            let left = if *sessions > 0 { format!("; {} go on", counted_sessions(*sessions)) } else { String::new() };
            context.talk.say(&format!("role {old} on {server} lets nobody in any more{left}"));
        } else {
            context.talk.say(&format!(
                "role {active} on {server} has a new password and is handed out from now on; {old} still works ({})",
                counted_sessions(*sessions)
            ));
        }
    }
    if !arguments.finish {
        let role = if login == Login::App { String::new() } else { format!(" --role {}", login.word()) };
        context.talk.say(&format!(
            "hint: start the service with it, then: pgfleet provision --rotate {service}{role} --finish"
        ));
    }
    Ok(Exit::Done)
}

fn counted_sessions(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "session")
}
