//! How a relay behaves.

use std::time::Duration;

/// What happens to later messages of a key when one of it was given up after its attempts.
///
/// One whose time has passed (`deliver_within`) is of no use to anybody and never holds its key back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterDead {
    /// They wait until the dead letter was retried or removed, so that order is kept.
    #[default]
    Wait,
    /// They go on.
    GoOn,
}

/// How a relay behaves.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The most messages published at once.
    pub batch: usize,
    /// How often it looks by itself; what this process commits it is told by [`Outbox::wake`](super::Outbox::wake).
    pub poll: Duration,
    /// How long a relay that is silent still counts as being there; another one takes over afterwards.
    pub lease: Duration,
    /// How often a message is tried before it is given up.
    pub max_attempts: u32,
    /// First and longest wait before a key is tried again, and before a broker that cannot be reached is.
    pub backoff: (Duration, Duration),
    /// What happens to later messages of a key when one was given up.
    pub after_dead: AfterDead,
    /// From which size on the log changes to its other slot, and that one is emptied.
    pub rotate_at: u64,
    /// After what time it changes whatever its size, so that what was carried does not lie there for long.
    pub rotate_after: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            batch: 1_000,
            poll: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            max_attempts: 12,
            backoff: (Duration::from_millis(200), Duration::from_mins(1)),
            after_dead: AfterDead::Wait,
            rotate_at: 32 << 20,
            rotate_after: Duration::from_hours(1),
        }
    }
}
