//! Measures pgfleet against its peers and against the limit, in one run.
//!
//! Every number of `migrate` but those of test databases is a whole process from start to end, as a user or a pipeline runs it. Contenders take turns in each
//! round and only their ratios within a round are compared, so that a machine that gets slower in the meantime gets
//! slower for all. The limit is the least any program can do for the same result: the same SQL, the same history row
//! with the same index, and the same durability.

mod connections;
mod events;
mod example;
mod fleet;
mod limit;
mod machine;
mod messages;
mod migrations;
mod options;
mod peers;
mod ratio;
mod report;
mod server;
mod service;
mod set_up;
mod single;
mod tenants;
mod test_databases;
mod text;
mod timing;
mod work;
mod worker;

use anyhow::{Result, bail};
use pgfleet_local::testing::TestServer;

use options::{Case, Options};
use report::Report;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["migrate", rest @ ..] => migrate(&Options::parse(rest)?),
        ["connections", rest @ ..] => connections::measure(&connections::Options::parse(rest)?),
        ["events", rest @ ..] => events::measure(&events::Options::parse(rest)?),
        ["messages", rest @ ..] => messages::prove(&messages::Options::parse(rest)?),
        // One of the processes of `messages`.
        ["message-part", rest @ ..] => messages::play(rest),
        ["tenants", rest @ ..] => tenants::measure(&tenants::Options::parse(rest)?),
        // Somebody's turn in section (e) of `connections`.
        ["memory", whose, url] => connections::memory::show(whose, url),
        // Somebody's turn in section (g).
        ["set-up-test", whose, folder, round, count] => set_up::run(whose, folder, round, count.parse()?),
        // Somebody's turn in section (f), and the program that one of them calls.
        ["step", kind, list] => worker::work(kind, list.as_ref()),
        ["pgfleet", "worker"] => worker::serve(),
        // Not a measurement: xtask has it done here, where the project's own code is at hand.
        ["stop-test-servers"] => {
            let stopped = TestServer::stop_all()?;
            eprintln!("stopped {stopped} shared test servers");
            Ok(())
        }
        _ => bail!(
            "usage: pgfleet-bench migrate {} | connections {} | events {} | messages {} | tenants {} | stop-test-servers",
            options::USAGE,
            connections::USAGE,
            events::USAGE,
            messages::USAGE,
            tenants::USAGE
        ),
    }
}

fn migrate(options: &Options) -> Result<()> {
    let work = work::Folder::open()?;
    let limit = limit::Limit::compile(&work.path)?;
    let server = server::Server::start(&work.path, 100)?;
    let mut report = Report::new(machine::facts(
        options.rounds,
        &machine::first_line(&options.pgfleet.to_string_lossy(), &["--version"]),
        &server,
    ));
    if options.has(Case::A) || options.has(Case::B) {
        single::measure(options, &work.path, &server, &limit, &mut report)?;
    }
    if options.has(Case::C) {
        fleet::measure(options, &work.path, &server, &limit, &mut report)?;
    }
    if options.has(Case::D) {
        example::measure(options, &work.path, &limit, &mut report)?;
    }
    if options.has(Case::E) {
        text::measure(options, &mut report)?;
    }
    if options.has(Case::F) {
        worker::measure(options, &work.path, &server, &mut report)?;
    }
    if options.has(Case::G) {
        test_databases::measure(options, &work.path, &server, &mut report)?;
    }
    if options.has(Case::H) || options.has(Case::I) {
        service::measure(options, &server, &mut report)?;
    }
    let text = report.render();
    println!("{text}");
    if options.writes_readme() {
        report::write_readme("migrate", &text)?;
    }
    Ok(())
}
