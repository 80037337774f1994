//! The limit as a program: `limit.c`, compiled here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

pub(crate) struct Limit {
    program: PathBuf,
    folder: PathBuf,
}

impl Limit {
    pub(crate) fn compile(work: &Path) -> Result<Self> {
        let folder = crate::work::empty(work.join("limit"))?;
        let (source, program) = (folder.join("limit.c"), folder.join("limit"));
        fs::write(&source, include_str!("../limit.c"))?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-pthread", "-o"]).arg(&program).arg(&source);
        for (option, question) in [("-I", "--includedir"), ("-L", "--libdir")] {
            // Without pg_config, the compiler's own folders have to do.
            if let Ok(answer) = Command::new("pg_config").arg(question).output() {
                gcc.arg(format!("{option}{}", String::from_utf8_lossy(&answer.stdout).trim()));
            }
        }
        let output = gcc.arg("-lpq").output().context("cannot run gcc")?;
        ensure!(output.status.success(), "limit.c: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { program, folder })
    }

    /// Keeps what is sent to every database of a run.
    pub(crate) fn message(&self, name: &str, sql: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, sql)?;
        Ok(path)
    }

    /// Keeps the connection strings of a run.
    pub(crate) fn targets(&self, name: &str, urls: &[String]) -> Result<PathBuf> {
        self.message(name, &(urls.join("\n") + "\n"))
    }

    /// Sends a message to all targets, some at a time.
    pub(crate) fn run(&self, threads: usize, message: &Path, targets: &Path) -> Command {
        let mut command = self.with_targets(targets);
        command.arg("run").arg(threads.to_string()).arg(message);
        command
    }

    /// Connects to one target after the other.
    pub(crate) fn connect(&self, targets: &Path) -> Command {
        let mut command = self.with_targets(targets);
        command.arg("connect");
        command
    }

    /// Sends statements to one server, some at a time, each over a connection that stays.
    pub(crate) fn statements(&self, threads: usize, url: &str, statements: &Path) -> Command {
        let mut command = self.with_targets(statements);
        command.arg("statements").arg(threads.to_string()).arg(url);
        command
    }

    /// Sends statements like [`statements`](Self::statements), and after those of a line a message to its target.
    pub(crate) fn make(&self, threads: usize, url: &str, message: &Path, lines: &Path) -> Command {
        let mut command = self.with_targets(lines);
        command.arg("make").arg(threads.to_string()).arg(url).arg(message);
        command
    }

    fn with_targets(&self, targets: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // A file that cannot be opened shows as a run without targets, so look now.
        match File::open(targets) {
            Ok(file) => command.stdin(file),
            Err(error) => panic!("{}: {error}", targets.display()),
        };
        command
    }

    /// Runs a command and returns its peak memory in bytes.
    pub(crate) fn peak(&self, command: &Command) -> Result<u64> {
        let mut measured = Command::new(&self.program);
        measured.arg("peak").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        if let Some(folder) = command.get_current_dir() {
            measured.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                measured.env(name, value);
            }
        }
        let output = measured.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kilobytes: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("no peak memory")?;
        Ok(kilobytes * 1024)
    }
}
