//! What streams, queues and messages between services cost.
//!
//! Everybody uses the same client library, prepared statements and connections that are there already; what differs is what
//! is asked of the server. The limit is the least that can be asked for the same result, without what makes it safe.

mod append;
mod emmett;
mod logs;
mod memory;
mod messages;
mod options;
mod pinned;
mod queue;
mod read;
mod rotation;
mod steady;
mod store;

use anyhow::Result;

pub(crate) use options::{Options, USAGE};

use crate::connections::setting;
use crate::report::{self, Report};
use crate::server::Server;
use crate::{machine, work};
use options::Case;

/// What everything says: 100 bytes.
pub(super) const DATA: &str =
    r#"{"booking": "b_0194409dfb0c71b2d3a4152637489901", "seats": 2, "price": "360.00", "note": "as it was"}"#;

pub(crate) fn measure(options: &Options) -> Result<()> {
    let work = work::Folder::open()?;
    let server = Server::start(&work.path, 200)?;
    let version = format!("pgfleet {}", env!("CARGO_PKG_VERSION"));
    let mut facts = machine::facts(options.rounds, &version, &server);
    facts.push(format!(
        "JSON of {} bytes; a runtime with {} threads; peers: pgmq {}, emmett {}, message-db {}",
        DATA.len(),
        setting::THREADS,
        store::PGMQ,
        store::EMMETT,
        store::MESSAGE_DB
    ));
    let mut report = Report::new(facts);
    let runtime = setting::runtime()?;
    let _inside = runtime.enter();
    let bench = Bench { options, server: &server, runtime: &runtime };
    if options.has(Case::Queue) {
        queue::measure(&bench, &mut report)?;
    }
    if options.has(Case::Steady) {
        steady::measure(&bench, &mut report)?;
    }
    if options.has(Case::Pinned) {
        pinned::measure(&bench, &mut report)?;
    }
    if options.has(Case::Append) {
        append::measure(&bench, &mut report)?;
    }
    if options.has(Case::Read) {
        read::measure(&bench, &mut report)?;
    }
    if options.has(Case::Messages) {
        messages::measure(&bench, &mut report)?;
    }
    if options.has(Case::Memory) {
        memory::measure(&bench, &mut report)?;
    }
    if options.has(Case::Rotation) {
        rotation::measure(&bench, &mut report)?;
    }
    let text = report.render();
    println!("{text}");
    if options.writes_readme() {
        report::write_readme("events", &text)?;
    }
    Ok(())
}

/// What every case is measured with.
pub(super) struct Bench<'a> {
    pub(super) options: &'a Options,
    pub(super) server: &'a Server,
    pub(super) runtime: &'a tokio::runtime::Runtime,
}
