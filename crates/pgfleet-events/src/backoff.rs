//! Pauses between tries.

use std::time::Duration;

/// Pauses that double from a first to a longest one, each with a random part, so that those who failed together do not
/// come back together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new((first, most): (Duration, Duration)) -> Self {
        Self { first, most: most.max(first), tries: 0 }
    }

    /// How often was paused since the last success.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Returns the next pause: between a half and the whole of what it has grown to.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1_u32 << self.tries.min(20)).min(self.most);
        self.tries = self.tries.saturating_add(1);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Begins with the first one again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new((Duration::from_millis(10), Duration::from_millis(45)));
        for (low, high) in [(5, 10), (10, 20), (20, 40), (22, 45), (22, 45)] {
            let pause = backoff.pause();
            assert!((Duration::from_millis(low)..=Duration::from_millis(high)).contains(&pause), "{pause:?}");
        }
        assert_eq!(backoff.tries(), 5);
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(10));
    }
}
