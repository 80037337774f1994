//! Reading events, and having them handled again.

use std::sync::Arc;

use pgfleet_control::Error;
use pgfleet_control::events::{Begin, EventShown, Reading, Replay};
use pgfleet_events::Event;
use pgfleet_events::replay::Progress;

use super::MODULE;
use crate::args::{EventFilter, StreamRead, StreamReplay};
use crate::commands::events::database;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::counted;

fn reading(filter: EventFilter) -> Result<Reading, CommandError> {
    let begin = match (&filter.from, &filter.stream) {
        (None, _) => None,
        (Some(text), Some(_)) if !text.contains('-') => Some(Begin::Version(text.parse().map_err(|_| {
            CommandError::new(Exit::Usage, format!("--from {text}: no version")).hinted("the first event has version 1")
        })?)),
        (Some(text), _) => Some(Begin::Position(text.parse().map_err(|error: pgfleet_events::Error| {
            CommandError::new(Exit::Usage, format!("--from: {error}")).hinted("a position looks like 12-3456")
        })?)),
    };
    Ok(Reading {
        stream: filter.stream,
        begin,
        kinds: filter.kind,
        correlation_id: filter.correlation,
        since: filter.since,
        limit: filter.limit,
        ..Reading::default()
    })
}

pub(super) async fn read(context: &Context, arguments: StreamRead) -> Result<Exit, CommandError> {
    let StreamRead { filter, place, backward, follow } = arguments;
    let reading = Reading { backward, follow, ..reading(filter)? };
    let store = database(context, MODULE, &place).await?.store();
    // Ctrl-C is how one ends looking on.
    let _orderly = context.orderly();
    let told = reading.run(Arc::new(store), &context.stop, &mut |event| tell(context, event)).await?;
    if told == 0 && !follow {
        context.talk.note("there is no such event");
    }
    Ok(Exit::Done)
}

/// One event a line: a document, or what a person reads.
fn tell(context: &Context, event: &Event) -> Result<(), Error> {
    let shown = EventShown::from(event);
    if context.talk.json {
        let line = serde_json::to_string(&shown).map_err(|error| {
            Error::new(pgfleet_control::ErrorKind::Failed, "cannot write JSON").cause(error.to_string())
        })?;
        context.talk.data(&line);
    } else {
        let EventShown { stream, version, at, kind, data, .. } = shown;
        context.talk.data(&format!("{at}  {stream}@{version}  {kind}  {data}"));
    }
    Ok(())
}

pub(super) async fn replay(context: &Context, arguments: StreamReplay) -> Result<Exit, CommandError> {
    let StreamReplay { filter, place, to_queue, rate, group } = arguments;
    let reading = reading(filter)?;
    let store = database(context, MODULE, &place).await?.store();
    let Some(queue) = to_queue else {
        let group = group.unwrap_or_default();
        context.talk.confirm(&format!("have group {group} read again"))?;
        let position = Replay::reset_group(&store, &group, &reading).await?;
        if context.talk.json {
            context.talk.json(&serde_json::json!({ "group": group, "position": position }))?;
        } else {
            context.talk.data(&format!("{group} reads again from {position}"));
        }
        return Ok(Exit::Done);
    };
    let _orderly = context.orderly();
    let progress = |now: &Progress| {
        let total = now.total.map_or_else(String::new, |total| format!(" of {total}"));
        context.talk.say(&format!("{}{total} put into {queue}, {:.0} a second", now.events, now.rate));
    };
    let replay = Replay { reading, queue: queue.clone(), rate };
    let replayed = replay.run(&Arc::new(store), &context.stop, &progress).await?;
    if context.talk.json {
        context.talk.json(&replayed)?;
    } else {
        let events = counted(usize::try_from(replayed.events).unwrap_or(usize::MAX), "event");
        context.talk.data(&format!("{events} put into {queue}"));
    }
    if !context.stop.is_asked() {
        return Ok(Exit::Done);
    }
    if let Some(next) = replayed.next {
        context.talk.say(&format!("hint: the rest: the same command with --from {next}"));
    }
    Ok(Exit::Interrupted)
}
