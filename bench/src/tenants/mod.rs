//! What tenants cost: making them, nothing to do over all of them, a rollout, where they stand.
//!
//! Whole processes, as somebody types them. The limit is `limit.c`: threads over libpq that copy the same template, or
//! connect to the same databases and send one message.

mod create;
mod many;
mod options;
mod proof;
mod rollouts;
mod simulate;
mod solution;

use anyhow::Result;

pub(crate) use options::{Options, USAGE};

use crate::limit::Limit;
use crate::report::{self, Report};
use crate::server::Server;
use crate::{machine, work};
use options::Case;

/// How many databases are worked on at a time, by everybody.
const AT_A_TIME: usize = 4;

pub(crate) fn measure(options: &Options) -> Result<()> {
    let work = work::Folder::open()?;
    let limit = Limit::compile(&work.path)?;
    let server = Server::start(&work.path, 200)?;
    let version = machine::first_line(&options.pgfleet.to_string_lossy(), &["--version"]);
    let mut facts = machine::facts(options.rounds, &version, &server);
    facts.push(format!("{} tenants, {AT_A_TIME} databases at a time", options.tenants));
    let mut report = Report::new(facts);
    let bench = Bench { options, work: &work.path, server: &server, limit: &limit };
    if options.has(Case::Create) {
        create::measure(&bench, &mut report)?;
    }
    let fleet = [Case::Nothing, Case::Rollout, Case::Memory, Case::Simulation];
    if fleet.iter().any(|case| options.has(*case)) {
        rollouts::measure(&bench, &mut report)?;
    }
    if options.has(Case::Memory) || options.has(Case::Status) {
        many::measure(&bench, &mut report)?;
    }
    if options.has(Case::Proof) {
        proof::measure(&bench, &mut report)?;
    }
    let text = report.render();
    println!("{text}");
    if options.writes_readme() {
        report::write_readme("tenants", &text)?;
    }
    Ok(())
}

/// What every case is measured with.
struct Bench<'a> {
    options: &'a Options,
    work: &'a std::path::Path,
    server: &'a Server,
    limit: &'a Limit,
}
