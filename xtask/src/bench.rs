//! Benchmarks: builds what users run, then lets `pgfleet-bench` measure it.

use anyhow::{Result, bail};

use crate::run;
use crate::system::{self, Need};

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
            system::ensure(&[Need::Server, Need::Brokers])?;
            let bench = run::build("pgfleet-bench", &["--release"])?;
            run::visibly(run::command(bench)?.arg("events").arg("--pgmq").arg(crate::pgmq::schema()?).args(options))
        }
        ["tenants", options @ ..] => {
            system::ensure(&[Need::Server, Need::Libpq])?;
            let program = run::build("pgfleet", &["--release"])?;
            let bench = run::build("pgfleet-bench", &["--release"])?;
            run::visibly(run::command(bench)?.arg("tenants").arg("--pgfleet").arg(program).args(options))
        }
        _ => bail!("there is no benchmark `{}`; there are: migrate, connections, events, tenants", args.join(" ")),
    }
}
