//! Settings that are one word of a closed list.

macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? })+) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            pub(super) const WORDS: &'static [&'static str] = &[$($word),+];

            /// Returns the word as the manifest writes it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The schema admits no other word, so none is an invalid value that was reported already.
            pub(super) fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    )+ };
}

words! {
    /// Whether a service may reach another service's database.
    Isolation {
        /// Never.
        Strict = "strict",
        /// Only what `uses` declares.
        Declared = "declared",
    }

    /// Whether a service has data in tenant databases.
    TenantUse {
        /// Host data only.
        None = "none",
        /// Data of its own in every tenant database.
        Own = "own",
    }

    /// How many databases a tenant has.
    TenantDatabases {
        /// One, with a schema per service.
        One = "one",
        /// One per service.
        PerService = "per-service",
    }

    /// On which server a new tenant is placed.
    Placement {
        /// The one with the fewest databases.
        FewestDatabases = "fewest-databases",
        /// The one with the fewest bytes.
        MostRoom = "most-room",
        /// By the servers' weights.
        Weighted = "weighted",
        /// The one that is named.
        Pinned = "pinned",
    }

    /// Which errors let a run be tried again.
    RetryOn {
        /// Those that can pass: connection, lock, deadlock, serialization.
        Transient = "transient",
        /// All.
        Any = "any",
    }

    /// When a commit of a migration waits for the disk.
    Durability {
        /// Once, at the end of the run.
        Run = "run",
        /// At each migration.
        Each = "each",
    }

    /// How an index is built that a file without a transaction says to build concurrently.
    Concurrently {
        /// As the file says.
        AsWritten = "as-written",
        /// Without `CONCURRENTLY` on a table that has no row.
        PlainWhenEmpty = "plain-when-empty",
    }

    /// What happens when an applied migration's file was edited.
    OnChanged {
        /// The run ends before anything is applied.
        Error = "error",
        /// A warning.
        Warn = "warn",
    }

    /// What happens when an applied migration below the newest known one has no file.
    OnMissing {
        /// The run ends before anything is applied.
        Error = "error",
        /// A warning.
        Warn = "warn",
    }

    /// What happens when a database is ahead of the newest migration known here.
    OnAhead {
        /// The service runs: an old replica in a rolling deployment.
        Run = "run",
        /// The run ends.
        Error = "error",
    }

    /// What happens to a pending migration below the newest applied one.
    OnOutOfOrder {
        /// The run ends before anything is applied.
        Error = "error",
        /// It is applied.
        Apply = "apply",
    }

    /// What carries messages between services.
    Broker {
        /// A bus database on PostgreSQL.
        Postgres = "postgres",
        /// RabbitMQ.
        Rabbitmq = "rabbitmq",
        /// NATS JetStream.
        Nats = "nats",
        /// The program itself.
        InProcess = "in-process",
    }

    /// Where streams and queues are kept.
    StreamPlace {
        /// In the service's database.
        Postgres = "postgres",
        /// In the memory of its program.
        Memory = "memory",
    }

    /// What carries the messages by which tenants follow their services.
    ChainTransport {
        /// The table in the control database.
        Table = "table",
        /// The broker that carries the services' messages.
        Broker = "broker",
    }
}
