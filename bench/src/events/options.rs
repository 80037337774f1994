//! What was asked for.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

pub(crate) const USAGE: &str =
    "--pgmq FILE --emmett FILE --message-db FILE [--quick] [--rounds N] [--only a,b,c,d,e,f,g,h]";

/// Fewer paired ratios than this give no interval worth printing.
const ROUNDS: usize = 11;

/// One group of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Queues, as fast as they go.
    Queue,
    /// A queue with little in it, from putting in to acknowledged.
    Steady,
    /// A queue while somebody holds a snapshot.
    Pinned,
    /// Appending to streams.
    Append,
    /// Reading all streams from the start.
    Read,
    /// From one service's transaction to another's.
    Messages,
    /// The store in memory.
    Memory,
    /// A queue while its tables are changed.
    Rotation,
}

impl Case {
    const ALL: [Self; 8] = [
        Self::Queue,
        Self::Steady,
        Self::Pinned,
        Self::Append,
        Self::Read,
        Self::Messages,
        Self::Memory,
        Self::Rotation,
    ];
}

#[derive(Debug)]
pub(crate) struct Options {
    /// The peers' schemas, as they are published.
    pub(super) pgmq: PathBuf,
    pub(super) emmett: PathBuf,
    pub(super) message_db: PathBuf,
    pub(crate) rounds: usize,
    quick: bool,
    cases: Vec<Case>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut args = args.iter();
        let (mut pgmq, mut emmett, mut message_db) = (None, None, None);
        let (mut rounds, mut quick) = (None, false);
        let mut cases = Case::ALL.to_vec();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match *arg {
                "--pgmq" => pgmq = Some(PathBuf::from(value()?)),
                "--emmett" => emmett = Some(PathBuf::from(value()?)),
                "--message-db" => message_db = Some(PathBuf::from(value()?)),
                "--rounds" => rounds = Some(value()?.parse().context("--rounds takes a number")?),
                "--quick" => quick = true,
                "--only" => cases = value()?.split(',').map(case).collect::<Result<_>>()?,
                unknown => bail!("there is no option {unknown}; usage: pgfleet-bench events {USAGE}"),
            }
        }
        let rounds = rounds.unwrap_or(if quick { 3 } else { ROUNDS });
        ensure!(rounds > 0, "--rounds takes a number above 0");
        Ok(Self {
            pgmq: pgmq.context("--pgmq FILE is needed")?,
            emmett: emmett.context("--emmett FILE is needed")?,
            message_db: message_db.context("--message-db FILE is needed")?,
            rounds,
            quick,
            cases,
        })
    }

    pub(super) fn has(&self, case: Case) -> bool {
        self.cases.contains(&case)
    }

    /// Fewer where it is only to be seen whether it runs.
    pub(super) fn times(&self, times: usize) -> usize {
        if self.quick { times.div_ceil(20) } else { times }
    }

    /// Only a complete run may replace the published table.
    pub(super) fn writes_readme(&self) -> bool {
        !self.quick && Case::ALL.iter().all(|case| self.has(*case)) && self.rounds >= ROUNDS
    }
}

fn case(name: &str) -> Result<Case> {
    Ok(match name {
        "a" => Case::Queue,
        "b" => Case::Steady,
        "c" => Case::Pinned,
        "d" => Case::Append,
        "e" => Case::Read,
        "f" => Case::Messages,
        "g" => Case::Memory,
        "h" => Case::Rotation,
        _ => bail!("--only takes letters from a to h, not {name}"),
    })
}
