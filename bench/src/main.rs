//! Measures pgfleet against its peers and against the limit, in one run.

use anyhow::{Result, bail};
use pgfleet_local::testing::TestServer;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        // Not a measurement: xtask has it done here, where the project's own code is at hand.
        ["stop-test-servers"] => {
            let stopped = TestServer::stop_all()?;
            eprintln!("stopped {stopped} shared test servers");
            Ok(())
        }
        _ => bail!("usage: pgfleet-bench stop-test-servers"),
    }
}
