//! What pools tell of themselves.

use std::fmt::Write as _;
use std::time::Duration;

/// The state of a server's budget and its waits so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetStats {
    /// The server's name.
    pub name: String,
    /// Connections that all pools may hold.
    pub limit: usize,
    /// Connections that they hold: opening, in use, idle and closing.
    pub open: usize,
    /// Idle ones.
    pub idle: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Pools that hold a connection.
    pub pools: usize,
    /// The most that were ever open.
    pub most_open: usize,
    /// Connections that one pool gave up because another needed the slot.
    pub stolen: u64,
    /// How long requests waited that had to.
    pub waits: Histogram,
}

/// The state of one pool and its counts so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// The pool's name.
    pub name: String,
    /// Connections that it may hold.
    pub max: usize,
    /// Connections that it holds.
    pub open: usize,
    /// Idle ones.
    pub idle: usize,
    /// Those in use.
    pub in_use: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests met.
    pub taken: u64,
    /// Connections opened.
    pub opened: u64,
    /// Requests that had to wait.
    pub waits: u64,
    /// How long they waited, in sum.
    pub wait_time: Duration,
    /// Requests given up at the connect time-out.
    pub timeouts: u64,
    /// How long connections were in use, in sum.
    pub held_time: Duration,
}

/// Times by powers of two of a microsecond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; Self::BUCKETS],
    sum: Duration,
    most: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; Self::BUCKETS], sum: Duration::ZERO, most: Duration::ZERO }
    }
}

impl Histogram {
    /// Up to about nine minutes; the last holds what is longer.
    const BUCKETS: usize = 30;

    pub(super) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
        self.sum += time;
        self.most = self.most.max(time);
    }

    /// Returns how many times were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the sum of all times.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the longest time.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// Returns a time that `percent` percent of the recorded ones do not exceed, at most twice the true one.
    ///
    /// Zero when nothing was recorded.
    pub fn percentile(&self, percent: u32) -> Duration {
        let wanted = (self.count() * u64::from(percent.min(100))).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return Self::bound(bucket).min(self.most);
            }
        }
        Duration::ZERO
    }

    fn bound(bucket: usize) -> Duration {
        Duration::from_micros(1 << bucket)
    }
}

impl BudgetStats {
    /// Writes the budget and these pools in Prometheus' text format.
    pub fn prometheus(&self, pools: &[PoolStats]) -> String {
        let mut text = String::new();
        let server = label(&self.name);
        for (name, kind, value) in [
            ("budget_connections_limit", "gauge", self.limit as u64),
            ("budget_connections_open", "gauge", self.open as u64),
            ("budget_connections_idle", "gauge", self.idle as u64),
            ("budget_requests_waiting", "gauge", self.waiting as u64),
            ("budget_connections_stolen_total", "counter", self.stolen),
        ] {
            let _ = writeln!(text, "# TYPE pgfleet_{name} {kind}\npgfleet_{name}{{server=\"{server}\"}} {value}");
        }
        let _ = writeln!(text, "# TYPE pgfleet_budget_wait_seconds histogram");
        let mut seen = 0;
        for (bucket, count) in self.waits.buckets.iter().enumerate() {
            seen += count;
            let bound = Histogram::bound(bucket).as_secs_f64();
            let _ = writeln!(text, "pgfleet_budget_wait_seconds_bucket{{server=\"{server}\",le=\"{bound}\"}} {seen}");
        }
        let _ = writeln!(
            text,
            "pgfleet_budget_wait_seconds_bucket{{server=\"{server}\",le=\"+Inf\"}} {seen}\n\
             pgfleet_budget_wait_seconds_sum{{server=\"{server}\"}} {}\n\
             pgfleet_budget_wait_seconds_count{{server=\"{server}\"}} {seen}",
            self.waits.sum.as_secs_f64()
        );
        let families: [(&str, &str, Shown); 8] = [
            ("pool_connections_open", "gauge", |pool| pool.open.to_string()),
            ("pool_connections_idle", "gauge", |pool| pool.idle.to_string()),
            ("pool_connections_in_use", "gauge", |pool| pool.in_use.to_string()),
            ("pool_requests_waiting", "gauge", |pool| pool.waiting.to_string()),
            ("pool_requests_total", "counter", |pool| pool.taken.to_string()),
            ("pool_timeouts_total", "counter", |pool| pool.timeouts.to_string()),
            ("pool_wait_seconds_total", "counter", |pool| pool.wait_time.as_secs_f64().to_string()),
            ("pool_held_seconds_total", "counter", |pool| pool.held_time.as_secs_f64().to_string()),
        ];
        for (name, kind, value) in families {
            let _ = writeln!(text, "# TYPE pgfleet_{name} {kind}");
            for pool in pools {
                let pool_label = label(&pool.name);
                let _ = writeln!(text, "pgfleet_{name}{{server=\"{server}\",pool=\"{pool_label}\"}} {}", value(pool));
            }
        }
        text
    }
}

/// How a number of a pool is written.
type Shown = fn(&PoolStats) -> String;

/// Escapes the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_never_below_the_true_one_and_at_most_twice_it() {
        let mut waits = Histogram::default();
        for millis in 1..=1000 {
            waits.record(Duration::from_millis(millis));
        }
        for percent in [1, 50, 90, 99, 100] {
            let true_one = Duration::from_millis(u64::from(percent) * 10);
            let found = waits.percentile(percent);
            assert!(found >= true_one && found <= true_one * 2, "{percent}: {found:?}");
        }
        assert_eq!(waits.count(), 1000);
        assert_eq!(waits.most(), Duration::from_secs(1));
        assert_eq!(Histogram::default().percentile(99), Duration::ZERO);
    }

    #[test]
    fn labels_cannot_break_out() {
        let stats = BudgetStats { name: "a\"b\\c\nd".to_owned(), ..BudgetStats::default() };
        assert!(stats.prometheus(&[]).contains(r#"{server="a\"b\\c\nd"} 0"#));
    }
}
