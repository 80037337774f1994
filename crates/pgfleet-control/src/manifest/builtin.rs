//! Modules that pgfleet brings itself, so that a manifest need only name them.

use std::path::PathBuf;

use super::model::Module;

/// A module whose files are in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Messages that a service publishes in its own transactions.
    Outbox,
    /// What a service has received and handled.
    Inbox,
    /// Streams and queues.
    EventStreaming,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbox, Self::Inbox, Self::EventStreaming];

    /// Returns the module of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == name)
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Inbox => "inbox",
            Self::EventStreaming => "event_streaming",
        }
    }

    /// Returns the schema of its tables when the manifest names none; none is the service's own.
    pub fn schema(self) -> Option<&'static str> {
        match self {
            Self::Outbox | Self::Inbox => None,
            Self::EventStreaming => Some("event_streaming"),
        }
    }
}

impl Module {
    /// Makes a module of the program's own, as it is without a declaration.
    pub(crate) fn builtin(builtin: Builtin) -> Self {
        Self {
            name: builtin.name().to_owned(),
            migrations: PathBuf::new(),
            seeds: PathBuf::new(),
            layout: None,
            schema: builtin.schema().map(str::to_owned),
            history: None,
            connection: None,
            builtin: Some(builtin),
        }
    }
}
