//! What was asked for.

use anyhow::{Context, Result, bail, ensure};

pub(crate) const USAGE: &str = "[--quick] [--rounds N] [--tenants N] [--requests N] [--only a,b,c,d,e]";

/// Fewer paired ratios than this give no interval worth printing.
const ROUNDS: usize = 11;

/// Tenants with databases; what the goal is about.
const TENANTS: usize = 500;

/// Requests of one task while its tenant is busy.
const REQUESTS: usize = 20;

/// One group of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// A connection that is there already.
    Warm,
    /// Where a tenant's name leads.
    Resolve,
    /// A read that must see a write.
    Token,
    /// Many tenants, few connections.
    Fleet,
    /// What idle tenants hold.
    Memory,
}

impl Case {
    const ALL: [Self; 5] = [Self::Warm, Self::Resolve, Self::Token, Self::Fleet, Self::Memory];
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// How many tenants have a database.
    pub(super) tenants: usize,
    /// Requests of one task while its tenant is busy.
    pub(super) requests: usize,
    quick: bool,
    cases: Vec<Case>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut args = args.iter();
        let (mut rounds, mut tenants, mut requests, mut quick) = (None, None, REQUESTS, false);
        let mut cases = Case::ALL.to_vec();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match *arg {
                "--rounds" => rounds = Some(value()?.parse().context("--rounds takes a number")?),
                "--tenants" => tenants = Some(value()?.parse().context("--tenants takes a number")?),
                "--requests" => requests = value()?.parse().context("--requests takes a number")?,
                "--quick" => quick = true,
                "--only" => cases = value()?.split(',').map(case).collect::<Result<_>>()?,
                unknown => bail!("there is no option {unknown}; usage: pgfleet-bench connections {USAGE}"),
            }
        }
        let rounds = rounds.unwrap_or(if quick { 3 } else { ROUNDS });
        let tenants = tenants.unwrap_or(if quick { 50 } else { TENANTS });
        ensure!(rounds > 0 && requests > 0, "--rounds and --requests take numbers above 0");
        ensure!(tenants >= 20, "--tenants takes a number from 20");
        Ok(Self { rounds, tenants, requests, quick, cases })
    }

    pub(super) fn has(&self, case: Case) -> bool {
        self.cases.contains(&case)
    }

    /// As many as the peer opens without a limit, or somebody for (e), and some for who looks.
    pub(super) fn server_connections(&self) -> u32 {
        let most = (self.tenants * super::fleet::TASKS).max(super::memory::POOLS);
        u32::try_from(most + 200).unwrap_or(u32::MAX)
    }

    /// Fewer where it is only to be seen whether it runs.
    pub(super) fn times(&self, times: u32) -> u32 {
        if self.quick { times.div_ceil(10) } else { times }
    }

    /// Only a complete run may replace the published table.
    pub(super) fn writes_readme(&self) -> bool {
        let whole = Case::ALL.iter().all(|case| self.has(*case));
        !self.quick && whole && self.rounds >= ROUNDS && self.tenants >= TENANTS && self.requests == REQUESTS
    }
}

fn case(name: &str) -> Result<Case> {
    Ok(match name {
        "a" => Case::Warm,
        "b" => Case::Resolve,
        "c" => Case::Token,
        "d" => Case::Fleet,
        "e" => Case::Memory,
        _ => bail!("--only takes letters from a to e, not {name}"),
    })
}
