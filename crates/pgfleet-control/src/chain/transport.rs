//! What carries messages: the interface that every broker implements.

use std::pin::Pin;
use std::time::Duration;

use super::message::{Draft, Received};
use crate::error::Error;

/// A boxed answer of a [`Transport`].
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Carries messages from those who cause them to those who handle them, at least once.
///
/// What an implementation must keep true:
///
/// * Two drafts of one id are one message, for as long as the transport remembers it.
/// * Of the messages with one [subject](super::Message::subject) one is out at a time, on all machines
///   together, in the order in which they were published; one that waits for another try keeps those
///   behind it waiting. Messages of different subjects do not wait for each other.
/// * Who has received a message has a lease on it, for as long as it lives or for a time that is
///   renewed. When the lease ends the message goes to somebody else, and whoever lost it is told so
///   by the answer `false`, and changes nothing any more.
///
/// Handling has to be such that doing it twice is the same as doing it once.
///
/// # Cancel safety
///
/// Dropping a future of [`receive`](Self::receive) may leave messages leased to nobody who handles
/// them; that is for `stop` to give back. The others are done or not done.
pub trait Transport: std::fmt::Debug + Send + Sync {
    /// Publishes messages; those whose ids are known are dropped.
    fn publish<'a>(&'a self, drafts: &'a [Draft]) -> Answer<'a, ()>;

    /// Takes up to `max` messages that are due; none when there are none, at once.
    fn receive(&self, max: usize) -> Answer<'_, Vec<Received>>;

    /// Ends a message that was handled, and publishes those that follow from it.
    ///
    /// Both together where the transport can; else the others first, so that a crash in between has
    /// the message handled again, and the same ids dropped. `note` says what was done.
    fn ack<'a>(&'a self, received: &'a Received, following: &'a [Draft], note: &'a str) -> Answer<'a, bool>;

    /// Puts a message back that failed, due again after a delay; counts as a try.
    fn retry<'a>(&'a self, received: &'a Received, delay: Duration, error: &'a str) -> Answer<'a, bool>;

    /// Puts a message back that was not tried, due at once.
    fn give_back<'a>(&'a self, received: &'a Received) -> Answer<'a, bool>;

    /// Sets a message aside that was tried as often as may be, until somebody starts it by hand.
    fn fail<'a>(&'a self, received: &'a Received, error: &'a str) -> Answer<'a, bool>;

    /// Forgets what is done and long past. Called now and then.
    fn tidy(&self) -> Answer<'_, ()>;

    /// Ends all leases; what is out then goes to somebody else.
    fn stop(&self) -> Answer<'_, ()>;
}
