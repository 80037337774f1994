//! `pgfleet outbox`: the messages that a service publishes.

use pgfleet_control::events::OutboxShown;
use pgfleet_control::manifest::Builtin;

use super::{age, database, optional, say_held, which};
use crate::args::OutboxVerb;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, counted};

pub(crate) async fn run(context: &Context, verb: OutboxVerb) -> Result<Exit, CommandError> {
    match verb {
        OutboxVerb::Status { place } => {
            let outbox = database(context, Builtin::Outbox, &place).await?;
            let shown = outbox.outbox_status().await?;
            if context.talk.json {
                context.talk.json(&shown)?;
            } else {
                print(context, &shown);
            }
            Ok(Exit::Done)
        }
        OutboxVerb::Retry { place, which: dead } => {
            let outbox = database(context, Builtin::Outbox, &place).await?;
            let retried = outbox.outbox_retry(&which(&dead)).await?;
            if context.talk.json {
                context.talk.json(&retried)?;
            } else {
                let messages = counted(usize::try_from(retried.messages).unwrap_or(usize::MAX), "message");
                let keys = counted(usize::try_from(retried.keys).unwrap_or(usize::MAX), "key");
                context.talk.data(&format!("{messages} of {keys} are tried again"));
            }
            Ok(Exit::Done)
        }
    }
}

fn print(context: &Context, shown: &OutboxShown) {
    let mut table = Talk::table(&["service", "pending", "oldest", "delayed", "parked", "dead", "sent", "relay"]);
    table.add_row([
        shown.tenant.as_ref().map_or_else(|| shown.service.clone(), |tenant| format!("{}/{tenant}", shown.service)),
        shown.pending.to_string(),
        age(shown.oldest_ms),
        shown.delayed.to_string(),
        shown.parked.to_string(),
        shown.dead.to_string(),
        shown.sent.to_string(),
        if shown.carried { "carries" } else { "none" }.to_owned(),
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
    if !shown.dead_letters.is_empty() {
        let mut table = Talk::table(&["dead letter", "topic", "key", "tries", "since", "why"]);
        for dead in &shown.dead_letters {
            table.add_row([
                dead.id.clone(),
                dead.topic.clone(),
                optional(dead.key.as_deref()),
                dead.attempts.to_string(),
                dead.dead_at.clone(),
                dead.reason.clone(),
            ]);
        }
        context.talk.print_table(&table);
        context.talk.say("hint: have them tried again: pgfleet outbox retry");
    }
    say_held(context, &shown.held_by);
}
