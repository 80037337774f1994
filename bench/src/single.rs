//! One database: fifty migrations, and nothing to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::limit::Limit;
use crate::migrations::{self, Layout};
use crate::options::{Case, Options};
use crate::peers::Peers;
use crate::report::{Report, megabytes};
use crate::server::Server;
use crate::timing::{self, Contender};
use crate::work;

/// What a look at a migrated database may use at most.
const PEAK: u64 = 30_000_000;

/// Peak memory varies by a few pages; the largest of these counts.
const PEAK_RUNS: usize = 5;

/// Everybody's prefix of database names, in the order in which they are compared.
const OURS: &str = "ours";
const SQLX: &str = "sqlx";
const REFINERY: &str = "refinery";
const MESSAGE: &str = "message";
const EACH: &str = "each";
const EVERYBODY: [&str; 5] = [OURS, SQLX, REFINERY, MESSAGE, EACH];

pub(crate) fn measure(
    options: &Options,
    work: &Path,
    server: &Server,
    limit: &Limit,
    report: &mut Report,
) -> Result<()> {
    let peers = Peers::install()?;
    report.machine.push(format!("peers: {}", peers.versions));
    let bench = Bench { options, server, peers, folder: work::empty(work.join("single"))? };
    let migrations = migrations::generate();
    for (folder, layout) in [("numbered", Layout::Numbered), ("versioned", Layout::Versioned)] {
        migrations::write(&migrations, layout, &work::empty(bench.folder.join(folder))?)?;
    }

    let message = migrations::in_one_transaction(&migrations);
    let each = migrations::in_transactions_with_history(&migrations);
    let mut contenders = bench.tools();
    contenders.push(Contender::new("limit: psql, one transaction", |round| bench.psql(MESSAGE, round, &message)));
    contenders
        .push(Contender::new("limit: psql, transaction and history row each", |round| bench.psql(EACH, round, &each)));
    // Those of the last round stay: (b) looks at them.
    for round in 0..=options.rounds {
        eprintln!("one database, round {round} of {}", options.rounds);
        server.prepare(|| {
            if let Some(before) = round.checked_sub(1) {
                server.drop(&databases(before))?;
            }
            server.create(&databases(round))
        })?;
        timing::round(&mut contenders, round, round > 0)?;
    }
    if options.has(Case::A) {
        let (ours, others) = contenders.split_first().expect("ours is always there");
        for other in others {
            let goal = match other.name.as_str() {
                "limit: psql, one transaction" => Some(1.3),
                "sqlx-cli" => Some(0.75),
                _ => None,
            };
            report.compare("(a) 50 migrations, one database", ours, other, goal);
        }
    }
    if options.has(Case::B) {
        bench.nothing_to_do(limit, report)?;
    }
    server.prepare(|| server.drop(&databases(options.rounds)))
}

struct Bench<'a> {
    options: &'a Options,
    server: &'a Server,
    peers: Peers,
    folder: PathBuf,
}

impl Bench<'_> {
    fn tools(&self) -> Vec<Contender<'_>> {
        let mut tools = vec![
            Contender::new("pgfleet", |round| self.pgfleet(round)),
            Contender::new("sqlx-cli", |round| self.sqlx(round)),
        ];
        if let Some(program) = &self.peers.refinery {
            tools.push(Contender::new("refinery", |round| self.refinery(program, round)));
        }
        tools
    }

    fn pgfleet(&self, round: usize) -> Command {
        let mut command = Command::new(&self.options.pgfleet);
        command.args(["migrate", "--url"]).arg(self.server.url(&database(OURS, round)));
        command.arg("--dir").arg(self.folder.join("numbered")).current_dir(&self.folder);
        command
    }

    fn sqlx(&self, round: usize) -> Command {
        let mut command = Command::new(&self.peers.sqlx);
        command.args(["migrate", "run", "--database-url"]).arg(self.server.url(&database(SQLX, round)));
        command.arg("--source").arg(self.folder.join("numbered")).current_dir(&self.folder);
        command
    }

    fn refinery(&self, program: &Path, round: usize) -> Command {
        let mut command = Command::new(program);
        command.args(["migrate", "-e", "DATABASE_URL", "-p"]).arg(self.folder.join("versioned"));
        command.env("DATABASE_URL", self.server.url(&database(REFINERY, round))).current_dir(&self.folder);
        command
    }

    fn psql(&self, whose: &str, round: usize, message: &str) -> Command {
        let mut command = Command::new(self.server.psql());
        command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command", message]);
        command.arg(self.server.url(&database(whose, round)));
        command
    }

    fn nothing_to_do(&self, limit: &Limit, report: &mut Report) -> Result<()> {
        let last = self.options.rounds;
        let mut contenders = self.tools();
        contenders.push(Contender::new("limit: psql, one SELECT", |_| self.psql(EACH, last, migrations::LOOK)));
        // The tools speak of a round's database; here all rounds are of one.
        for contender in &mut contenders {
            contender.always(last);
        }
        for round in 0..=self.options.rounds {
            timing::round(&mut contenders, round, round > 0)?;
        }
        let (ours, others) = contenders.split_first().expect("ours is always there");
        for other in others {
            let goal = (other.name == "sqlx-cli").then_some(1.0);
            report.compare("(b) nothing to do, one database", ours, other, goal);
        }
        let peak = |command: &Command| -> Result<u64> {
            let runs = (0..PEAK_RUNS).map(|_| limit.peak(command)).collect::<Result<Vec<_>>>()?;
            Ok(runs.into_iter().max().unwrap_or(0))
        };
        let sqlx = format!("sqlx-cli: {}", megabytes(peak(&self.sqlx(last))?));
        report.memory("(b) peak memory", peak(&self.pgfleet(last))?, &sqlx, PEAK);
        Ok(())
    }
}

fn database(whose: &str, round: usize) -> String {
    format!("{whose}_{round}")
}

fn databases(round: usize) -> Vec<String> {
    EVERYBODY.iter().map(|whose| database(whose, round)).collect()
}
