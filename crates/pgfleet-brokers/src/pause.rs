//! How long to wait before trying again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(5);

/// Waits between attempts, longer after each that failed.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    failed: u32,
}

impl Pause {
    /// Says that an attempt has failed; returns how long to wait before the next.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failed.min(10)).min(MOST);
        self.failed += 1;
        // Between half and all of it: whoever lost the same broker at once does not come back at once.
        whole.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// Says that an attempt has passed.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let mut pause = Pause::default();
        assert!(pause.next() <= FIRST);
        for _ in 0..40 {
            assert!(pause.next() <= MOST);
        }
        assert!(pause.next() >= MOST / 2);
        pause.reset();
        assert!(pause.next() <= FIRST);
    }
}
