//! What can be typed about streams, queues, outboxes and inboxes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::duration;

/// Which database is meant.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The service whose database it is; without it, the only one that has the module
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// The database of this tenant instead of the service's own
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamVerb {
    /// List streams, and how far groups have come
    #[command(after_help = "Examples:\n  pgfleet stream list\n  pgfleet stream list --prefix order- --limit 20")]
    List {
        #[command(flatten)]
        place: Where,
        /// Only streams whose names begin so
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
    },
    /// Show a stream: its length, its first and last event, what is configured
    #[command(after_help = "Example:\n  pgfleet stream show order-1")]
    Show {
        /// The stream
        stream: String,
        #[command(flatten)]
        place: Where,
    },
    /// Print events, one a line
    #[command(
        after_help = "Examples:\n  pgfleet stream read order-1\n  pgfleet stream read order-1 --backward --limit 10\n  pgfleet stream read --all --type SeatBooked --since 2026-01-31T14:00:00Z\n  pgfleet stream read --all --follow --json\n\nWith --json each line is a document. --follow goes on with what is appended, until Ctrl-C."
    )]
    Read(StreamRead),
    /// Append an event
    #[command(
        after_help = "Examples:\n  pgfleet stream append order-1 --type SeatBooked --data '{\"seat\": 12}'\n  pgfleet stream append order-1 --type SeatBooked --data - --expected 3 < event.json"
    )]
    Append {
        /// The stream
        stream: String,
        #[command(flatten)]
        place: Where,
        /// The name of the event's type
        #[arg(long = "type", value_name = "NAME")]
        kind: String,
        /// What it says, as JSON; `-` for standard input
        #[arg(long, value_name = "JSON", default_value = "null")]
        data: String,
        /// The version that the stream must have; 0: it must not exist
        #[arg(long, value_name = "VERSION")]
        expected: Option<u64>,
        /// What a whole piece of business has in common
        #[arg(long, value_name = "ID")]
        correlation: Option<String>,
    },
    /// Put events into a queue, or have a group read them again
    #[command(
        after_help = "Examples:\n  pgfleet stream replay --all --type SeatBooked --to-queue rebuild --rate 500\n  pgfleet stream replay order-1 --from 10 --to-queue rebuild\n  pgfleet stream replay --all --since 2026-01-31 --group billing\n\nWith --to-queue each event becomes a message, with its stream as the key. With --group the group's\nconsumers read again from there; nothing is copied."
    )]
    Replay(StreamReplay),
    /// Show or set what is configured for a stream or a queue
    #[command(
        after_help = "Examples:\n  pgfleet stream configure order-* --max-age 90d\n  pgfleet stream configure mails --queue --max-attempts 10 --visibility 1m\n  pgfleet stream configure mails --queue --default\n\nWithout settings it is shown. For streams a * at the end stands for all that begin so."
    )]
    Configure(StreamConfigure),
    /// List, set or run retention policies
    #[command(
        after_help = "Examples:\n  pgfleet stream retention\n  pgfleet stream retention old-orders --streams 'order-*' --max-age 90d\n  pgfleet stream retention old-orders --remove\n  pgfleet stream retention --run\n\nWithout --run they are applied by the services' own workers."
    )]
    Retention(StreamRetention),
}

#[derive(Debug, Args)]
pub(crate) struct EventFilter {
    /// The stream
    #[arg(required_unless_present = "all")]
    pub(crate) stream: Option<String>,
    /// All streams, in their common order
    #[arg(long, conflicts_with = "stream")]
    pub(crate) all: bool,
    /// From this version of the stream on, or behind this position of all (12-3456)
    #[arg(long, value_name = "PLACE")]
    pub(crate) from: Option<String>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "NAME")]
    pub(crate) kind: Vec<String>,
    /// Only events with this correlation id
    #[arg(long, value_name = "ID")]
    pub(crate) correlation: Option<String>,
    /// Only events appended at this time or later
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<pgfleet_events::Moment>,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct StreamRead {
    #[command(flatten)]
    pub(crate) filter: EventFilter,
    #[command(flatten)]
    pub(crate) place: Where,
    /// From new to old
    #[arg(long, conflicts_with_all = ["follow", "all"])]
    pub(crate) backward: bool,
    /// Go on with what is appended
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[group(id = "goal", required = true, multiple = false, args = ["to_queue", "group"])]
pub(crate) struct StreamReplay {
    #[command(flatten)]
    pub(crate) filter: EventFilter,
    #[command(flatten)]
    pub(crate) place: Where,
    /// Put each event into this queue
    #[arg(long, value_name = "QUEUE")]
    pub(crate) to_queue: Option<String>,
    /// At most so many a second
    #[arg(long, value_name = "N", requires = "to_queue", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Have this group read again; of all streams only
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["stream", "kind", "correlation", "limit"])]
    pub(crate) group: Option<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "they are flags: --max-age, --max-count, --max-bytes")]
pub(crate) struct Keeping {
    /// Remove events older than this
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_age: Option<Duration>,
    /// Keep at most so many events in each stream
    #[arg(long, value_name = "N")]
    pub(crate) max_count: Option<u64>,
    /// Keep at most so many bytes in each stream
    #[arg(long, value_name = "N")]
    pub(crate) max_bytes: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct StreamConfigure {
    /// The stream or queue; without it, all that is configured
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) place: Where,
    /// A queue instead of a stream
    #[arg(long)]
    pub(crate) queue: bool,
    /// Go back to the defaults
    #[arg(long, requires = "name")]
    pub(crate) default: bool,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
    /// Queues: deliver a message at most so often; 0: without end
    #[arg(long, value_name = "N", requires = "queue")]
    pub(crate) max_attempts: Option<u32>,
    /// Queues: how long a delivery may take
    #[arg(long, value_name = "TIME", requires = "queue", value_parser = duration)]
    pub(crate) visibility: Option<Duration>,
    /// Queues: how long ids are remembered that must not come twice
    #[arg(long, value_name = "TIME", requires = "queue", value_parser = duration)]
    pub(crate) dedup_window: Option<Duration>,
    /// Queues: whether messages wait behind a dead letter of their key
    #[arg(long, value_name = "BOOL", requires = "queue")]
    pub(crate) park_keys: Option<bool>,
    /// Queues: the most messages that may wait; 0: without end
    #[arg(long, value_name = "N", requires = "queue")]
    pub(crate) max_length: Option<u64>,
    /// Queues: how long dead letters are kept
    #[arg(long, value_name = "TIME", requires = "queue", value_parser = duration)]
    pub(crate) keep_dead: Option<Duration>,
    /// Streams: whether the JSON of events is indexed
    #[arg(long, value_name = "BOOL", conflicts_with = "queue")]
    pub(crate) index_data: Option<bool>,
    /// Whether it is closed for what is new
    #[arg(long, value_name = "BOOL")]
    pub(crate) closed: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct StreamRetention {
    /// The policy; without it, all are listed
    pub(crate) policy: Option<String>,
    #[command(flatten)]
    pub(crate) place: Where,
    /// The streams that it holds for: a name, or the beginning of names with a *
    #[arg(long, value_name = "NAMES", requires = "policy")]
    pub(crate) streams: Option<String>,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
    /// Whether it is in force
    #[arg(long, value_name = "BOOL", requires = "policy")]
    pub(crate) enabled: Option<bool>,
    /// Remove the policy
    #[arg(long, requires = "policy", conflicts_with_all = ["streams", "max_age", "max_count", "max_bytes", "enabled"])]
    pub(crate) remove: bool,
    /// Remove now what policies and configurations say
    #[arg(long, conflicts_with_all = ["policy", "max_age", "max_count", "max_bytes"])]
    pub(crate) run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueVerb {
    /// List queues: what is ready, delayed, with somebody, given up
    #[command(after_help = "Example:\n  pgfleet queue list")]
    List {
        #[command(flatten)]
        place: Where,
    },
    /// Put a message into a queue
    #[command(
        after_help = "Examples:\n  pgfleet queue enqueue mails --type Mail --data '{\"to\": \"ann@example.org\"}'\n  pgfleet queue enqueue mails --type Mail --data @mail.json --key ann --delay 10m"
    )]
    Enqueue {
        /// The queue; it is made when it does not exist
        queue: String,
        #[command(flatten)]
        place: Where,
        /// The name of the message's type
        #[arg(long = "type", value_name = "NAME")]
        kind: String,
        /// What it says, as JSON; `-` for standard input, @FILE for a file
        #[arg(long, value_name = "JSON", default_value = "null", value_hint = ValueHint::Other)]
        data: String,
        /// Messages of one key are handled in order
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Higher ones are handed out earlier
        #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
        priority: i16,
        /// How long it waits
        #[arg(long, value_name = "TIME", value_parser = duration)]
        delay: Option<Duration>,
        /// A second message of this id is not put in
        #[arg(long, value_name = "ID")]
        dedup_id: Option<String>,
    },
    /// Show the next messages, and those that somebody has, without taking any
    #[command(after_help = "Example:\n  pgfleet queue peek mails --limit 5")]
    Peek {
        /// The queue
        queue: String,
        #[command(flatten)]
        place: Where,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
    },
    /// Show messages that were given up, and why
    #[command(after_help = "Example:\n  pgfleet queue dead-letters mails")]
    DeadLetters {
        /// The queue
        queue: String,
        #[command(flatten)]
        place: Where,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Put dead letters back into their queue, in order
    #[command(
        after_help = "Examples:\n  pgfleet queue redrive mails\n  pgfleet queue redrive mails --key ann\n  pgfleet queue redrive mails --id 0192c5f8-9d5c-7a1e-8000-000000000001"
    )]
    Redrive {
        /// The queue
        queue: String,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        which: Which,
    },
    /// Remove all messages that nobody has
    #[command(after_help = "Examples:\n  pgfleet queue purge mails\n  pgfleet queue purge mails --dead --yes")]
    Purge {
        /// The queue
        queue: String,
        #[command(flatten)]
        place: Where,
        /// Only the dead letters
        #[arg(long)]
        dead: bool,
    },
}

/// Which dead letters; all when none are named.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only those of this key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Only this one; may be given several times
    #[arg(long, value_name = "ID", conflicts_with = "key")]
    pub(crate) id: Vec<uuid::Uuid>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxVerb {
    /// Show what waits, what was put aside and why
    #[command(after_help = "Examples:\n  pgfleet outbox status\n  pgfleet outbox status --service trip --tenant acme")]
    Status {
        #[command(flatten)]
        place: Where,
    },
    /// Have messages published again that were given up
    #[command(after_help = "Examples:\n  pgfleet outbox retry\n  pgfleet outbox retry --service trip --key trip-12")]
    Retry {
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum InboxVerb {
    /// Show what was put aside and why
    #[command(after_help = "Examples:\n  pgfleet inbox status\n  pgfleet inbox status --service notices --tenant acme")]
    Status {
        #[command(flatten)]
        place: Where,
        /// Who consumes; the service itself when not named
        #[arg(long, value_name = "NAME")]
        consumer: Option<String>,
    },
}
