//! `pgfleet tenant move`: to another server, back, and what became of it.

use std::sync::Arc;

use pgfleet_control::Solution;
use pgfleet_control::moves::{Move, MoveState, Moved, Order};
use pgfleet_migrate::Observer;

use crate::args::TenantMove;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, counted};

pub(super) async fn run(context: &Context, arguments: TenantMove) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let tenant = arguments.tenant.as_str();
    if arguments.status {
        return status(context, &solution, tenant).await;
    }
    let order =
        Order { server: arguments.server.unwrap_or_default(), service: arguments.service, keep: arguments.keep };
    if !arguments.cancel {
        ask(context, &solution, tenant, &order).await?;
    }
    let progress = Arc::new(context.talk.progress(0, "moving"));
    let observer: Arc<dyn Observer> = progress.clone();
    let moved = if arguments.cancel {
        Box::pin(solution.cancel_move(tenant)).await
    } else if arguments.back {
        Box::pin(solution.move_tenant_back(tenant, &order, &observer)).await
    } else {
        Box::pin(solution.move_tenant(tenant, &order, &observer)).await
    };
    progress.finish();
    report(context, tenant, &moved?)
}

/// A database that pgfleet did not make is left behind and not dropped: somebody has to know.
async fn ask(context: &Context, solution: &Solution, tenant: &str, order: &Order) -> Result<(), CommandError> {
    let given: Vec<String> =
        solution.given_databases(tenant, order).await?.into_iter().map(|name| format!("database {name}")).collect();
    if given.is_empty() {
        return Ok(());
    }
    context.talk.note(&format!(
        "pgfleet did not make {}: the copy will be pgfleet's, the old one stays where it is, closed to everybody but \
         the administrator, and is never dropped by pgfleet",
        given.join(" and ")
    ));
    context.talk.confirm(&format!("move tenant {tenant}"))
}

fn report(context: &Context, tenant: &str, moved: &Moved) -> Result<Exit, CommandError> {
    for note in &moved.notes {
        context.talk.note(note);
    }
    if context.talk.json {
        context.talk.json(&moved.moves)?;
        return Ok(Exit::Done);
    }
    if moved.moves.is_empty() {
        context.talk.say(&format!("tenant {tenant} is there already: nothing to do"));
    }
    for work in &moved.moves {
        context.talk.say(&said(work));
    }
    Ok(Exit::Done)
}

fn said(work: &Move) -> String {
    let (tenant, from, to) = (&work.tenant, work.from(), work.to());
    if work.state == MoveState::Cancelled {
        return format!("tenant {tenant} is served from {from}, as before; the copy is dropped");
    }
    let rows = work
        .rows()
        .map(|(tables, rows)| format!(": {} in {}, the same in both", counted(rows, "row"), counted(tables, "table")));
    let kept = if work.from_own {
        format!("; {from} is closed and kept until {}", work.keep_until.as_deref().unwrap_or("dropped"))
    } else {
        String::new()
    };
    format!("moved tenant {tenant} from {from} to {to}{}{kept}", rows.unwrap_or_default())
}

async fn status(context: &Context, solution: &Solution, tenant: &str) -> Result<Exit, CommandError> {
    let moves = solution.tenant_moves(Some(tenant)).await?;
    if context.talk.json {
        context.talk.json(&moves)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["move", "from", "to", "state", "begun", "ended", "kept until"]);
    for work in &moves {
        table.add_row([
            &work.id.to_string(),
            &work.from(),
            &work.to(),
            work.state.word(),
            &work.started_at,
            work.ended_at.as_deref().unwrap_or("-"),
            work.keep_until.as_deref().unwrap_or("-"),
        ]);
    }
    context.talk.print_table(&table);
    for work in moves.iter().filter(|work| !work.state.is_over()) {
        if let Some(error) = &work.error {
            context.talk.data(&format!("move {}: {error}", work.id));
        }
        let (tenant, server) = (&work.tenant, &work.to_server);
        context.talk.say(&format!(
            "go on with move {}: pgfleet tenant move {tenant} --server {server}{}",
            work.id,
            if work.state == MoveState::Switched { "" } else { "; or take it back: --cancel" }
        ));
    }
    context.talk.say(&counted(moves.len(), "move"));
    Ok(Exit::Done)
}
