//! `pgfleet queue`: what waits, what somebody has, what was given up.

use pgfleet_control::events::{DeadShown, FlightShown, ItemShown, QueueShown};
use pgfleet_control::manifest::Builtin;
use pgfleet_events::{Enqueued, NewItem, QueueStore};

use super::{age, database, json, optional, say_held, told, which};
use crate::args::QueueVerb;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

const MODULE: Builtin = Builtin::EventStreaming;

pub(crate) async fn run(context: &Context, verb: QueueVerb) -> Result<Exit, CommandError> {
    match verb {
        QueueVerb::List { place } => {
            let database = database(context, MODULE, &place).await?;
            let store = database.store();
            let queues = QueueStore::list(&store).await.map_err(|error| told(&error))?;
            list(context, &queues.iter().map(QueueShown::from).collect::<Vec<_>>())?;
            if !context.talk.json {
                say_held(context, &database.held_by().await?);
            }
        }
        QueueVerb::Enqueue { queue, place, kind, data, key, priority, delay, dedup_id } => {
            let mut item = NewItem::new(kind, json(&data)?).priority(priority);
            item.key = key.map(Into::into);
            item.delay = delay.unwrap_or_default();
            item.dedup_id = dedup_id.map(Into::into);
            let database = database(context, MODULE, &place).await?;
            let done = database.store().enqueue(&queue, vec![item]).await.map_err(|error| told(&error))?;
            enqueued(context, &done)?;
        }
        QueueVerb::Peek { queue, place, limit } => {
            let store = database(context, MODULE, &place).await?.store();
            let next = store.peek(&queue, limit).await.map_err(|error| told(&error))?;
            let out = store.in_flight(&queue, limit).await.map_err(|error| told(&error))?;
            let next: Vec<ItemShown<'_>> = next.iter().map(ItemShown::from).collect();
            let out: Vec<FlightShown> = out.iter().map(FlightShown::from).collect();
            peeked(context, &next, &out)?;
        }
        QueueVerb::DeadLetters { queue, place, limit } => {
            let store = database(context, MODULE, &place).await?.store();
            let dead = store.dead_letters(&queue, limit).await.map_err(|error| told(&error))?;
            dead_letters(context, &dead.iter().map(DeadShown::from).collect::<Vec<_>>())?;
        }
        QueueVerb::Redrive { queue, place, which: dead } => {
            let store = database(context, MODULE, &place).await?.store();
            let count = store.redrive(&queue, &which(&dead)).await.map_err(|error| told(&error))?;
            counted(context, "redriven", count)?;
        }
        QueueVerb::Purge { queue, place, dead } => {
            let store = database(context, MODULE, &place).await?.store();
            let what = if dead { "the dead letters" } else { "all messages that nobody has" };
            context.talk.confirm(&format!("remove {what} of queue {queue}"))?;
            let count = store.purge(&queue, dead).await.map_err(|error| told(&error))?;
            counted(context, "removed", count)?;
        }
    }
    Ok(Exit::Done)
}

fn counted(context: &Context, word: &str, count: u64) -> Result<(), CommandError> {
    if context.talk.json {
        return context.talk.json(&serde_json::json!({ word: count }));
    }
    context.talk.data(&format!("{word}: {count}"));
    Ok(())
}

fn enqueued(context: &Context, done: &[Enqueued]) -> Result<(), CommandError> {
    let id = done.iter().find_map(|done| match done {
        Enqueued::New(id) => Some(id.to_string()),
        Enqueued::Duplicate => None,
    });
    if context.talk.json {
        return context.talk.json(&serde_json::json!({ "id": id, "duplicate": id.is_none() }));
    }
    match id {
        Some(id) => context.talk.data(&id),
        None => context.talk.note("a message of this dedup id is there already"),
    }
    Ok(())
}

fn list(context: &Context, queues: &[QueueShown]) -> Result<(), CommandError> {
    if context.talk.json {
        return context.talk.json(&queues);
    }
    let mut table = Talk::table(&["queue", "ready", "oldest", "delayed", "in flight", "dead", "redelivered"]);
    for queue in queues {
        table.add_row([
            queue.queue.clone(),
            queue.ready.to_string(),
            age(queue.oldest_ms),
            queue.delayed.to_string(),
            queue.in_flight.to_string(),
            queue.dead.to_string(),
            queue.redelivered.to_string(),
        ]);
    }
    context.talk.print_table(&table);
    Ok(())
}

fn peeked(context: &Context, next: &[ItemShown<'_>], out: &[FlightShown]) -> Result<(), CommandError> {
    if context.talk.json {
        return context.talk.json(&serde_json::json!({ "next": next, "in_flight": out }));
    }
    let mut table = Talk::table(&["id", "type", "key", "priority", "delivery", "put in", "data"]);
    for item in next {
        table.add_row([
            item.id.clone(),
            item.kind.to_owned(),
            optional(item.key),
            item.priority.to_string(),
            item.attempt.to_string(),
            item.enqueued_at.clone(),
            item.data.get().to_owned(),
        ]);
    }
    context.talk.print_table(&table);
    if !out.is_empty() {
        let mut table = Talk::table(&["in flight", "consumer", "delivery", "since", "deadline"]);
        for flight in out {
            table.add_row([
                flight.id.clone(),
                flight.consumer.clone(),
                flight.attempt.to_string(),
                flight.since.clone(),
                flight.deadline.clone(),
            ]);
        }
        context.talk.print_table(&table);
    }
    Ok(())
}

fn dead_letters(context: &Context, dead: &[DeadShown<'_>]) -> Result<(), CommandError> {
    if context.talk.json {
        return context.talk.json(&dead);
    }
    let mut table = Talk::table(&["id", "type", "key", "deliveries", "given up", "why", "data"]);
    for letter in dead {
        table.add_row([
            letter.id.clone(),
            letter.kind.to_owned(),
            optional(letter.key),
            letter.attempts.to_string(),
            letter.dead_at.clone(),
            letter.reason.to_owned(),
            letter.data.get().to_owned(),
        ]);
    }
    context.talk.print_table(&table);
    Ok(())
}
