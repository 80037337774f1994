//! emmett as its users have it: its own client, in one process of Node beside this one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::append::STREAMS;
use super::{Bench, DATA};

pub(super) const NAME: &str = "emmett, its own client in Node";

const PROGRAM: &str = include_str!("emmett.mjs");

/// A process of Node that appends when it is told to. Dropping it ends it.
pub(super) struct Client {
    child: Child,
    turns: ChildStdin,
    answers: BufReader<ChildStdout>,
    database: String,
}

impl Client {
    /// Makes a database and starts the process, which makes the tables in it.
    pub(super) fn start(bench: &Bench<'_>, name: &str) -> Result<Self> {
        let database = format!("{name}_emmett_node");
        bench.server.create(std::slice::from_ref(&database))?;
        // The schema was read out of the package: its folder is where its client is, too.
        let folder = bench.options.emmett.parent().context("emmett's schema is in no folder")?;
        let mut child = Command::new("node")
            .args(["--input-type=module", "--eval", PROGRAM])
            .current_dir(folder)
            .env("BENCH_URL", bench.server.url(&database))
            .env("BENCH_DATA", DATA)
            .env("BENCH_STREAMS", STREAMS.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run node")?;
        let turns = child.stdin.take().context("node has no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("node has no stdout")?);
        let mut client = Self { child, turns, answers, database };
        ensure!(client.answer()? == "ready", "emmett's client does not start");
        Ok(client)
    }

    /// Appends, and returns how long it took there.
    pub(super) fn append(
        &mut self,
        bench: &Bench<'_>,
        (batch, writers): (usize, usize),
        events: usize,
        round: usize,
    ) -> Result<Duration> {
        let before = self.count(bench)?;
        writeln!(self.turns, "{batch} {writers} {events} {round}").context("emmett's client has ended")?;
        self.turns.flush()?;
        let took = Duration::from_nanos(self.answer()?.parse().context("emmett's client answers with no time")?);
        let added = self.count(bench)? - before;
        ensure!(added == events, "emmett's client has appended {added} of {events} events");
        Ok(took)
    }

    /// Reads a line. What else the client prints is passed on.
    fn answer(&mut self) -> Result<String> {
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("emmett's client has ended: {}", self.child.wait()?);
            }
            let line = line.trim();
            if line == "ready" || line.parse::<u64>().is_ok() {
                return Ok(line.to_owned());
            }
            eprintln!("emmett: {line}");
        }
    }

    fn count(&self, bench: &Bench<'_>) -> Result<usize> {
        let count = bench.server.read(&self.database, "SELECT count(*) FROM emt_messages")?;
        count.trim().parse().with_context(|| format!("no count: {count}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It has nothing that is worth to be ended in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
