//! What a pool, a budget, resolution and replicas cost, against another pool on the same client library.
//!
//! Everything here is measured inside this process, as a service has it: both contenders on one runtime with two
//! threads, in turns, against the same server.

mod fleet;
pub(crate) mod memory;
mod options;
mod resolve;
pub(crate) mod setting;
mod token;
mod warm;

use anyhow::Result;

pub(crate) use options::{Options, USAGE};

use crate::report::{self, Report};
use crate::server::Server;
use crate::{machine, work};
use options::Case;

pub(crate) fn measure(options: &Options) -> Result<()> {
    let work = work::Folder::open()?;
    let server = Server::start(&work.path, options.server_connections())?;
    let version = format!("pgfleet {}", env!("CARGO_PKG_VERSION"));
    let mut facts = machine::facts(options.rounds, &version, &server);
    facts.push(format!(
        "max_connections = {}; a runtime with {} threads; peer: deadpool-postgres 0.14 (recycling method `fast`)",
        options.server_connections(),
        setting::THREADS
    ));
    let mut report = Report::new(facts);
    let runtime = setting::runtime()?;
    server.prepare(|| setting::control(&server))?;
    if options.has(Case::Warm) {
        warm::measure(options, &runtime, &server, &mut report)?;
    }
    if options.has(Case::Resolve) {
        resolve::measure(options, &runtime, &server, &mut report)?;
    }
    if options.has(Case::Token) {
        token::measure(options, &runtime, &mut report)?;
    }
    if options.has(Case::Fleet) {
        fleet::measure(options, &runtime, &server, &mut report)?;
    }
    if options.has(Case::Memory) {
        memory::measure(&server, &mut report)?;
    }
    let text = report.render();
    println!("{text}");
    if options.writes_readme() {
        report::write_readme("connections", &text)?;
    }
    Ok(())
}
