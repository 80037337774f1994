//! Benchmarks: builds what users run, then lets `pgfleet-bench` measure it.

use anyhow::{Result, bail};

use crate::run;
use crate::system::{self, Need};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let ["migrate", options @ ..] = args else {
        bail!("there is no benchmark `{}`; there is: migrate", args.join(" "));
    };
    system::ensure(&[Need::Server, Need::Libpq])?;
    let program = run::build("pgfleet", &["--release"])?;
    let bench = run::build("pgfleet-bench", &["--release"])?;
    run::visibly(run::command(bench)?.arg("migrate").arg("--pgfleet").arg(program).args(options))
}
