//! How a consumer behaves.

use std::time::Duration;

use crate::outbox::AfterDead;

/// How a consumer behaves.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The most messages handled in one transaction; 1 gives each its own. When one of several fails they are handled one by
    /// one, so handlers run again.
    pub batch: usize,
    /// How long it waits for messages before it looks after what was put aside.
    pub poll: Duration,
    /// How often a handler that met contention (40001, 40P01, 55P03) is run again at once.
    pub contention_tries: u32,
    /// How often a message is tried before it is given up.
    pub max_attempts: u32,
    /// First and longest wait before a key is tried again, and before a database or broker that cannot be reached is.
    pub backoff: (Duration, Duration),
    /// What happens to later messages of a key when one was given up.
    pub after_dead: AfterDead,
    /// How often all databases are looked at for what others put aside or retried.
    pub rescan: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            batch: 100,
            poll: Duration::from_secs(1),
            contention_tries: 5,
            max_attempts: 12,
            backoff: (Duration::from_millis(200), Duration::from_mins(1)),
            after_dead: AfterDead::Wait,
            rescan: Duration::from_secs(30),
        }
    }
}
