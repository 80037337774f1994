//! Fuzzing: each target of `fuzz/` for a while.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run;

/// How long each target runs unless told.
const SECONDS: &str = "60";

/// Inputs for the targets whose input is SQL, beside those that earlier runs have found.
const SQL: &str = "crates/pgfleet-sql/tests/it/corpus";

/// The targets whose input is not a text as it is.
const STRUCTURED: [&str; 2] = ["layout", "render"];

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (seconds, chosen) = parse(args)?;
    let mut targets = targets(&run::root()?.join("fuzz/fuzz_targets"))?;
    if let Some(chosen) = chosen {
        ensure!(
            targets.iter().any(|name| name == chosen),
            "there is no target {chosen}; there are: {}",
            targets.join(", ")
        );
        targets.retain(|name| name == chosen);
    }
    ensure_tools()?;
    for target in targets.iter().map(String::as_str) {
        fs::create_dir_all(run::root()?.join("fuzz/corpus").join(target)).context("cannot make fuzz/corpus")?;
        let mut fuzz = nightly(&["cargo", "fuzz", "run", target, &format!("fuzz/corpus/{target}")])?;
        if !STRUCTURED.contains(&target) {
            fuzz.arg(SQL);
        }
        fuzz.args(["--", "-dict=fuzz/sql.dict", "-max_len=8192", "-timeout=10"]);
        run::visibly(fuzz.arg(format!("-max_total_time={seconds}")))?;
    }
    Ok(())
}

/// For how many seconds, and which target if not all.
fn parse<'a>(args: &[&'a str]) -> Result<(u32, Option<&'a str>)> {
    let (seconds, targets) = match args {
        ["--seconds", seconds, targets @ ..] | [targets @ .., "--seconds", seconds] => (*seconds, targets),
        targets => (SECONDS, targets),
    };
    let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0).context("--seconds takes a number above 0")?;
    match targets {
        [] => Ok((seconds, None)),
        [target] if !target.starts_with('-') => Ok((seconds, Some(target))),
        _ => bail!("usage: cargo xtask fuzz [--seconds N] [TARGET]"),
    }
}

/// The targets are the files in their folder.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        targets.extend(name.filter(|_| path.extension().is_some_and(|end| end == "rs")).map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

/// Says what is missing rather than installing it: a second compiler is nothing that appears by itself.
fn ensure_tools() -> Result<()> {
    let mut missing = Vec::new();
    if !run::succeeds(run::command("rustup")?.arg("--version")) {
        bail!("fuzzing needs rustup, for a nightly compiler; install it from https://rustup.rs");
    }
    if !run::succeeds(&mut nightly(&["cargo", "--version"])?) {
        missing.push("rustup toolchain install nightly --profile minimal");
    }
    // Asked without the toolchain: what `cargo install` brings is there for every one of them.
    if !run::succeeds(run::command("cargo-fuzz")?.arg("--version")) {
        missing.push("cargo install cargo-fuzz --locked");
    }
    ensure!(
        missing.is_empty(),
        "fuzzing needs tools that are not here; install them with\n\n  {}\n",
        missing.join("\n  ")
    );
    Ok(())
}

/// A command of the nightly toolchain.
fn nightly(command: &[&str]) -> Result<Command> {
    let mut rustup = run::command("rustup")?;
    rustup.args(["run", "nightly"]).args(command);
    // Set for us by the cargo that runs us, which is another one.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        rustup.env_remove(variable);
    }
    Ok(rustup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_target_come_in_either_order() {
        assert_eq!(parse(&[]).unwrap(), (60, None));
        assert_eq!(parse(&["split"]).unwrap(), (60, Some("split")));
        assert_eq!(parse(&["--seconds", "5"]).unwrap(), (5, None));
        assert_eq!(parse(&["--seconds", "5", "split"]).unwrap(), (5, Some("split")));
        assert_eq!(parse(&["split", "--seconds", "5"]).unwrap(), (5, Some("split")));
        for wrong in [&["--seconds"][..], &["--seconds", "0"], &["--seconds", "x"], &["--fast"], &["split", "lexer"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_target_is_a_program_of_the_manifest() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let targets = targets(&fuzz.join("fuzz_targets")).unwrap();
        assert!(!targets.is_empty());
        for target in &targets {
            assert!(manifest.contains(&format!("[[bin]]\nname = \"{target}\"\n")), "{target}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
        assert!(STRUCTURED.iter().all(|name| targets.iter().any(|target| target == name)));
        assert!(fuzz.join("..").join(SQL).is_dir());
    }
}
