//! Many databases, four at a time: fifty migrations each, and nothing to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::limit::Limit;
use crate::migrations::{self, Layout};
use crate::options::Options;
use crate::report::Report;
use crate::server::Server;
use crate::timing::{self, Contender};
use crate::work;

const AT_A_TIME: usize = 4;

pub(crate) fn measure(
    options: &Options,
    work: &Path,
    server: &Server,
    limit: &Limit,
    report: &mut Report,
) -> Result<()> {
    let solution = Solution::write(options, work, server)?;
    let theirs: Vec<String> = (0..options.databases).map(|number| format!("limit_{number:03}")).collect();
    let urls: Vec<String> = theirs.iter().map(|name| server.url(name)).collect();
    let targets = limit.targets("fleet", &urls)?;
    let apply = limit.message("apply.sql", &migrations::in_transactions_with_history(&migrations::generate()))?;
    let look = limit.message("look.sql", migrations::LOOK)?;

    let of_limit = format!("limit: {AT_A_TIME} threads over libpq");
    let migrate = |_| solution.command(&["migrate", "--concurrency", &AT_A_TIME.to_string()]);
    let mut applying = [
        Contender::new("pgfleet", migrate),
        Contender::new(of_limit.clone(), |_| limit.run(AT_A_TIME, &apply, &targets)),
    ];
    let mut looking =
        [Contender::new("pgfleet", migrate), Contender::new(of_limit, |_| limit.run(AT_A_TIME, &look, &targets))];
    for round in 0..=options.rounds {
        eprintln!("{} databases, round {round} of {}", options.databases, options.rounds);
        server.prepare(|| {
            server.drop(&solution.databases)?;
            server.drop(&theirs)?;
            timing::time(&mut solution.command(&["provision"]))?;
            server.create(&theirs)
        })?;
        // Before each turn, or whoever comes second writes out what the first one left in the server's memory.
        timing::round_with(&mut applying, round, round > 0, || server.prepare(|| Ok(())))?;
        timing::round_with(&mut looking, round, round > 0, || server.prepare(|| Ok(())))?;
    }
    let count = options.databases;
    report.compare(&format!("(c) 50 migrations, {count} databases"), &applying[0], &applying[1], Some(1.3));
    report.compare(&format!("(c) nothing to do, {count} databases"), &looking[0], &looking[1], Some(1.25));
    Ok(())
}

/// A manifest with one service per database, all of which share one folder of migrations.
struct Solution<'a> {
    program: &'a Path,
    folder: PathBuf,
    url: String,
    databases: Vec<String>,
}

impl<'a> Solution<'a> {
    fn write(options: &'a Options, work: &Path, server: &Server) -> Result<Self> {
        let folder = work::empty(work.join("fleet"))?;
        migrations::write(&migrations::generate(), Layout::Numbered, &work::empty(folder.join("migrations"))?)?;
        let databases: Vec<String> = (0..options.databases).map(|number| format!("service_{number:03}")).collect();
        let mut manifest = "[solution]\nname = \"bench\"\n\n[servers.main]\nurl = \"local\"\n".to_owned();
        for name in &databases {
            manifest.push_str(&format!("\n[services.{name}]\nmigrations = \"migrations\"\n"));
        }
        fs::write(folder.join("pgfleet.toml"), manifest)?;
        Ok(Self { program: &options.pgfleet, folder, url: server.url("postgres"), databases })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(args).current_dir(&self.folder).env("PGFLEET_SERVERS__MAIN__URL", &self.url);
        command
    }
}
