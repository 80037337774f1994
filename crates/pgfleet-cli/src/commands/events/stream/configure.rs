//! What is configured for a stream or a queue.

use std::time::Duration;

use pgfleet_control::events::{ConfigShown, Store};
use pgfleet_control::roles::Login;
use pgfleet_events::{ConfigStore, Retention, StreamConfig, StreamKind};

use super::MODULE;
use crate::args::{Keeping, StreamConfigure};
use crate::commands::events::told;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

pub(super) async fn run(context: &Context, arguments: StreamConfigure) -> Result<Exit, CommandError> {
    let place = &arguments.place;
    // An index is the owner's to make.
    let login = if arguments.index_data.is_some() { Login::Migrator } else { Login::App };
    let solution = context.open().await?;
    let found = solution.event_database_as(MODULE, place.service.as_deref(), place.tenant.as_deref(), login).await?;
    let store = found.store();
    let Some(name) = arguments.name.clone() else {
        if changes(&arguments) {
            return Err(CommandError::new(Exit::Usage, "nothing is named that could be configured")
                .hinted("name a stream, or a queue with --queue"));
        }
        let all = store.configs().await.map_err(|error| told(&error))?;
        print(context, &all.iter().map(ConfigShown::from).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    };
    let kind = if arguments.queue { StreamKind::Queue } else { StreamKind::Stream };
    if arguments.default {
        if changes(&arguments) {
            return Err(CommandError::new(Exit::Usage, "--default takes all settings back: it goes with none"));
        }
        store.unconfigure(&name, kind).await.map_err(|error| told(&error))?;
    } else if changes(&arguments) {
        set(&store, &name, kind, &arguments).await?;
    }
    let config = store.config(&name, kind).await.map_err(|error| told(&error))?;
    print(context, &[ConfigShown::from(&config)])?;
    Ok(Exit::Done)
}

fn changes(arguments: &StreamConfigure) -> bool {
    let of = arguments;
    keeps(&of.keeping)
        || of.max_attempts.is_some()
        || of.visibility.is_some()
        || of.dedup_window.is_some()
        || of.park_keys.is_some()
        || of.max_length.is_some()
        || of.keep_dead.is_some()
        || of.index_data.is_some()
        || of.closed.is_some()
}

pub(super) fn keeps(keeping: &Keeping) -> bool {
    keeping.max_age.is_some() || keeping.max_count.is_some() || keeping.max_bytes.is_some()
}

/// Lays what was given over what holds; none is set back to being without a limit by 0.
pub(super) fn laid_over(keeping: &Keeping, retention: Retention) -> Retention {
    let number = |given: Option<u64>, known: Option<u64>| given.map_or(known, |given| (given > 0).then_some(given));
    Retention {
        max_age: keeping.max_age.map_or(retention.max_age, |age| (age > Duration::ZERO).then_some(age)),
        max_count: number(keeping.max_count, retention.max_count),
        max_bytes: number(keeping.max_bytes, retention.max_bytes),
    }
}

async fn set(store: &Store, name: &str, kind: StreamKind, given: &StreamConfigure) -> Result<(), CommandError> {
    // What holds for a name may come from a pattern: it becomes the name's own.
    let known = store.config(name, kind).await.map_err(|error| told(&error))?;
    let config = StreamConfig {
        name: name.into(),
        kind,
        max_attempts: given.max_attempts.unwrap_or(known.max_attempts),
        visibility: given.visibility.unwrap_or(known.visibility),
        dedup_window: given.dedup_window.unwrap_or(known.dedup_window),
        park_keys: given.park_keys.unwrap_or(known.park_keys),
        max_length: given.max_length.unwrap_or(known.max_length),
        keep_dead: given.keep_dead.unwrap_or(known.keep_dead),
        retention: laid_over(&given.keeping, known.retention),
        index_data: given.index_data.unwrap_or(known.index_data),
        closed: given.closed.unwrap_or(known.closed),
    };
    store.configure(&config).await.map_err(|error| told(&error))
}

fn print(context: &Context, configs: &[ConfigShown]) -> Result<(), CommandError> {
    if context.talk.json {
        return context.talk.json(&configs);
    }
    let mut table = Talk::table(&["name", "kind", "settings"]);
    for config in configs {
        let settings = if config.kind == "queue" { queue(config) } else { kept(config) };
        table.add_row([config.name.clone(), config.kind.to_owned(), settings]);
    }
    context.talk.print_table(&table);
    Ok(())
}

fn time(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis}ms"),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// Renders what is removed of a stream.
pub(super) fn kept(config: &ConfigShown) -> String {
    let mut text = limits(config.retention.max_age_ms, config.retention.max_count, config.retention.max_bytes);
    if config.index_data {
        text.push_str(", data is indexed");
    }
    if config.closed {
        text.push_str(", closed");
    }
    text
}

pub(super) fn limits(age: Option<u64>, count: Option<u64>, bytes: Option<u64>) -> String {
    let age = age.map(|age| format!("older than {}", time(age)));
    let count = count.map(|count| format!("more than {count}"));
    let bytes = bytes.map(|bytes| format!("more than {bytes} bytes"));
    let limits: Vec<String> = [age, count, bytes].into_iter().flatten().collect();
    if limits.is_empty() { "kept for good".to_owned() } else { format!("removed: {}", limits.join(", ")) }
}

fn queue(config: &ConfigShown) -> String {
    let mut text = match config.max_attempts {
        0 => "delivered without end".to_owned(),
        most => format!("at most {most} deliveries"),
    };
    text.push_str(&format!(" of {}, ids known for {}", time(config.visibility_ms), time(config.dedup_window_ms)));
    if config.max_length > 0 {
        text.push_str(&format!(", at most {} messages", config.max_length));
    }
    if !config.park_keys {
        text.push_str(", keys go on behind dead letters");
    }
    match config.keep_dead_ms {
        0 => text.push_str(", dead letters kept for good"),
        kept => text.push_str(&format!(", dead letters kept for {}", time(kept))),
    }
    if config.closed {
        text.push_str(", closed");
    }
    text
}
