//! Running other programs, visibly.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The folder of the workspace.
///
/// Asked of the environment, not fixed at compile time: clones may share one target folder.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let manifest = PathBuf::from(manifest);
    Ok(manifest.parent().context("xtask is not inside of the workspace")?.to_owned())
}

/// A command in the workspace's folder.
pub(crate) fn command(program: impl Into<OsString>) -> Result<Command> {
    let mut command = Command::new(program.into());
    command.current_dir(root()?);
    Ok(command)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))?;
    // `cargo run` sets these for us; build scripts and tests of other packages must not see ours.
    for (name, _) in std::env::vars_os() {
        let ours =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if ours {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}

/// Prints the command, runs it, and fails when it does.
pub(crate) fn visibly(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    eprintln!("\n$ {shown}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}

/// Whether the command runs and succeeds; says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Builds one program of the workspace and returns where it is.
///
/// With `--workspace`, so that dependencies have the features that everything else was built with; else cargo would
/// compile a good part of them once more.
pub(crate) fn build(program: &str, options: &[&str]) -> Result<PathBuf> {
    let mut cargo = cargo()?;
    cargo.args(["build", "--workspace", "--bin", program]).args(options);
    eprintln!("\n$ {}", shown(&cargo));
    // Only cargo knows where it puts things: target folder and triple can come from files and variables.
    let output = cargo
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "building {program} failed ({})", output.status);
    let text = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    match text.lines().filter_map(executable).find(|path| path.file_stem().is_some_and(|stem| stem == program)) {
        Some(path) => Ok(path),
        None => bail!("cargo built {program} and does not say where"),
    }
}

/// The `executable` of one of cargo's messages; a path needs no more of JSON than its two escapes.
fn executable(message: &str) -> Option<PathBuf> {
    let (_, rest) = message.split_once(r#""executable":""#)?;
    let mut path = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(path.into()),
            '\\' => path.push(chars.next()?),
            c => path.push(c),
        }
    }
}

/// The command as one would type it: variables that we set, program, arguments.
fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(&value?.to_string_lossy()))));
    let arguments = command.get_args().map(|argument| quoted(&argument.to_string_lossy()));
    let words: Vec<String> = variables.chain([name.to_string_lossy().into_owned()]).chain(arguments).collect();
    words.join(" ")
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_program_is_read_from_cargos_message() {
        let message = r#"{"reason":"compiler-artifact","executable":"/a \"b\"/pgfleet","fresh":true}"#;
        assert_eq!(executable(message).unwrap(), PathBuf::from(r#"/a "b"/pgfleet"#));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
    }

    #[test]
    fn words_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("a/b-c"), "a/b-c");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
