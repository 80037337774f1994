//! What a chain tells of its work.

use std::collections::HashMap;
use std::time::Duration;

use super::message::Message;
use crate::error::Error;

/// Something that is worth a line in a log.
#[derive(Debug)]
pub enum ChainEvent<'a> {
    /// A message was handled.
    Handled {
        /// The message.
        message: &'a Message,
        /// What was done.
        note: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// Handling a message failed, and is tried again.
    TriedAgain {
        /// The message.
        message: &'a Message,
        /// Which try failed, counted from 1.
        attempt: u32,
        /// Of how many.
        attempts: u32,
        /// Pause before the next.
        wait: Duration,
        /// Why it failed.
        error: &'a Error,
    },
    /// Handling a message failed for the last time; it waits for somebody to start it by hand.
    Failed {
        /// The message.
        message: &'a Message,
        /// Why it failed.
        error: &'a Error,
    },
    /// Something else that keeps tenants from following; told once, until it is over.
    Trouble {
        /// What.
        error: &'a str,
    },
    /// That is over.
    Over {
        /// What it was.
        error: &'a str,
    },
}

impl std::fmt::Display for ChainEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Handled { message, note, took } => {
                write!(f, "{} {}: {note} ({:.1} s)", message.kind(), message.subject(), took.as_secs_f32())
            }
            Self::TriedAgain { message, attempt, attempts, wait, error } => write!(
                f,
                "{} {}: failed, try {attempt} of {attempts}; again in {:.1} s: {}",
                message.kind(),
                message.subject(),
                wait.as_secs_f32(),
                line(error)
            ),
            Self::Failed { message, error } => {
                write!(f, "{} {}: failed for the last time: {}", message.kind(), message.subject(), line(error))
            }
            Self::Trouble { error } => f.write_str(error),
            Self::Over { error } => write!(f, "is over: {error}"),
        }
    }
}

/// An error in one line.
pub(super) fn line(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.causes() {
        text.push_str(": ");
        text.push_str(cause);
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!(" (hint: {hint})"));
    }
    text
}

/// Is told what happens; called between two pieces of work, so it must not block for long.
pub trait ChainListener: Send + Sync {
    /// Something happened.
    fn happened(&self, event: &ChainEvent<'_>);
}

/// What is wrong now, so that it is told once and not each second.
pub(super) struct Troubles<'a> {
    listener: &'a dyn ChainListener,
    known: HashMap<String, String>,
}

impl<'a> Troubles<'a> {
    pub(super) fn new(listener: &'a dyn ChainListener) -> Self {
        Self { listener, known: HashMap::new() }
    }

    /// Notes what is wrong with something now; none when nothing is.
    pub(super) fn note(&mut self, what: &str, error: Option<&Error>) {
        match error.map(line) {
            Some(error) => {
                if self.known.get(what) != Some(&error) {
                    self.listener.happened(&ChainEvent::Trouble { error: &error });
                    self.known.insert(what.to_owned(), error);
                }
            }
            None => {
                if let Some(error) = self.known.remove(what) {
                    self.listener.happened(&ChainEvent::Over { error: &error });
                }
            }
        }
    }
}
