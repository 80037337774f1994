//! The second `up` of the example, with its server running.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::limit::Limit;
use crate::options::Options;
use crate::report::Report;
use crate::timing::{self, Contender};
use crate::work;

const EXAMPLE: &str = "examples/masar";
const SERVICES: [&str; 4] = ["user", "trip", "notifications", "auth"];

pub(crate) fn measure(options: &Options, work: &Path, limit: &Limit, report: &mut Report) -> Result<()> {
    let folder = work::empty(work.join("masar"))?;
    let copied = Command::new("cp").arg("-R").arg(format!("{EXAMPLE}/.")).arg(&folder).status()?;
    ensure!(copied.success(), "cannot copy {EXAMPLE}");
    let pgfleet = |args: &[&str]| {
        let mut command = Command::new(&options.pgfleet);
        command.args(args).current_dir(&folder);
        command
    };
    timing::time(&mut pgfleet(&["up", "--detach"]))?;
    let measured = (|| {
        let strings = SERVICES.iter().map(|service| connection_string(&folder, service)).collect::<Result<Vec<_>>>()?;
        let targets = limit.targets("masar", &strings)?;
        let mut contenders = [
            Contender::new("pgfleet", |_| pgfleet(&["up", "--detach"])),
            Contender::new("limit: connecting to its databases in turn", |_| limit.connect(&targets)),
        ];
        for round in 0..=options.rounds {
            timing::round(&mut contenders, round, round > 0)?;
        }
        report.compare("(d) second `up` of masar", &contenders[0], &contenders[1], Some(20.0));
        Ok(())
    })();
    // Also when measuring failed: its server would stay.
    let stopped = timing::time(&mut pgfleet(&["down"])).context("the example's server was not stopped");
    measured.and(stopped.map(|_| ()))
}

/// How a service's application reaches its database, for libpq: with the password file that `up` writes.
fn connection_string(folder: &Path, service: &str) -> Result<String> {
    let passfile = folder.join(".pgfleet/pgpass");
    let text = fs::read_to_string(&passfile).with_context(|| format!("cannot read {}", passfile.display()))?;
    let role = format!("{service}_app");
    // host:port:database:role:password
    let line =
        text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.get(3) == Some(&&*role));
    let Some([host, port, ..]) = line.as_deref() else { bail!("{} has no {role}", passfile.display()) };
    Ok(format!("host={host} port={port} dbname={service} user={role} passfile={}", passfile.display()))
}
