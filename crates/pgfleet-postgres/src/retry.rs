//! Waiting between tries.

use std::time::Duration;

/// Returns a random time between two bounds.
pub fn between(least: Duration, most: Duration) -> Duration {
    if most <= least {
        return least;
    }
    rand::random_range(least..=most)
}

/// Returns the wait before try `attempt` (counted from 1): doubling from `first` up to `most`, the
/// upper half of it random, so that several who failed together do not come back together.
pub fn backoff(attempt: u32, first: Duration, most: Duration) -> Duration {
    let full = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(most);
    between(full / 2, full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_is_bounded() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(3));
        for attempt in 1..40 {
            let wait = backoff(attempt, first, most);
            assert!(wait >= first / 2 && wait <= most, "{attempt}: {wait:?}");
        }
    }
}
