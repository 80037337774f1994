//! What a test returns.

use std::fmt::Debug;

/// What a test returns: nothing, or a `Result` whose error can be shown.
pub trait Outcome {
    /// Returns whether the test failed.
    fn is_failure(&self) -> bool;
}

impl Outcome for () {
    fn is_failure(&self) -> bool {
        false
    }
}

impl<E: Debug> Outcome for Result<(), E> {
    fn is_failure(&self) -> bool {
        self.is_err()
    }
}
