//! A database for a test: ours, the bare copy of the same template, and an empty one that is migrated each time.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::migrations::{self, Layout};
use crate::options::Options;
use crate::report::Report;
use crate::server::Server;
use crate::timing::Contender;
use crate::{set_up, work};

/// Tests of one process: the first one has to connect and to look for the template.
const TESTS: usize = 6;

/// Who takes turns, what the report calls them, and how much of their time ours may take.
const EVERYBODY: [(&str, &str, Option<f64>); 3] = [
    ("pgfleet", "pgfleet", None),
    ("clone", "limit: connect, copy the template, connect", Some(1.3)),
    ("sqlx", "sqlx: create, connect, migrate", Some(0.5)),
];

pub(crate) fn measure(options: &Options, work: &Path, server: &Server, report: &mut Report) -> Result<()> {
    let folder = work::empty(work.join("test_databases"))?;
    migrations::write(&migrations::generate(), Layout::Numbered, &folder)?;
    let mut firsts = EVERYBODY.map(|_| Vec::new());
    let mut nexts = EVERYBODY.map(|_| Vec::new());
    for round in 0..=options.rounds {
        eprintln!("databases for tests, round {round} of {}", options.rounds);
        for turn in 0..EVERYBODY.len() {
            // In the first round the template is made, by whose turn is first.
            let who = (round + turn) % EVERYBODY.len();
            server.prepare(|| server.drop(&leftovers(server)?))?;
            let times = set_up(EVERYBODY[who].0, &folder, round, server)?;
            if round > 0 {
                firsts[who].push(times[0]);
                nexts[who].push(crate::ratio::median_time(&times[1..]));
            }
        }
    }
    server.prepare(|| server.drop(&leftovers(server)?))?;
    for (case, times) in [("(g) first test of a process", firsts), ("(g) each test after it", nexts)] {
        let all: Vec<_> = EVERYBODY.iter().zip(times).map(|(who, times)| Contender::measured(who.1, times)).collect();
        for (other, (_, _, goal)) in all.iter().zip(EVERYBODY).skip(1) {
            report.compare(case, &all[0], other, goal);
        }
    }
    Ok(())
}

/// Somebody's turn: a process of this program.
fn set_up(whose: &str, folder: &Path, round: usize, server: &Server) -> Result<Vec<Duration>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["set-up-test", whose]).arg(folder).args([round.to_string(), TESTS.to_string()]);
    let output = command.env(set_up::URL, server.url("postgres")).output()?;
    ensure!(output.status.success(), "{whose} failed\n{}", String::from_utf8_lossy(&output.stderr));
    let times = String::from_utf8(output.stdout)?;
    let times: Vec<Duration> =
        times.lines().map(|line| Ok(Duration::from_nanos(line.parse()?))).collect::<Result<_>>()?;
    ensure!(times.len() == TESTS, "{whose} measured {} tests and not {TESTS}", times.len());
    Ok(times)
}

/// The databases of the turn before; the template stays.
fn leftovers(server: &Server) -> Result<Vec<String>> {
    let sql = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname ~ '^(pgt|clone|sqlx)_'";
    let mut psql = Command::new(server.psql());
    psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", sql]).arg(server.url("postgres"));
    let output = psql.output().context("cannot run psql")?;
    ensure!(output.status.success(), "listing databases failed");
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}
