//! Who is handed events.

use std::fmt;

use crate::answer::Answer;
use crate::event::Event;

/// Handles events that a [subscription](crate::subscription), a [group](crate::group) or a [replay](crate::replay) reads.
///
/// Events come at least once: after a crash, or when the answer to a commit was lost, the same ones come again. What must
/// happen once is told apart by the stream and version of the event, or by its id.
pub trait Handler: Send + Sync {
    /// Handles events, in their order; there is at least one.
    ///
    /// # Errors
    ///
    /// Whatever could not be done; the caller says what becomes of that. `Error::new(ErrorKind::Failed, …).because(…)`
    /// carries an error of one's own.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when who reads is aborted or has lost the right to; the events then come again, to him or to
    /// somebody else.
    fn handle<'a>(&'a self, events: &'a [Event]) -> Answer<'a, ()>;
}

/// Makes a handler of a closure.
///
/// ```
/// use pgfleet_events::handler;
///
/// let told = handler::from_fn(|events| {
///     Box::pin(async move {
///         for event in events {
///             println!("{} of {}", event.kind, event.stream);
///         }
///         Ok(())
///     })
/// });
/// ```
pub fn from_fn<F>(handle: F) -> impl Handler
where
    F: for<'a> Fn(&'a [Event]) -> Answer<'a, ()> + Send + Sync,
{
    FromFn(handle)
}

struct FromFn<F>(F);

impl<F> Handler for FromFn<F>
where
    F: for<'a> Fn(&'a [Event]) -> Answer<'a, ()> + Send + Sync,
{
    fn handle<'a>(&'a self, events: &'a [Event]) -> Answer<'a, ()> {
        (self.0)(events)
    }
}

impl fmt::Debug for dyn Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}
