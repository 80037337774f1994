//! Topics and the patterns that fit them.

use std::sync::Arc;

/// Returns whether a topic fits a pattern: the same, or begins with what stands before a `*` at the end.
pub(crate) fn fits(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => topic.starts_with(beginning),
        None => pattern == topic,
    }
}

/// Returns whether a topic fits any of the patterns.
pub(crate) fn fits_any(patterns: &[Arc<str>], topic: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_at_the_end_stands_for_all_that_begin_so() {
        for (pattern, topic, expected) in [
            ("trip.booked", "trip.booked", true),
            ("trip.booked", "trip.booked.again", false),
            ("trip.*", "trip.booked.again", true),
            ("trip.*", "trip", false),
            ("tr*", "trip", true),
            ("*", "anything", true),
            ("*.booked", "trip.booked", false),
        ] {
            assert_eq!(fits(pattern, topic), expected, "{pattern} {topic}");
        }
    }
}
