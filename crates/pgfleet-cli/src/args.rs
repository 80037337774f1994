//! What can be typed: nouns, verbs, flags and their help. No logic.

mod events;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

pub(crate) use events::{
    EventFilter, InboxVerb, Keeping, OutboxVerb, QueueVerb, StreamConfigure, StreamRead, StreamReplay, StreamRetention,
    StreamVerb, Where, Which,
};

/// Runs the PostgreSQL databases of a microservice system as one fleet.
#[derive(Debug, Parser)]
#[command(
    name = "pgfleet",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  pgfleet init --template masar   write an example solution\n  pgfleet up                      start PostgreSQL, make the databases, migrate, seed\n  pgfleet status                  see where every database stands\n\nExit codes: 0 done, 1 work failed, 2 usage, 3 configuration, 4 server unreachable,\n            5 findings (pending with --check, isolation), 130 interrupted"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Environment: lays pgfleet.NAME.toml over the manifest
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// The manifest; without it, pgfleet.toml here or in a folder above
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Wait for servers that do not answer yet (30 tries, 5 s apart, by default)
    #[arg(long, global = true)]
    pub(crate) wait: bool,
    /// Answer yes to questions
    #[arg(long, short = 'y', global = true)]
    pub(crate) yes: bool,
    /// Say more; twice for everything
    #[arg(long, short = 'v', global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say only what failed
    #[arg(long, short = 'q', global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a new solution, or an example to try
    #[command(after_help = "Examples:\n  pgfleet init\n  pgfleet init --template masar shop")]
    Init(Init),
    /// Start the local PostgreSQL, provision, migrate, seed, and run the services
    #[command(
        after_help = "Examples:\n  pgfleet up\n  pgfleet up --detach\n\nServices with `run` in the manifest are started with their connection strings in the environment.\nWithout --detach `up` stays with them: Ctrl-C stops them. The server keeps running; `pgfleet down`\nstops it. Running `up` again changes nothing that is right."
    )]
    Up(Up),
    /// Run services without a terminal; started by `up --detach`
    #[command(hide = true)]
    Supervise,
    /// Stop the services and the local PostgreSQL; the data stays
    #[command(after_help = "Example:\n  pgfleet down\n\nTo undo a migration: pgfleet revert")]
    Down,
    /// Make roles, databases and rights what the manifest says
    #[command(
        after_help = "Examples:\n  pgfleet provision\n  pgfleet provision --dry-run                 # print the statements\n  pgfleet provision --rotate trip             # a new password; the old one goes on working\n  pgfleet provision --rotate trip --finish    # the old one works no more"
    )]
    Provision(Provision),
    /// Show the effective configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Apply pending migrations, then seeds
    #[command(
        after_help = "Examples:\n  pgfleet migrate\n  pgfleet migrate --service trip --to 202501070002\n  pgfleet migrate --check                       # in CI: exit 5 unless everything is applied\n  pgfleet migrate --bundle shop.bundle          # what was packed, instead of the folders\n  pgfleet migrate --canary 5 --concurrency 8\n  pgfleet migrate --url postgresql://localhost/shop --dir migrations\n\nDatabases of tenants are brought to head by a rollout, which others can join and which goes on after\nanything: see `pgfleet rollout`. With --url one database is migrated from one folder, without a manifest."
    )]
    Migrate(Migrate),
    /// Pack all migrations into one file, to be rolled out elsewhere
    #[command(
        after_help = "Examples:\n  pgfleet bundle --output shop.bundle\n  pgfleet migrate --bundle shop.bundle      # where the folders are not\n\nNeeds no server. Values of seed properties and placeholders are not packed: they come from the\nmanifest where the bundle is used."
    )]
    Bundle(Bundle),
    /// Show rollouts over tenants' databases, stop them and have them go on
    Rollout {
        #[command(subcommand)]
        verb: RolloutVerb,
    },
    /// Show where every database stands
    #[command(
        after_help = "Examples:\n  pgfleet status\n  pgfleet status --service trip\n  pgfleet status --pending --check"
    )]
    Status(Status),
    /// Undo migrations, newest first
    #[command(
        after_help = "Examples:\n  pgfleet revert --service trip --steps 1\n  pgfleet revert --service trip --to 202501070002\n  pgfleet revert --service trip --to 0          # everything\n  pgfleet revert --service trip --tenant acme --steps 1\n  pgfleet revert --service trip --rollout 7     # what rollout 7 applied, wherever it did"
    )]
    Revert(Revert),
    /// Run seeds that are new or changed
    #[command(
        after_help = "Examples:\n  pgfleet seed\n  pgfleet seed --service user --property admin_email=me@example.org"
    )]
    Seed(Seed),
    /// Make a new migration, mend one that stopped, correct the history
    Migration {
        #[command(subcommand)]
        verb: MigrationVerb,
    },
    /// Open psql on a service's database
    #[command(
        after_help = "Examples:\n  pgfleet psql trip\n  pgfleet psql trip --role readonly -- -c 'select * from trips'"
    )]
    Psql(Psql),
    /// Prove that services cannot reach each other's databases
    Isolation {
        #[command(subcommand)]
        verb: IsolationVerb,
    },
    /// Make tenants, and say where their data is
    Tenant {
        #[command(subcommand)]
        verb: TenantVerb,
    },
    /// Say where connections go, and try them
    Connection {
        #[command(subcommand)]
        verb: ConnectionVerb,
    },
    /// Read and append events, replay them, say what is kept
    Stream {
        #[command(subcommand)]
        verb: StreamVerb,
    },
    /// Look at queues, put messages in, redrive dead letters
    Queue {
        #[command(subcommand)]
        verb: QueueVerb,
    },
    /// Look at messages that a service publishes, and have them tried again
    Outbox {
        #[command(subcommand)]
        verb: OutboxVerb,
    },
    /// Look at messages that a service has received
    Inbox {
        #[command(subcommand)]
        verb: InboxVerb,
    },
    /// Write the completion script of a shell
    #[command(after_help = "Example:\n  pgfleet completions bash > /etc/bash_completion.d/pgfleet")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder; the present one by default
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) folder: Option<PathBuf>,
    /// An example solution instead of an empty one
    #[arg(long, value_name = "NAME", value_parser = crate::commands::init::templates())]
    pub(crate) template: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Return when everything is up instead of staying with the services
    #[arg(long, short = 'd')]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Provision {
    /// Print the statements and run none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Give a service's role a new password; the old one goes on working
    #[arg(long, value_name = "SERVICE", conflicts_with = "dry_run")]
    pub(crate) rotate: Option<String>,
    /// With --rotate, the role: app, migrator or readonly
    #[arg(long, value_name = "ROLE", default_value = "app", value_parser = ["app", "readonly", "migrator"])]
    pub(crate) role: String,
    /// With --rotate, let the old password in no more
    #[arg(long, requires = "rotate")]
    pub(crate) finish: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// List every value
    #[command(after_help = "Examples:\n  pgfleet config show migrations\n  pgfleet config show --origin")]
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
        /// Only keys that begin with this
        prefix: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Only this service; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with_all = ["url", "dir"])]
    pub(crate) service: Vec<String>,
    /// Only the databases of this tenant; may be given several times
    #[arg(long, value_name = "TENANT", conflicts_with_all = ["url", "dir", "hosts_only"])]
    pub(crate) tenant: Vec<String>,
    /// Only the services' own databases, no tenants'
    #[arg(long)]
    pub(crate) hosts_only: bool,
    /// The migration set; its history is pgfleet.NAME_migrations
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// Apply nothing above this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
    /// Print what would run and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Exit with 5 when something is pending, edited or missing; change nothing
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) check: bool,
    /// Databases at a time; of tenants' on each server
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: Option<u32>,
    /// Tenants in the first wave; 0 begins with all of them
    #[arg(long, value_name = "N", conflicts_with_all = ["url", "dir", "hosts_only"])]
    pub(crate) canary: Option<u32>,
    /// Halt when more databases than this failed
    #[arg(long, value_name = "N", conflicts_with_all = ["url", "dir", "hosts_only"])]
    pub(crate) max_failures: Option<u32>,
    /// Look at every database of a tenant, whatever is known of it
    #[arg(long, conflicts_with_all = ["url", "dir", "hosts_only"])]
    pub(crate) recheck: bool,
    /// Give up when another run holds the lock for longer, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) lock_wait: Option<u64>,
    /// CREATE INDEX CONCURRENTLY in files without a transaction: as-written, or plain-when-empty
    #[arg(long, value_name = "HOW", hide_possible_values = true, value_parser = ["as-written", "plain-when-empty"])]
    pub(crate) concurrently: Option<String>,
    /// One database: its connection string (without it, PGFLEET_URL)
    #[arg(long, value_name = "URL", requires = "dir")]
    pub(crate) url: Option<String>,
    /// One database: the folder of its migrations
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// How the files in --dir are laid out, when it cannot be recognised
    #[arg(long, value_name = "LAYOUT", requires = "dir")]
    pub(crate) layout: Option<String>,
    /// Take migrations and seeds from this file of `pgfleet bundle` instead of from the folders
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["url", "dir"])]
    pub(crate) bundle: Option<PathBuf>,
    /// A seed property, NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) property: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// Write it to this file; without it, to standard output
    #[arg(long, short = 'o', value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Only this service, with its modules; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutVerb {
    /// List rollouts, the newest first
    #[command(after_help = "Example:\n  pgfleet rollout list")]
    List,
    /// Show how far a rollout is, and what failed
    #[command(after_help = "Example:\n  pgfleet rollout show 7")]
    Show {
        /// Its number
        rollout: i64,
    },
    /// Take nothing more; what runs is finished
    #[command(after_help = "Example:\n  pgfleet rollout pause 7")]
    Pause {
        /// Its number
        rollout: i64,
    },
    /// Have a rollout go on, and work on it here; what failed so far stays failed
    #[command(after_help = "Examples:\n  pgfleet rollout resume 7\n  pgfleet rollout resume 7 --max-failures 20")]
    Resume(RolloutGo),
    /// Try again what failed, go on, and work on it here
    #[command(after_help = "Example:\n  pgfleet rollout retry 7")]
    Retry(RolloutGo),
    /// End a rollout: what runs is finished, and nothing is undone
    #[command(
        after_help = "Example:\n  pgfleet rollout cancel 7\n\nTo undo what it applied: pgfleet revert --service S --rollout 7"
    )]
    Cancel {
        /// Its number
        rollout: i64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RolloutGo {
    /// Its number
    pub(crate) rollout: i64,
    /// From now on so many databases of each server at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: Option<u32>,
    /// From now on halt when more databases than this failed
    #[arg(long, value_name = "N")]
    pub(crate) max_failures: Option<u32>,
    /// A seed property that it began with, NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) property: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this service, with every migration; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Vec<String>,
    /// Only the databases of this tenant, each in a row; may be given several times
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Vec<String>,
    /// Only databases where something is pending
    #[arg(long)]
    pub(crate) pending: bool,
    /// Only databases that failed or could not be asked
    #[arg(long)]
    pub(crate) failed: bool,
    /// Exit with 5 unless every database is current
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
#[group(id = "goal", required = true, multiple = false)]
pub(crate) struct RevertGoal {
    /// Undo so many migrations
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: Option<u32>,
    /// Undo everything above this version; 0 undoes everything
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
    /// Undo what this rollout applied, in every database
    #[arg(long, value_name = "ROLLOUT", conflicts_with_all = ["tenant", "url", "set", "dry_run"])]
    pub(crate) rollout: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct Revert {
    /// The service
    #[arg(long, value_name = "NAME", required_unless_present = "url")]
    pub(crate) service: Option<String>,
    /// In this tenant's database instead of the service's own
    #[arg(long, value_name = "TENANT", conflicts_with = "url")]
    pub(crate) tenant: Option<String>,
    #[command(flatten)]
    pub(crate) goal: RevertGoal,
    /// Print what would be undone and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// One database: its connection string
    #[arg(long, value_name = "URL", requires = "dir", conflicts_with = "service")]
    pub(crate) url: Option<String>,
    /// One database: the folder of its migrations
    #[arg(long, value_name = "FOLDER", requires = "url", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// The migration set; without it, the service's own
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Seed {
    /// Only this service; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Vec<String>,
    /// Run all seeds, also those that did not change
    #[arg(long)]
    pub(crate) always: bool,
    /// A seed property, NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) property: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrationVerb {
    /// Write an empty, correctly named migration with its way back
    #[command(after_help = "Example:\n  pgfleet migration new \"add rating to trips\" --service trip")]
    New {
        /// What it does: "add rating to trips"
        name: String,
        /// The service
        #[arg(long, value_name = "NAME")]
        service: String,
    },
    /// Go on with a file without a transaction at the statement that did not finish
    #[command(
        after_help = "Examples:\n  pgfleet migration resume 202501070002 --service trip\n  pgfleet migration resume 3 --url postgresql://localhost/shop --dir migrations\n\nAn INVALID index that the statement left behind is dropped first. What is pending behind the\nfile is left to `pgfleet migrate`."
    )]
    Resume(Repair),
    /// Forget that a file without a transaction stopped: the next run begins it again
    #[command(
        after_help = "Example:\n  pgfleet migration reset 202501070002 --service trip\n\nUndo by hand what its statements did, or make them bear running twice."
    )]
    Reset(Repair),
    /// Record a migration as applied without running it
    #[command(after_help = "Example:\n  pgfleet migration mark-applied 202501070002 --service trip")]
    MarkApplied(Repair),
    /// Remove the record of an applied migration without undoing it
    #[command(
        after_help = "Example:\n  pgfleet migration forget 202501070002 --service trip\n\nThe next run applies it again when it has a file. To undo it: pgfleet revert"
    )]
    Forget(Repair),
    /// Take the present file for what was applied
    #[command(
        after_help = "Example:\n  pgfleet migration accept 202501070002 --service trip\n\nShows how the two differ. The database itself is not changed."
    )]
    Accept(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The migration's version
    pub(crate) version: String,
    /// The service
    #[arg(long, value_name = "NAME", required_unless_present = "dir", conflicts_with_all = ["url", "dir"])]
    pub(crate) service: Option<String>,
    /// One database: its connection string (without it, PGFLEET_URL)
    #[arg(long, value_name = "URL", requires = "dir")]
    pub(crate) url: Option<String>,
    /// One database: the folder of its migrations
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// The migration set; without it, the service's own
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Psql {
    /// The service
    pub(crate) service: String,
    /// The role: app, readonly or migrator
    #[arg(long, value_name = "ROLE", default_value = "app", value_parser = ["app", "readonly", "migrator"])]
    pub(crate) role: String,
    /// Arguments for psql
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IsolationVerb {
    /// Try every service's roles on every database
    #[command(
        after_help = "Examples:\n  pgfleet isolation verify\n  pgfleet isolation verify --all   # each role's answer\n\nExits with 5 when something is open; `pgfleet provision` closes it."
    )]
    Verify {
        /// Show every role instead of one row per service, and try the logins of every tenant's database
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantVerb {
    /// Make a tenant, in databases of its own that are made for it
    #[command(
        after_help = "Examples:\n  pgfleet tenant create acme\n  pgfleet tenant create acme --property admin_email=owner@acme.example --property admin_password=-\n  pgfleet tenant create acme globex initech --server db2\n  pgfleet tenant create --from names.txt --concurrency 8\n  pgfleet tenant create acme --no-database         # lives in the services' own databases\n  pgfleet tenant create acme --connection dbname=acme\n  pgfleet tenant create acme --connection dbname=acme --connection trip=postgresql://db2.local/acme_trip\n\nOne that was left half-made is gone on with. What a string does not say (host, port, role, password, TLS) is\nas in the service's own. `-` takes a string or a property from the next line of standard input, `@FILE` from a\nfile, so that no password stands in the arguments."
    )]
    Create(TenantCreate),
    /// List the tenants
    #[command(
        after_help = "Examples:\n  pgfleet tenant list\n  pgfleet tenant list --state failed --state creating\n  pgfleet tenant list --server db2 --json"
    )]
    List(TenantList),
    /// Show one tenant and where its strings lead
    #[command(after_help = "Example:\n  pgfleet tenant show acme")]
    Show {
        /// The tenant
        tenant: String,
    },
    /// Give a tenant a connection string, or take one away
    #[command(
        after_help = "Examples:\n  pgfleet tenant set-connection acme dbname=acme\n  pgfleet tenant set-connection acme --service trip - < acme-trip.url\n  pgfleet tenant set-connection acme --service trip --unset\n\nThe string is tried before it is stored. A database that does not exist is made; then it is migrated and seeded.\nNo data is moved: `pgfleet tenant move` does that."
    )]
    SetConnection(SetConnection),
    /// Move a tenant's databases, with what is in them, to another server
    #[command(
        after_help = "Examples:\n  pgfleet tenant move acme --server db2\n  pgfleet tenant move acme --server db2 --service billing --keep 30d\n  pgfleet tenant move acme --status\n  pgfleet tenant move acme --back\n  pgfleet tenant move acme --cancel       # as long as nothing leads to the new database\n\nServices refuse the tenant, as one that is not ready, while its data is copied and compared. What stopped\nin the middle is gone on with by the same command."
    )]
    Move(TenantMove),
    /// List the closed databases from which tenants' databases are copied
    #[command(after_help = "Example:\n  pgfleet tenant templates")]
    Templates,
    /// Migrate and seed one tenant's databases; a half-made tenant is finished
    #[command(after_help = "Example:\n  pgfleet tenant migrate acme")]
    Migrate(TenantMigrate),
    /// Delete a tenant: close its databases, and drop them after a while
    #[command(
        after_help = "Examples:\n  pgfleet tenant delete acme\n  pgfleet tenant delete acme --keep 30d\n  pgfleet tenant delete acme --now --yes\n\nA database that was given by a connection string stays as it is."
    )]
    Delete(TenantDelete),
    /// Have a deleted tenant, or a database that another string replaced, back as long as it is there
    #[command(after_help = "Example:\n  pgfleet tenant restore acme")]
    Restore {
        /// The tenant
        tenant: String,
    },
    /// Find and mend half-made tenants, databases without a tenant, and what is due to be dropped
    #[command(
        after_help = "Examples:\n  pgfleet tenant mend --dry-run\n  pgfleet tenant mend\n  pgfleet tenant mend --close\n\nExits with 5 when something is left that only somebody can decide."
    )]
    Mend(TenantMend),
    /// Have services refuse a tenant; its data stays
    #[command(after_help = "Example:\n  pgfleet tenant disable acme")]
    Disable {
        /// The tenant
        tenant: String,
    },
    /// Have services serve a tenant again
    #[command(after_help = "Example:\n  pgfleet tenant enable acme")]
    Enable {
        /// The tenant
        tenant: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TenantMigrate {
    /// The tenant
    pub(crate) tenant: String,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["server", "back", "cancel", "status"])))]
pub(crate) struct TenantMove {
    /// The tenant
    pub(crate) tenant: String,
    /// The server of the manifest to which its databases go
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// Only the database with this service's data
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// How long the old database is kept closed, as 7d or 12h, instead of what `drop_after` says
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) keep: Option<std::time::Duration>,
    /// Take the last move back; what was written since goes along
    #[arg(long)]
    pub(crate) back: bool,
    /// Take back a move that nobody was led by yet
    #[arg(long)]
    pub(crate) cancel: bool,
    /// List the tenant's moves
    #[arg(long)]
    pub(crate) status: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TenantDelete {
    /// The tenant
    pub(crate) tenant: String,
    /// Drop its databases at once
    #[arg(long, conflicts_with = "keep")]
    pub(crate) now: bool,
    /// How long its databases are kept closed, as 7d or 12h, instead of what `drop_after` says
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) keep: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are bools")]
pub(crate) struct TenantMend {
    /// Only look
    #[arg(long, conflicts_with_all = ["close", "drop", "make"])]
    pub(crate) dry_run: bool,
    /// Close databases that are marked as a tenant's and that no tenant has, or no string leads to
    #[arg(long)]
    pub(crate) close: bool,
    /// Drop them, and templates that nothing needs any more
    #[arg(long)]
    pub(crate) drop: bool,
    /// Make databases again that are gone, empty but for their seeds
    #[arg(long)]
    pub(crate) make: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TenantList {
    /// Only those in this state; may be given several times
    #[arg(long, value_name = "STATE", value_parser = ["requested", "creating", "active", "disabled", "deleting", "quarantined", "failed"])]
    pub(crate) state: Vec<String>,
    /// Only those with a database of their own on this server
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TenantCreate {
    /// Its name: small letters, digits and hyphens; several make several tenants
    #[arg(required_unless_present = "from")]
    pub(crate) tenant: Vec<String>,
    /// A file with names, one a line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<std::path::PathBuf>,
    /// How many are made at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) concurrency: u32,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// Databases of its own for this service only; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Vec<String>,
    /// The server for its databases, instead of what `placement` says
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// A seed property, NAME=VALUE, NAME=- or NAME=@FILE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) property: Vec<String>,
    /// No database of its own: it lives in the services' own databases
    #[arg(long, conflicts_with_all = ["service", "server", "connection"])]
    pub(crate) no_database: bool,
    /// The default string of a database that exists, or NAME=STRING for a service or a connection name; may be given
    /// several times
    #[arg(long, value_name = "[NAME=]STRING", conflicts_with_all = ["service", "server"])]
    pub(crate) connection: Vec<String>,
    #[command(flatten)]
    pub(crate) how: StringChoices,
}

#[derive(Debug, Args)]
pub(crate) struct SetConnection {
    /// The tenant
    pub(crate) tenant: String,
    /// The connection string; `-` for standard input, @FILE for a file
    #[arg(required_unless_present = "unset")]
    pub(crate) string: Option<String>,
    /// A service or connection name instead of the default
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Take the string away: the next rule decides
    #[arg(long, conflicts_with_all = ["string", "no_check", "shared"])]
    pub(crate) unset: bool,
    /// Neither make the database when it does not exist, nor migrate and seed it
    #[arg(long)]
    pub(crate) no_make: bool,
    #[command(flatten)]
    pub(crate) how: StringChoices,
}

#[derive(Debug, Args)]
pub(crate) struct StringChoices {
    /// Store strings without trying them
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Take a database that is another tenant's, too
    #[arg(long)]
    pub(crate) shared: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionVerb {
    /// List every connection name of every service
    #[command(after_help = "Example:\n  pgfleet connection list --service trip")]
    List {
        /// Only this service; may be given several times
        #[arg(long, value_name = "NAME")]
        service: Vec<String>,
    },
    /// Show each rule that is tried for a connection, and the one that decides
    #[command(
        after_help = "Examples:\n  pgfleet connection explain --service trip --tenant acme\n  pgfleet connection explain --service identity --name AbpOpenIddict"
    )]
    Explain {
        /// The service that asks
        #[arg(long, value_name = "NAME")]
        service: String,
        /// For this tenant; without it, for the host
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// The connection name; without it, the service's own
        #[arg(long, value_name = "CONNECTION")]
        name: Option<String>,
    },
    /// Log in wherever connections lead
    #[command(
        after_help = "Examples:\n  pgfleet connection test\n  pgfleet connection test --service trip --tenant acme\n\nExits with 1 when a login fails, or leads to another database than the recorded one."
    )]
    Test {
        /// Only this service; may be given several times
        #[arg(long, value_name = "NAME")]
        service: Vec<String>,
        /// The strings of this tenant instead of the services' own databases; may be given several times
        #[arg(long, value_name = "TENANT")]
        tenant: Vec<String>,
    },
    /// Print the variables that a service is started with, for where `up` does not start it
    #[command(
        after_help = "Examples:\n  pgfleet connection env --service trip\n  pgfleet connection env --service trip --reveal > trip.env\n\nLines of NAME='value', as shells and env files have them. Without --reveal every value is ***."
    )]
    Env {
        /// The service
        #[arg(long, value_name = "NAME")]
        service: String,
        /// Print the values, with passwords and keys
        #[arg(long)]
        reveal: bool,
    },
}

/// Reads how long something is kept.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    pgfleet_control::manifest::parse_duration(text).ok_or_else(|| "write 12h, 30d or 1d12h".to_owned())
}
