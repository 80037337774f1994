//! The subcommands, one file each.

mod bundle;
mod config;
mod connection;
mod down;
mod events;
mod follow;
mod guests;
pub(crate) mod init;
mod isolation;
mod migrate;
mod migration;
mod provision;
mod psql;
mod repair;
mod revert;
mod rollout;
mod seed;
mod services;
mod status;
mod tenant;
mod up;

use clap::CommandFactory as _;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::error::{CommandError, Exit};

/// Runs one command and returns how it ended.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, CommandError> {
    match command {
        Command::Init(arguments) => init::run(context, &arguments),
        Command::Up(arguments) => up::run(context, &arguments).await,
        Command::Down => down::run(context).await,
        Command::Supervise => services::supervise(context).await,
        Command::Provision(arguments) => provision::run(context, &arguments).await,
        Command::Config { verb } => config::run(context, &verb),
        Command::Migrate(arguments) => migrate::run(context, &arguments).await,
        Command::Bundle(arguments) => bundle::run(context, &arguments).await,
        Command::Rollout { verb } => rollout::run(context, verb).await,
        Command::Status(arguments) => status::run(context, &arguments).await,
        Command::Revert(arguments) => revert::run(context, &arguments).await,
        Command::Seed(arguments) => seed::run(context, &arguments).await,
        Command::Migration { verb } => migration::run(context, &verb).await,
        Command::Psql(arguments) => psql::run(context, &arguments).await,
        Command::Isolation { verb } => isolation::run(context, &verb).await,
        Command::Tenant { verb } => tenant::run(context, verb).await,
        Command::Connection { verb } => connection::run(context, &verb).await,
        Command::Stream { verb } => events::stream::run(context, verb).await,
        Command::Queue { verb } => events::queue::run(context, verb).await,
        Command::Outbox { verb } => events::outbox::run(context, verb).await,
        Command::Inbox { verb } => events::inbox::run(context, verb).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pgfleet", &mut script);
            context.talk.data(String::from_utf8_lossy(&script).trim_end());
            Ok(Exit::Done)
        }
    }
}
