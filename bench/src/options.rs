//! What was asked for.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

pub(crate) const USAGE: &str = "--pgfleet PROGRAM [--quick] [--rounds N] [--databases N] [--only a,b,c,d,e,f,g,h,i]";

/// Fewer paired ratios than this give no interval worth printing.
const ROUNDS: usize = 11;

/// One group of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// One empty database.
    A,
    /// One database with nothing to do.
    B,
    /// Many databases.
    C,
    /// The second `up` of the example.
    D,
    /// The text of SQL.
    E,
    /// A step in Rust.
    F,
    /// A database for a test.
    G,
    /// The start of a service with nothing pending.
    H,
    /// A backfill.
    I,
}

impl Case {
    const ALL: [Self; 9] = [Self::A, Self::B, Self::C, Self::D, Self::E, Self::F, Self::G, Self::H, Self::I];
}

#[derive(Debug)]
pub(crate) struct Options {
    /// The program that is measured.
    pub(crate) pgfleet: PathBuf,
    pub(crate) rounds: usize,
    /// How many databases cases C and F have.
    pub(crate) databases: usize,
    quick: bool,
    cases: Vec<Case>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut args = args.iter();
        let (mut pgfleet, mut rounds, mut databases, mut quick) = (None, None, None, false);
        let mut cases = Case::ALL.to_vec();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match *arg {
                "--pgfleet" => pgfleet = Some(PathBuf::from(value()?)),
                "--rounds" => rounds = Some(value()?.parse().context("--rounds takes a number")?),
                "--databases" => databases = Some(value()?.parse().context("--databases takes a number")?),
                "--quick" => quick = true,
                "--only" => cases = value()?.split(',').map(case).collect::<Result<_>>()?,
                unknown => bail!("there is no option {unknown}; usage: pgfleet-bench migrate {USAGE}"),
            }
        }
        let rounds = rounds.unwrap_or(if quick { 3 } else { ROUNDS });
        let databases = databases.unwrap_or(if quick { 20 } else { 200 });
        ensure!(rounds > 0 && databases > 0, "--rounds and --databases take numbers above 0");
        Ok(Self { pgfleet: pgfleet.context("--pgfleet PROGRAM is needed")?, rounds, databases, quick, cases })
    }

    pub(crate) fn has(&self, case: Case) -> bool {
        self.cases.contains(&case)
    }

    /// Only a complete run may replace the published table.
    pub(crate) fn writes_readme(&self) -> bool {
        !self.quick && Case::ALL.iter().all(|case| self.has(*case)) && self.rounds >= ROUNDS && self.databases >= 200
    }
}

fn case(name: &str) -> Result<Case> {
    Ok(match name {
        "a" => Case::A,
        "b" => Case::B,
        "c" => Case::C,
        "d" => Case::D,
        "e" => Case::E,
        "f" => Case::F,
        "g" => Case::G,
        "h" => Case::H,
        "i" => Case::I,
        _ => bail!("--only takes letters from a to i, not {name}"),
    })
}
