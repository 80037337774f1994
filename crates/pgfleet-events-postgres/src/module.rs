//! The migration sets of the modules `event_streaming`, `outbox` and `inbox`.

use std::path::{Path, PathBuf};

use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::{Error, Set};

/// The name of the module, and by default of its schema.
pub const EVENT_STREAMING: &str = "event_streaming";

/// A file of a set: its name and its text.
type File = (&'static str, &'static str);

const EVENT_STREAMING_FILES: &[File] = &[
    ("001_streams.sql", include_str!("../migrations/event_streaming/001_streams.sql")),
    ("002_queues.sql", include_str!("../migrations/event_streaming/002_queues.sql")),
    ("003_retention_policies.sql", include_str!("../migrations/event_streaming/003_retention_policies.sql")),
    ("004_stream_configurations.sql", include_str!("../migrations/event_streaming/004_stream_configurations.sql")),
    ("005_rights.sql", include_str!("../migrations/event_streaming/005_rights.sql")),
    ("006_keeper.sql", include_str!("../migrations/event_streaming/006_keeper.sql")),
    ("007_wake.sql", include_str!("../migrations/event_streaming/007_wake.sql")),
    ("008_queue_put.sql", include_str!("../migrations/event_streaming/008_queue_put.sql")),
    ("009_queue_messages.sql", include_str!("../migrations/event_streaming/009_queue_messages.sql")),
    ("010_queue_take_keyed.sql", include_str!("../migrations/event_streaming/010_queue_take_keyed.sql")),
    ("011_queue_take.sql", include_str!("../migrations/event_streaming/011_queue_take.sql")),
    ("012_queue_settle.sql", include_str!("../migrations/event_streaming/012_queue_settle.sql")),
    ("013_queue_sweep.sql", include_str!("../migrations/event_streaming/013_queue_sweep.sql")),
    ("014_queue_redrive.sql", include_str!("../migrations/event_streaming/014_queue_redrive.sql")),
    ("015_queue_rotate.sql", include_str!("../migrations/event_streaming/015_queue_rotate.sql")),
    ("016_queue_seal.sql", include_str!("../migrations/event_streaming/016_queue_seal.sql")),
];

const OUTBOX_FILES: &[File] = &[
    ("1_outbox.sql", include_str!("../migrations/outbox/1_outbox.sql")),
    ("2_rotate.sql", include_str!("../migrations/outbox/2_rotate.sql")),
];

const INBOX_FILES: &[File] = &[("1_inbox.sql", include_str!("../migrations/inbox/1_inbox.sql"))];

/// Makes the set of streams and queues; its tables are in `schema`, its history is `<schema>.schema_version`.
///
/// # Errors
///
/// None for the files as they are.
pub fn event_streaming(schema: &str) -> Result<Set, Error> {
    let mut set = set(EVENT_STREAMING, EVENT_STREAMING_FILES)?;
    set.history = HistoryTable::at(EVENT_STREAMING, schema, "schema_version");
    set.schema = Some(schema.to_owned());
    set.placeholders.insert("schema".to_owned(), schema.to_owned());
    Ok(set)
}

/// Makes the set of the outbox; its tables are in the schema of the service that uses it.
///
/// # Errors
///
/// None for the files as they are.
pub fn outbox() -> Result<Set, Error> {
    set("outbox", OUTBOX_FILES)
}

/// Makes the set of the inbox; its tables are in the schema of the service that uses it.
///
/// # Errors
///
/// None for the files as they are.
pub fn inbox() -> Result<Set, Error> {
    set("inbox", INBOX_FILES)
}

fn set(name: &str, files: &[File]) -> Result<Set, Error> {
    let files = files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect();
    Set::from_files(name, Path::new(name), files, None)
}
