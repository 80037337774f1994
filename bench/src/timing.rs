//! Contenders that take turns.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Somebody who is measured.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    /// The command of one round.
    command: Box<dyn Fn(usize) -> Command + 'a>,
    /// Stands for every round, where all are alike.
    fixed: Option<usize>,
    /// The times of all rounds; the same index is the same round for everybody.
    pub(crate) times: Vec<Duration>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: impl Into<String>, command: impl Fn(usize) -> Command + 'a) -> Self {
        Self { name: name.into(), command: Box::new(command), fixed: None, times: Vec::new() }
    }

    /// Somebody whose turns were measured elsewhere.
    pub(crate) fn measured(name: impl Into<String>, times: Vec<Duration>) -> Self {
        Self { times, ..Self::new(name, |_| Command::new("true")) }
    }

    /// Gives the command the same number in every round.
    pub(crate) fn always(&mut self, round: usize) {
        self.fixed = Some(round);
    }

    fn take_turn(&mut self, round: usize) -> Result<Duration> {
        let mut command = (self.command)(self.fixed.unwrap_or(round));
        time(&mut command).with_context(|| format!("{} failed", self.name))
    }
}

/// One more round for each; whoever was first is last in the next one.
pub(crate) fn round(contenders: &mut [Contender<'_>], round: usize, counts: bool) -> Result<()> {
    round_with(contenders, round, counts, || Ok(()))
}

/// Like [`round`], with something to be done before each turn.
pub(crate) fn round_with(
    contenders: &mut [Contender<'_>],
    round: usize,
    counts: bool,
    before: impl Fn() -> Result<()>,
) -> Result<()> {
    let all = contenders.len();
    for turn in 0..all {
        let contender = &mut contenders[(round + turn) % all];
        before()?;
        let took = contender.take_turn(round)?;
        if counts {
            contender.times.push(took);
        }
    }
    Ok(())
}

/// Runs a process to its end.
pub(crate) fn time(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let output = command.output();
    let took = began.elapsed();
    let output = output.with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    ensure!(
        output.status.success(),
        "{}: {}\n{}{}",
        command.get_program().to_string_lossy(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}
