//! What the user is told when a command fails, and the exit code.

use std::fmt::Write as _;
use std::path::Path;

use pgfleet_control::manifest::Errors as ManifestErrors;
use pgfleet_control::{Error as ControlError, ErrorKind as ControlKind};
use pgfleet_migrate::{Error as MigrateError, ErrorKind as MigrateKind};
use pgfleet_postgres::ErrorKind as PostgresKind;

/// The exit codes, a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Configuration = 3,
    Unreachable = 4,
    Findings = 5,
    Interrupted = 130,
}

/// One failed command.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl CommandError {
    #[cold]
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says first what it is about, where several are told.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Renders `error:`, `caused by:` and `hint:` lines.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}\n", relative_text(&self.message));
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {}", relative_text(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {}", relative_text(hint));
        }
        text
    }
}

/// Renders the failure on one database.
pub(crate) fn render_migration(error: &MigrateError) -> CommandError {
    let exit = match error.kind() {
        MigrateKind::Stopped => Exit::Interrupted,
        _ if error.postgres().is_some_and(|error| error.kind() == PostgresKind::Pooler) => Exit::Configuration,
        // One that died while it worked is another matter.
        MigrateKind::Program if !error.is_retryable() => Exit::Configuration,
        _ if error.is_unreachable() => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let mut own = CommandError::new(exit, error.to_string());
    own.causes = error.causes();
    if let Some(place) = error.place() {
        let mut text = format!("at {}", relative(&place.path).display());
        text.push_str(&place.to_string()[place.path.display().to_string().len()..]);
        if !place.excerpt.is_empty() {
            let _ = write!(text, "\n      {}", place.excerpt.trim_end());
            if place.column > 0 {
                // Tabs stay tabs, so that the mark stands under its character.
                let before: String = place
                    .excerpt
                    .chars()
                    .take(place.column as usize - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                let _ = write!(text, "\n      {before}^");
            }
        }
        own.causes.push(text);
    }
    own.hint = error.hint();
    own
}

/// Returns a path as seen from the present folder when it is below it.
pub(crate) fn relative(path: &Path) -> std::path::PathBuf {
    std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned))
        .unwrap_or_else(|| path.to_owned())
}

/// Returns a message with the paths in it as seen from the present folder.
pub(crate) fn relative_text(text: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let Some(here) = here.to_str().filter(|here| here.len() > 1) else { return text.to_owned() };
    let here = format!("{here}/");
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&here) {
        let (before, after) = rest.split_at(at);
        shown.push_str(before);
        // In the middle of a longer path these are other folders.
        let begins = before.chars().next_back().is_none_or(|c| c.is_whitespace() || "`'\"(".contains(c));
        if !begins {
            shown.push_str(&here);
        }
        rest = &after[here.len()..];
    }
    shown + rest
}

impl From<MigrateError> for CommandError {
    fn from(error: MigrateError) -> Self {
        render_migration(&error)
    }
}

impl From<ControlError> for CommandError {
    fn from(error: ControlError) -> Self {
        Self::from(&error)
    }
}

impl From<&ControlError> for CommandError {
    fn from(error: &ControlError) -> Self {
        let exit = match error.kind() {
            ControlKind::Configuration => Exit::Configuration,
            ControlKind::Unreachable => Exit::Unreachable,
            ControlKind::Stopped => Exit::Interrupted,
            _ => Exit::Failed,
        };
        let mut own = Self::new(exit, error.to_string());
        own.causes = error.causes().to_vec();
        own.hint = error.hint().map(str::to_owned);
        own
    }
}

impl From<ManifestErrors> for CommandError {
    fn from(errors: ManifestErrors) -> Self {
        let mut own = Self::new(Exit::Configuration, "the configuration cannot be used");
        for diagnostic in errors.iter() {
            let mut text = diagnostic.to_string();
            if let Some(hint) = &diagnostic.hint {
                let _ = write!(text, "\n    hint: {hint}");
            }
            own.causes.push(text);
        }
        own
    }
}

impl From<pgfleet_postgres::Error> for CommandError {
    fn from(error: pgfleet_postgres::Error) -> Self {
        let exit = match error.kind() {
            PostgresKind::Address => Exit::Usage,
            PostgresKind::Pooler => Exit::Configuration,
            _ if error.is_unreachable() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let hint = error.hint();
        let mut own = Self::new(exit, error.to_string());
        own.causes = std::error::Error::source(&error).map(ToString::to_string).into_iter().collect();
        own.hint = hint;
        own
    }
}
