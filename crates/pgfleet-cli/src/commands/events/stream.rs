//! `pgfleet stream`: events in order, and how long they are kept.

mod configure;
mod read;
mod retention;

use pgfleet_control::events::{ConfigShown, GroupShown, Store, StreamShown};
use pgfleet_control::manifest::Builtin;
use pgfleet_events::{ConfigStore, Expected, NewEvent, StreamKind, StreamStore};

use super::{age, database, json, optional, told};
use crate::args::StreamVerb;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

const MODULE: Builtin = Builtin::EventStreaming;

pub(crate) async fn run(context: &Context, verb: StreamVerb) -> Result<Exit, CommandError> {
    match verb {
        StreamVerb::List { place, prefix, limit } => {
            let store = database(context, MODULE, &place).await?.store();
            list(context, &store, &prefix, limit).await
        }
        StreamVerb::Show { stream, place } => {
            let store = database(context, MODULE, &place).await?.store();
            show(context, &store, &stream).await
        }
        StreamVerb::Read(arguments) => read::read(context, arguments).await,
        StreamVerb::Append { stream, place, kind, data, expected, correlation } => {
            let mut event = NewEvent::new(kind, json(&data)?);
            event.meta.correlation_id = correlation.map(Into::into);
            let store = database(context, MODULE, &place).await?.store();
            append(context, &store, &stream, expected, event).await
        }
        StreamVerb::Replay(arguments) => read::replay(context, arguments).await,
        StreamVerb::Configure(arguments) => configure::run(context, arguments).await,
        StreamVerb::Retention(arguments) => retention::run(context, arguments).await,
    }
}

async fn list(context: &Context, store: &Store, prefix: &str, limit: usize) -> Result<Exit, CommandError> {
    let streams = StreamStore::list(store, prefix, None, limit).await.map_err(|error| told(&error))?;
    let streams: Vec<StreamShown> = streams.iter().map(StreamShown::from).collect();
    let groups = GroupShown::all(store).await?;
    if context.talk.json {
        context.talk.json(&serde_json::json!({ "streams": streams, "groups": groups }))?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["stream", "length", "version", "last event", "state"]);
    for stream in &streams {
        table.add_row([
            stream.stream.clone(),
            stream.length.to_string(),
            stream.last.to_string(),
            stream.last_at.clone(),
            if stream.archived { "archived" } else { "open" }.to_owned(),
        ]);
    }
    context.talk.print_table(&table);
    if !groups.is_empty() {
        let mut table = Talk::table(&["group", "part", "position", "lag", "oldest", "member"]);
        for group in &groups {
            table.add_row([
                group.group.clone(),
                format!("{} of {}", group.part + 1, group.parts),
                group.position.clone(),
                group.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
                age(group.oldest_ms),
                optional(group.member.as_deref()),
            ]);
        }
        context.talk.print_table(&table);
    }
    Ok(Exit::Done)
}

async fn show(context: &Context, store: &Store, stream: &str) -> Result<Exit, CommandError> {
    let info = StreamStore::info(store, stream).await.map_err(|error| told(&error))?;
    let Some(info) = info else {
        return Err(CommandError::new(Exit::Failed, format!("there is no stream {stream}"))
            .hinted("those that are there: pgfleet stream list"));
    };
    let config = store.config(stream, StreamKind::Stream).await.map_err(|error| told(&error))?;
    let (shown, config) = (StreamShown::from(&info), ConfigShown::from(&config));
    if context.talk.json {
        context.talk.json(&serde_json::json!({ "stream": shown, "config": config }))?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["stream", "length", "first", "last", "first at", "last at", "state"]);
    table.add_row([
        shown.stream.clone(),
        shown.length.to_string(),
        shown.first.to_string(),
        shown.last.to_string(),
        shown.first_at.clone(),
        shown.last_at.clone(),
        if shown.archived { "archived" } else { "open" }.to_owned(),
    ]);
    context.talk.print_table(&table);
    context.talk.data(&configure::kept(&config));
    Ok(Exit::Done)
}

async fn append(
    context: &Context,
    store: &Store,
    stream: &str,
    expected: Option<u64>,
    event: NewEvent,
) -> Result<Exit, CommandError> {
    let id = event.id;
    let expected = expected.map_or(Expected::Any, Expected::Exact);
    let done = store.append(stream, expected, vec![event]).await.map_err(|error| told(&error))?;
    if context.talk.json {
        context.talk.json(&serde_json::json!({ "stream": stream, "version": done.last, "id": id.to_string() }))?;
    } else {
        context.talk.data(&format!("{stream} is at version {}", done.last));
    }
    Ok(Exit::Done)
}
