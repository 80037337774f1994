//! Streams, queues, outboxes and inboxes from the command line.

pub(super) mod inbox;
pub(super) mod outbox;
pub(super) mod queue;
pub(super) mod stream;

use std::io::Read as _;
use std::time::Duration;

use pgfleet_control::events::{EventDatabase, Held};
use pgfleet_control::manifest::Builtin;
use pgfleet_events::{Error as EventError, ErrorKind, Json, Redrive};

use crate::args::{Where, Which};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{counted, human};

/// How many transactions something may be behind before it is worth saying that it keeps old rows.
const HELD_WORTH_SAYING: i64 = 10_000;

/// Finds the database that is meant.
async fn database(context: &Context, module: Builtin, place: &Where) -> Result<EventDatabase, CommandError> {
    let solution = context.open().await?;
    Ok(solution.event_database(module, place.service.as_deref(), place.tenant.as_deref()).await?)
}

/// What a store says, as the user is told it.
fn told(error: &EventError) -> CommandError {
    let mut own = CommandError::from(pgfleet_control::events::failed(error));
    if error.kind() == ErrorKind::Invalid {
        own.exit = Exit::Usage;
    }
    own
}

/// Reads JSON from an argument, standard input or a file.
fn json(text: &str) -> Result<Json, CommandError> {
    let unreadable =
        |error: std::io::Error| CommandError::new(Exit::Configuration, "cannot read --data").cause(error.to_string());
    let read = match (text, text.strip_prefix('@')) {
        ("-", _) => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).map_err(unreadable)?;
            read
        }
        (_, Some(file)) => std::fs::read_to_string(file).map_err(unreadable)?,
        _ => text.to_owned(),
    };
    Json::parse(read.trim()).map_err(|error| told(&error))
}

fn which(which: &Which) -> Redrive {
    match (&which.key, &which.id[..]) {
        (Some(key), _) => Redrive::Key(key.as_str().into()),
        (None, []) => Redrive::All,
        (None, ids) => Redrive::Ids(ids.to_vec()),
    }
}

/// Renders how old something is.
fn age(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| human(Duration::from_millis(millis)))
}

fn optional(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Says what keeps old rows on the server, when it has done so for long.
fn say_held(context: &Context, held: &[Held]) {
    let Some(first) = held.first().filter(|held| held.transactions >= HELD_WORTH_SAYING) else { return };
    let since = first.since_ms.map(|since| format!(", for {}", age(Some(since)))).unwrap_or_default();
    let behind = counted(usize::try_from(first.transactions).unwrap_or(usize::MAX), "transaction");
    context
        .talk
        .note(&format!("old rows are kept on the server by a {} ({}), {behind} behind{since}", first.kind, first.who));
}
