//! What goes wrong between us and a broker.

use std::collections::HashSet;

use pgfleet_events::{Error, ErrorKind, Message, Published};

/// Says that a broker cannot be reached or did not answer; it can be tried again.
pub(crate) fn unavailable(
    broker: &str,
    doing: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{broker}: {doing}"))
        .with_hint("see whether the broker runs and can be reached from here; it is tried again by itself")
        .because(source)
}

/// Says that a broker did not confirm a message in time.
pub(crate) fn unconfirmed(broker: &str, hint: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{broker}: the message was not confirmed")).with_hint(hint)
}

/// Lets later messages of a key fail whose earlier one has failed, so that trying all of them again keeps their order.
pub(crate) fn keep_order(messages: &[Message], answers: &mut [Published]) {
    let mut failed: HashSet<&str> = HashSet::new();
    for (message, answer) in messages.iter().zip(answers) {
        let Some(key) = message.key.as_deref() else { continue };
        if answer.is_err() {
            failed.insert(key);
        } else if failed.contains(key) {
            *answer = Err(behind(key));
        }
    }
}

/// Says that a message was not published because an earlier one of its key was not.
pub(crate) fn behind(key: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("an earlier message of the key {key} was not published"))
        .with_hint("publish all of them again, in their order")
}
