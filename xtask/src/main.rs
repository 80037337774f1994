//! Set-up, tests, benchmarks and soak runs of this repository.
//!
//! Stands on the standard library (and anyhow), so that it is built within seconds and can say what a machine lacks
//! before anything long begins. What needs the project's own crates is done by `pgfleet-bench`, which it builds.

mod bench;
mod ci;
mod demo;
mod fuzz;
mod histories;
mod npm;
mod pgmq;
mod run;
mod soak;
mod system;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
Usage: cargo xtask <COMMAND>

  demo                       Runs the example `masar` on a PostgreSQL of its own and leaves it running
  test [--keep-servers] [-- ARG…]
                             Installs what the tests need and runs all of them; ARGs go to the test runner
  ci                         What .ci/run does: format, dependencies, clippy, docs, tests
  soak [--rounds N] [-- ARG…]
                             The crash tests, many more rounds of each (200 unless told), and the order of events
                             with a million of them
  fuzz [--seconds N] [TARGET]
                             The fuzz targets, or one of them, each for N seconds (60 unless told)
  bench migrate [--quick] [--rounds N] [--databases N] [--only a,b,c,d,e,f,g,h,i]
                             Measures against peers and the limit; writes the table of bench/README.md
  bench connections [--quick] [--rounds N] [--tenants N] [--only a,b,c,d,e]
                             Measures pools, budgets and replicas likewise
  bench events [--quick] [--rounds N] [--only a,b,c,d,e,f,g,h]
                             Measures streams, queues and messages likewise
  bench messages [--minutes N] [--seed N] [--only postgres,rabbitmq,nats]
                             Kills everything on the way of messages for ten minutes in all, and counts
  histories --server URL --dir FOLDER [--layout NAME] [--own COMMAND] [--before FILE.sql]
                             Applies a folder of migrations with pgfleet, and with COMMAND, which finds its database in
                             DATABASE_URL, and compares the two schemas

--keep-servers leaves the shared test servers running, which makes the next run start faster.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let (own, passed) = split(args);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    match own.as_slice() {
        ["demo"] => demo::run(),
        ["test", flags @ ..] => {
            let keep_servers = flags.contains(&"--keep-servers");
            if let Some(unknown) = flags.iter().find(|flag| flag.starts_with('-') && **flag != "--keep-servers") {
                bail!("test has no option {unknown}; arguments of the test runner come after `--`");
            }
            // A bare word is a filter, as it is for the runners themselves.
            let filters = flags.iter().filter(|flag| !flag.starts_with('-')).map(ToString::to_string);
            let args: Vec<String> = filters.chain(passed.iter().cloned()).collect();
            test::run(&args, keep_servers)
        }
        ["ci"] => ci::run(),
        ["soak"] => soak::run(soak::ROUNDS, passed),
        ["soak", "--rounds", rounds] => match rounds.parse() {
            Ok(rounds) if rounds > 0 => soak::run(rounds, passed),
            _ => bail!("--rounds takes a number above 0, not {rounds}"),
        },
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["histories", rest @ ..] => histories::run(rest),
        ["bench", rest @ ..] if !rest.is_empty() => bench::run(rest),
        [] | ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => bail!("cannot make sense of `{}`\n\n{HELP}", args.join(" ")),
    }
}

/// What is ours and what comes after `--`.
fn split(args: &[String]) -> (&[String], &[String]) {
    match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[]),
    }
}
