//! Messages from one service to another while everything on their way is killed: a proof more than a measurement.
//!
//! Publishers, relays and consumers are processes of their own; they, the broker and PostgreSQL are ended by SIGKILL at
//! random and started again, for minutes and under load. In the end everything is left alone and must come to rest by
//! itself; then each message whose transaction was committed has had its effect once, in the order of its key, or the run
//! fails.

mod account;
mod options;
mod part;
mod place;
mod program;
mod run;

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

pub(crate) use options::{Options, USAGE};
pub(crate) use part::play;

use crate::{machine, report};

pub(crate) fn prove(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    eprintln!("--seed {}", options.seed);
    let mut text =
        machine::who(concat!("pgfleet ", env!("CARGO_PKG_VERSION"))).iter().fold(String::new(), |mut text, fact| {
            // Writing into a text does not fail.
            let _ok = writeln!(text, "* {fact}");
            text
        });
    text.push_str(HEAD);
    for transport in &options.transports {
        let what = || format!("over {transport}, --seed {}", options.seed);
        let outcome = runtime.block_on(run::run(transport, options)).with_context(what)?;
        let row = outcome.row(transport);
        eprintln!("{row}");
        let _ok = writeln!(text, "{row}");
    }
    println!("{text}");
    if options.writes_readme() {
        report::write_readme("messages", &text)?;
    }
    Ok(())
}

const HEAD: &str = "
| over | committed | effects, each once and in order | killed: publishers / relays / consumers / broker / PostgreSQL | \
                    delivered again | known already | at rest after |
|---|---|---|---|---|---|---|
";
