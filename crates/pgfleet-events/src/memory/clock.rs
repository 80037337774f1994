//! The clock that an implementation in memory goes by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::moment::Moment;

/// A clock: this machine's, or one that stands still until somebody moves it.
///
/// ```
/// use std::time::Duration;
/// use pgfleet_events::Clock;
///
/// let clock = Clock::still();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(before.until(clock.now()), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct Clock {
    /// The microseconds of a clock that stands still; none for the machine's.
    still: Option<Arc<AtomicI64>>,
    pub(crate) moved: Arc<Notify>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::machine()
    }
}

impl Clock {
    /// Returns this machine's clock.
    pub fn machine() -> Self {
        Self { still: None, moved: Arc::default() }
    }

    /// Returns a clock that stands still at this moment until it is moved. Its clones are moved with it.
    pub fn still() -> Self {
        Self { still: Some(Arc::new(AtomicI64::new(Moment::now().micros()))), moved: Arc::default() }
    }

    /// Returns what it shows.
    pub fn now(&self) -> Moment {
        match &self.still {
            Some(micros) => Moment::from_micros(micros.load(Ordering::Acquire)),
            None => Moment::now(),
        }
    }

    /// Returns whether it stands still.
    pub fn is_still(&self) -> bool {
        self.still.is_some()
    }

    /// Moves a clock that stands still, and wakes whoever waits for a time. The machine's clock cannot be moved.
    pub fn advance(&self, by: Duration) {
        if let Some(micros) = &self.still {
            micros.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::AcqRel);
            self.moved.notify_waiters();
        }
    }
}
