//! Medians, ratios, and what they allow to say.

use std::time::Duration;

/// Below this a difference under [`NOISE`] says nothing.
const SHORT: Duration = Duration::from_millis(200);

const NOISE: f64 = 1.25;

/// The middle of some measurements and how far it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    /// The interval of the median: with 95 % confidence where there are enough measurements, else all of them.
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Middle {
    /// The median of the paired ratios.
    pub(crate) fn of_ratios(ours: &[Duration], others: &[Duration]) -> Self {
        Self::of(ours.iter().zip(others).map(|(ours, other)| ours.as_secs_f64() / other.as_secs_f64()).collect())
    }

    /// The median of the paired differences, in seconds.
    pub(crate) fn of_differences(ours: &[Duration], others: &[Duration]) -> Self {
        Self::of(ours.iter().zip(others).map(|(ours, other)| ours.as_secs_f64() - other.as_secs_f64()).collect())
    }

    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let skip = trusted(values.len());
        Self { median: median(&values), low: values[skip], high: values[values.len() - 1 - skip] }
    }
}

/// How many measurements may be left off at each end so that the rest still holds the true median with 95 %.
///
/// Each measurement is above or below it like the side of a coin, so this is how many heads are the most that still
/// come in at most one of forty series.
fn trusted(count: usize) -> usize {
    let mut heads = 0;
    let mut chance = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut sum = chance;
    while heads < count {
        #[expect(clippy::cast_precision_loss, reason = "dozens of rounds")]
        let factor = (count - heads) as f64 / (heads + 1) as f64;
        chance *= factor;
        sum += chance;
        if sum > 0.025 {
            break;
        }
        heads += 1;
    }
    heads
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

/// The median of times.
pub(crate) fn median_time(times: &[Duration]) -> Duration {
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    Duration::from_secs_f64(median(&seconds))
}

/// Whether a ratio that should be at most `goal` is.
pub(crate) fn verdict(ratio: Middle, goal: f64, ours: Duration) -> &'static str {
    if ratio.median <= goal {
        "yes"
    } else if ours < SHORT && ratio.median < goal * NOISE {
        "within noise"
    } else if ratio.low > goal {
        "no"
    } else {
        "open"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eleven_rounds_leave_off_one_at_each_end() {
        assert_eq!(trusted(11), 1);
        assert_eq!(trusted(5), 0);
        assert_eq!(trusted(3), 0);
        assert_eq!(trusted(21), 5);
    }

    #[test]
    fn a_goal_is_missed_only_when_the_whole_interval_does() {
        let long = Duration::from_secs(1);
        let ratio = |low, median, high| Middle { median, low, high };
        assert_eq!(verdict(ratio(1.0, 1.2, 1.5), 1.3, long), "yes");
        assert_eq!(verdict(ratio(1.2, 1.4, 1.5), 1.3, long), "open");
        assert_eq!(verdict(ratio(1.35, 1.4, 1.5), 1.3, long), "no");
        assert_eq!(verdict(ratio(1.35, 1.4, 1.5), 1.3, Duration::from_millis(20)), "within noise");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let times = |values: &[u64]| values.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        let middle = Middle::of_ratios(&times(&[10, 40, 30]), &times(&[10, 20, 10]));
        assert_eq!(middle, Middle { median: 2.0, low: 1.0, high: 3.0 });
    }
}
