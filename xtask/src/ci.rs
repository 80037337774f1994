//! The checks of a change, in the order of how soon they can fail.

use anyhow::{Context, Result, ensure};

use crate::{run, test};

/// One TLS implementation (rustls) with one provider (ring). A second one costs more build time than all of ours, and
/// two providers in one process make rustls refuse to choose.
const UNWANTED: [&str; 4] = ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"];

pub(crate) fn run() -> Result<()> {
    run::visibly(run::cargo()?.args(["fmt", "--all", "--check"]))?;
    // A lock file that does not fit would be mended silently by everything below, and differ on the next machine.
    run::visibly(run::cargo()?.args(["fetch", "--locked"]))?;
    for package in UNWANTED {
        ensure_absent(package)?;
    }
    run::visibly(run::cargo()?.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run::visibly(run::cargo()?.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    test::run(&[], false)
}

fn ensure_absent(package: &str) -> Result<()> {
    let output = run::cargo()?
        .args(["tree", "--workspace", "--target", "all", "--edges", "all", "--invert", package])
        .output()
        .context("cannot run cargo tree")?;
    let tree = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // A package that nothing mentions is an error to cargo; one that only disabled features mention gives no lines.
    let unknown = errors.contains("did not match any packages");
    ensure!(output.status.success() || unknown, "cargo tree failed:\n{errors}");
    ensure!(tree.trim().is_empty(), "{package} must not be among the dependencies:\n{tree}");
    eprintln!("{package}: not among the dependencies");
    Ok(())
}
