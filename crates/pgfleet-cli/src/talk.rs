//! Data on standard output, talk on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgfleet_migrate::{Event, Observer};
use serde::Serialize;

use crate::args::Global;
use crate::error::{CommandError, Exit};

/// How this invocation talks.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) json: bool,
    quiet: bool,
    yes: bool,
}

#[expect(clippy::unused_self, reason = "who talks needs a Talk, whether or not it has a say in how")]
impl Talk {
    pub(crate) fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet, yes: global.yes }
    }

    /// Prints data: a line on standard output.
    pub(crate) fn data(&self, text: &str) {
        // A reader that went away (`| head`) is no error of ours.
        let _gone = writeln!(std::io::stdout(), "{text}");
    }

    /// Prints one JSON document.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| CommandError::new(Exit::Failed, format!("cannot write JSON: {error}")))?;
        self.data(&text);
        Ok(())
    }

    /// Says something to the person at the terminal.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            to_stderr(&format!("{text}\n"));
        }
    }

    /// Says something worth knowing that stops nothing.
    pub(crate) fn note(&self, text: &str) {
        self.say(&format!("note: {text}"));
    }

    /// Says what failed, also when quiet.
    pub(crate) fn error(&self, error: &CommandError) {
        to_stderr(&error.render());
    }

    /// Asks before something dangerous.
    ///
    /// # Errors
    ///
    /// The answer was no, or nobody can answer.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), CommandError> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(CommandError::new(Exit::Usage, format!("{question}: nobody is here to answer"))
                .hinted("answer with --yes"));
        }
        to_stderr(&format!("{question}? [y/N] "));
        let mut answer = String::new();
        // Not being able to read the answer is a no.
        let read = std::io::stdin().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(CommandError::new(Exit::Interrupted, "not done"))
    }

    /// Makes a table in the house style.
    pub(crate) fn table(header: &[impl AsRef<str>]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().map(|name| name.as_ref().to_uppercase()));
        table
    }

    /// Makes a table whose columns after the first are named as somebody else named them.
    pub(crate) fn table_of_names(first: &str, names: impl Iterator<Item = String>) -> Table {
        let mut table = Self::table(&[first]);
        // In capitals `Order` and `order` would be one.
        table.set_header(std::iter::once(first.to_uppercase()).chain(names));
        table
    }

    /// Prints a table without the blanks that fill its last column.
    pub(crate) fn print_table(&self, table: &Table) {
        let text: Vec<String> = table.to_string().lines().map(|line| line.trim().to_owned()).collect();
        self.data(&text.join("\n"));
    }

    /// Listens to services' programs where no progress is shown.
    pub(crate) fn listener(&self) -> Arc<dyn Observer> {
        Arc::new(Listener(self.clone()))
    }

    /// Whether progress is shown by a bar: somebody sits at a terminal.
    pub(crate) fn has_bar(&self) -> bool {
        !self.quiet && !self.json && std::io::stderr().is_terminal()
    }

    /// Shows the progress of work on `count` databases.
    pub(crate) fn progress(&self, count: usize, verb: &'static str) -> Progress {
        let bars = MultiProgress::new();
        if !self.has_bar() {
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        let total = bars.add(ProgressBar::new(count as u64));
        // Without a terminal the bar is hidden and plain lines tell what happens.
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {wide_msg}") {
            total.set_style(style.progress_chars("=> "));
        }
        total.set_prefix(verb);
        total.enable_steady_tick(Duration::from_millis(250));
        Progress { talk: self.clone(), bars, total, running: Mutex::new(Vec::new()) }
    }
}

/// Passes on what services' programs print, and nothing else.
pub(crate) struct Listener(Talk);

impl Observer for Listener {
    fn event(&self, target: &str, event: &Event) {
        if let Event::Said(text) = event {
            self.0.say(&said(target, text));
        }
    }
}

/// A line of a service's program; control characters in it are not for our terminal.
fn said(service: &str, text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    format!("{service} | {text}")
}

/// The progress of one command over many databases.
pub(crate) struct Progress {
    talk: Talk,
    bars: MultiProgress,
    total: ProgressBar,
    running: Mutex<Vec<String>>,
}

impl Progress {
    fn line(&self, text: &str) {
        self.bars.suspend(|| self.talk.say(text));
    }

    /// One more is done.
    pub(crate) fn step(&self) {
        self.total.inc(1);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.total.finish_and_clear();
    }

    fn show(&self) {
        if let Ok(running) = self.running.lock() {
            self.total.set_message(running.join(", "));
        }
    }
}

impl Observer for Progress {
    fn event(&self, target: &str, event: &Event) {
        match event {
            Event::Started { label } => {
                if let Ok(mut running) = self.running.lock() {
                    running.retain(|entry| !entry.starts_with(&format!("{target}: ")));
                    running.push(format!("{target}: {label}"));
                }
                self.show();
            }
            Event::Done { label, took } => {
                if let Ok(mut running) = self.running.lock() {
                    running.retain(|entry| !entry.starts_with(&format!("{target}: ")));
                }
                self.show();
                self.line(&format!("{target}: {label} ({} ms)", took.as_millis()));
            }
            event => {
                if let Some(text) = told(target, event) {
                    self.line(&text);
                }
            }
        }
    }
}

/// Renders what is told in a line of its own, whatever the progress is shown by.
pub(crate) fn told(target: &str, event: &Event) -> Option<String> {
    Some(match event {
        Event::Waiting { attempt, attempts, reason } => {
            format!("{target}: waiting for the server ({attempt} of {attempts}): {reason}")
        }
        Event::DatabaseCreated => format!("{target}: created the database"),
        Event::LockHeld { holder: Some(holder) } => format!("{target}: waiting for the lock held by {holder}"),
        Event::LockHeld { holder: None } => format!("{target}: waiting for another run"),
        Event::LockTimeout { label, attempt, attempts, blockers } => {
            let mut text = format!("{target}: {label} met a lock, try {attempt} of {attempts}");
            for blocker in blockers {
                text.push_str(&format!("\n    in the way: {blocker}: {}", blocker.query.trim()));
            }
            text
        }
        Event::Retry { attempt, attempts, wait, reason } => {
            let seconds = wait.as_secs_f32();
            format!("{target}: failed, try {attempt} of {attempts}: {reason}; again in {seconds:.1} s")
        }
        Event::Note(text) => format!("{target}: {text}"),
        Event::Said(text) => said(target, text),
        _ => return None,
    })
}

/// Writes to standard error. A reader that went away (`2>&1 | head`) must not end a migration in the
/// middle, as the panic of `eprintln!` would.
fn to_stderr(text: &str) {
    let _gone = std::io::stderr().write_all(text.as_bytes());
}

/// Renders a number of things.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Renders a duration for people.
pub(crate) fn human(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f32())
    }
}
