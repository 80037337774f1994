//! All tests, with everything they need.

use anyhow::Result;

use crate::run;
use crate::system::{self, Need};

/// Whether to run tests by nextest: a process per test, and a summary of slow ones.
pub(crate) fn has_nextest() -> bool {
    run::cargo().is_ok_and(|mut cargo| run::succeeds(cargo.args(["nextest", "--version"])))
}

pub(crate) fn run(args: &[String], keep_servers: bool) -> Result<()> {
    // Tests are never skipped for want of a server, so it has to be there before they are built.
    system::ensure(&[Need::Server, Need::FetchedServer, Need::Pooler, Need::Brokers])?;
    let tested = tests(args);
    // After failures too: a server must not outlive the run because a test did not pass.
    let stopped = if keep_servers { Ok(()) } else { stop_servers() };
    tested.and(stopped)
}

fn tests(args: &[String]) -> Result<()> {
    if has_nextest() {
        run::visibly(run::cargo()?.args(["nextest", "run", "--workspace"]).args(args))?;
    } else {
        build_examples(&[])?;
        // Documentation tests come below, for both runners alike.
        let kinds = ["--lib", "--bins", "--tests", "--no-fail-fast"];
        let runner = if args.is_empty() { &[][..] } else { &["--"] };
        run::visibly(run::cargo()?.args(["test", "--workspace"]).args(kinds).args(runner).args(args))?;
    }
    if args.is_empty() {
        run::visibly(run::cargo()?.args(["test", "--workspace", "--doc"]))?;
    }
    Ok(())
}

/// Builds the examples, some of which are programs that tests start: of what is named below, cargo builds nothing else.
pub(crate) fn build_examples(profile: &[&str]) -> Result<()> {
    run::visibly(run::cargo()?.args(["build", "--workspace", "--examples"]).args(profile))
}

/// Stops the servers that the tests of this user share.
///
/// Through the bench program, which has the project's own code for it; xtask would otherwise have to wait for a
/// hundred crates before it can say anything.
pub(crate) fn stop_servers() -> Result<()> {
    let program = run::build("pgfleet-bench", &[])?;
    run::visibly(run::command(program)?.arg("stop-test-servers"))
}
