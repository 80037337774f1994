//! What was asked for.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

pub(crate) const USAGE: &str = "--pgfleet PROGRAM [--quick] [--rounds N] [--tenants N] [--only a,b,c,d,e,f,g]";

/// Fewer paired ratios than this give no interval worth printing.
const ROUNDS: usize = 11;

/// Tenants with a database of their own.
const TENANTS: usize = 1_000;

/// One group of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Making tenants.
    Create,
    /// Nothing to do.
    Nothing,
    /// A rollout of one migration.
    Rollout,
    /// Memory.
    Memory,
    /// Where everything stands.
    Status,
    /// A fleet with breakdowns, every migration accounted for.
    Proof,
    /// A fleet that is too large for one machine, computed.
    Simulation,
}

impl Case {
    const ALL: [Self; 7] =
        [Self::Create, Self::Nothing, Self::Rollout, Self::Memory, Self::Status, Self::Proof, Self::Simulation];
}

#[derive(Debug)]
pub(crate) struct Options {
    /// The program that is measured.
    pub(crate) pgfleet: PathBuf,
    pub(crate) rounds: usize,
    pub(super) tenants: usize,
    pub(super) quick: bool,
    cases: Vec<Case>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut args = args.iter();
        let (mut pgfleet, mut rounds, mut tenants, mut quick) = (None, None, None, false);
        let mut cases = Case::ALL.to_vec();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match *arg {
                "--pgfleet" => pgfleet = Some(std::path::absolute(value()?)?),
                "--rounds" => rounds = Some(value()?.parse().context("--rounds takes a number")?),
                "--tenants" => tenants = Some(value()?.parse().context("--tenants takes a number")?),
                "--quick" => quick = true,
                "--only" => cases = value()?.split(',').map(case).collect::<Result<_>>()?,
                unknown => bail!("there is no option {unknown}; usage: pgfleet-bench tenants {USAGE}"),
            }
        }
        let rounds = rounds.unwrap_or(if quick { 3 } else { ROUNDS });
        let tenants = tenants.unwrap_or(if quick { 50 } else { TENANTS });
        ensure!(rounds > 0 && tenants >= 20, "--rounds takes a number above 0, --tenants one from 20");
        Ok(Self { pgfleet: pgfleet.context("--pgfleet PROGRAM is needed")?, rounds, tenants, quick, cases })
    }

    pub(super) fn has(&self, case: Case) -> bool {
        self.cases.contains(&case)
    }

    /// Only a complete run may replace the published table.
    pub(super) fn writes_readme(&self) -> bool {
        let whole = Case::ALL.iter().all(|case| self.has(*case));
        !self.quick && whole && self.rounds >= ROUNDS && self.tenants >= TENANTS
    }
}

fn case(name: &str) -> Result<Case> {
    Ok(match name {
        "a" => Case::Create,
        "b" => Case::Nothing,
        "c" => Case::Rollout,
        "d" => Case::Memory,
        "e" => Case::Status,
        "f" => Case::Proof,
        "g" => Case::Simulation,
        _ => bail!("--only takes letters from a to g, not {name}"),
    })
}
