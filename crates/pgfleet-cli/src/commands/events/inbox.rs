//! `pgfleet inbox`: the messages that a service has received.

use pgfleet_control::manifest::Builtin;

use super::{age, database, optional, say_held};
use crate::args::InboxVerb;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

pub(crate) async fn run(context: &Context, verb: InboxVerb) -> Result<Exit, CommandError> {
    let InboxVerb::Status { place, consumer } = verb;
    let inbox = database(context, Builtin::Inbox, &place).await?;
    let shown = inbox.inbox_status(consumer.as_deref()).await?;
    if context.talk.json {
        context.talk.json(&shown)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["service", "consumer", "remembered", "parked", "oldest", "dead"]);
    table.add_row([
        shown.tenant.as_ref().map_or_else(|| shown.service.clone(), |tenant| format!("{}/{tenant}", shown.service)),
        shown.consumer.clone(),
        shown.remembered.to_string(),
        shown.parked.to_string(),
        age(shown.oldest_ms),
        shown.dead.to_string(),
    ]);
    context.talk.print_table(&table);
    if !shown.keys.is_empty() {
        let mut table = Talk::table(&["parked key", "messages", "tries", "next try", "why"]);
        for key in &shown.keys {
            table.add_row([
                optional(key.key.as_deref()),
                key.messages.to_string(),
                key.attempts.to_string(),
                optional(key.next_try.as_deref()),
                key.last_error.clone(),
            ]);
        }
        context.talk.print_table(&table);
    }
    say_held(context, &shown.held_by);
    Ok(Exit::Done)
}
