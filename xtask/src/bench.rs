//! Benchmarks: builds what users run, then lets `pgfleet-bench` measure it.

use anyhow::{Result, bail};

use crate::system::{self, Need};
use crate::{npm, pgmq, run};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    match args {
        ["migrate", options @ ..] => {
            system::ensure(&[Need::Server, Need::Libpq])?;
            let program = run::build("pgfleet", &["--release"])?;
            let bench = run::build("pgfleet-bench", &["--release"])?;
            run::visibly(run::command(bench)?.arg("migrate").arg("--pgfleet").arg(program).args(options))
        }
        ["connections", options @ ..] => {
            system::ensure(&[Need::Server])?;
            let bench = run::build("pgfleet-bench", &["--release"])?;
            run::visibly(run::command(bench)?.arg("connections").args(options))
        }
        ["events", options @ ..] => {
            system::ensure(&[Need::Server, Need::Brokers, Need::Node])?;
            // Before the minutes of building: the network may be away.
            let (pgmq, emmett, message_db) = (pgmq::schema()?, npm::emmett()?, npm::message_db()?);
            let bench = run::build("pgfleet-bench", &["--release"])?;
            let mut events = run::command(bench)?;
            events
                .arg("events")
                .arg("--pgmq")
                .arg(pgmq)
                .arg("--emmett")
                .arg(emmett)
                .arg("--message-db")
                .arg(message_db);
            run::visibly(events.args(options))
        }
        ["messages", options @ ..] => {
            system::ensure(&[Need::Server, Need::Brokers])?;
            let bench = run::build("pgfleet-bench", &["--release"])?;
            run::visibly(run::command(bench)?.arg("messages").args(options))
        }
        ["tenants", options @ ..] => {
            system::ensure(&[Need::Server, Need::Libpq])?;
            let program = run::build("pgfleet", &["--release"])?;
            let bench = run::build("pgfleet-bench", &["--release"])?;
            run::visibly(run::command(bench)?.arg("tenants").arg("--pgfleet").arg(program).args(options))
        }
        _ => bail!(
            "there is no benchmark `{}`; there are: migrate, connections, events, messages, tenants",
            args.join(" ")
        ),
    }
}
