//! `pgfleet tenant move`: a tenant's databases on another server.

use pgfleet_control::moves::{Move, Moved, Order};

use crate::args::TenantMove;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

pub(super) async fn run(context: &Context, arguments: &TenantMove) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let tenant = &arguments.tenant;
    if arguments.status {
        return list(context, &solution.tenant_moves(Some(tenant)).await?);
    }
    let listener = context.talk.listener();
    let order = Order {
        server: arguments.server.clone().unwrap_or_default(),
        service: arguments.service.clone(),
        keep: arguments.keep,
    };
    let moved = if arguments.cancel {
        solution.cancel_move(tenant).await?
    } else if arguments.back {
        context.talk.confirm(&format!("refuse tenant {tenant} while its data goes back"))?;
        solution.move_tenant_back(tenant, &order, &listener).await?
    } else {
        context.talk.confirm(&format!("refuse tenant {tenant} while its data is moved to {}", order.server))?;
        solution.move_tenant(tenant, &order, &listener).await?
    };
    tell(context, &moved)
}

fn tell(context: &Context, moved: &Moved) -> Result<Exit, CommandError> {
    for note in &moved.notes {
        context.talk.note(note);
    }
    if context.talk.json {
        context.talk.json(moved)?;
        return Ok(Exit::Done);
    }
    for each in &moved.moves {
        context.talk.say(&format!("{}: from {} to {}: {}", each.tenant, each.from(), each.to(), each.state.word()));
    }
    if moved.moves.is_empty() {
        context.talk.say("nothing to do: it is there already");
    }
    Ok(Exit::Done)
}

fn list(context: &Context, moves: &[Move]) -> Result<Exit, CommandError> {
    if context.talk.json {
        context.talk.json(&moves)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["move", "from", "to", "state", "began (UTC)", "ended (UTC)"]);
    for each in moves {
        table.add_row([
            each.id.to_string(),
            each.from(),
            each.to(),
            each.state.word().to_owned(),
            each.started_at.clone(),
            each.ended_at.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    context.talk.print_table(&table);
    for each in moves {
        if let Some(error) = &each.error {
            context.talk.say(&format!("move {}: {error}", each.id));
        }
    }
    Ok(Exit::Done)
}
