//! The table.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ratio::{Middle, median_time, verdict};
use crate::timing::Contender;

/// Between this line and [`END`] of the README, the report of a benchmark is replaced; the rest is written by people.
fn begin(benchmark: &str) -> String {
    format!("<!-- begin: cargo xtask bench {benchmark} -->\n")
}

const END: &str = "<!-- end -->\n";

pub(crate) struct Report {
    /// What the figures hold for.
    pub(crate) machine: Vec<String>,
    rows: Vec<[String; 7]>,
}

impl Report {
    pub(crate) fn new(machine: Vec<String>) -> Self {
        Self { machine, rows: Vec::new() }
    }

    /// Compares the first contender with another one; without a goal the row is for information.
    pub(crate) fn compare(&mut self, case: &str, ours: &Contender<'_>, other: &Contender<'_>, goal: Option<f64>) {
        let ratio = Middle::of_ratios(&ours.times, &other.times);
        self.rows.push([
            case.to_owned(),
            range(&ours.times),
            other.name.clone(),
            range(&other.times),
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high),
            goal.map(|goal| format!("≤ {goal}")).unwrap_or_default(),
            goal.map(|goal| verdict(ratio, goal, median_time(&ours.times)).to_owned()).unwrap_or_default(),
        ]);
        self.say_last();
    }

    /// Compares likewise times that are of so many things in a row, and shows those of one.
    pub(crate) fn compare_each(
        &mut self,
        case: &str,
        (ours, our_times): (&str, &[Duration]),
        (other, times): (&str, &[Duration]),
        each: u32,
        goal: Option<f64>,
    ) {
        let ratio = Middle::of_ratios(our_times, times);
        let of_one = |times: &[Duration]| range(&times.iter().map(|time| *time / each).collect::<Vec<_>>());
        self.say([
            format!("{case}{ours}"),
            of_one(our_times),
            other.to_owned(),
            of_one(times),
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high),
            goal.map(|goal| format!("≤ {goal}")).unwrap_or_default(),
            goal.map(|goal| verdict(ratio, goal, median_time(our_times)).to_owned()).unwrap_or_default(),
        ]);
    }

    /// Holds a time against a fixed one.
    pub(crate) fn time(&mut self, case: &str, times: &[Duration], goal: Duration) {
        let met = if median_time(times) <= goal { "yes" } else { "no" };
        self.say([case, &range(times), "", "", "", &format!("≤ {goal:?}"), met].map(str::to_owned));
    }

    /// Shows by how much times differ from others of the same rounds, which should be by at most so much.
    pub(crate) fn added(&mut self, case: &str, ours: &[Duration], (other, times): (&str, &[Duration]), goal: Duration) {
        let added = Middle::of_differences(ours, times);
        let met = if added.median <= goal.as_secs_f64() { "yes" } else { "no" };
        let [median, low, high] = [added.median, added.low, added.high].map(|seconds| seconds * 1000.0);
        self.say([
            case.to_owned(),
            range(ours),
            other.to_owned(),
            range(times),
            format!("{median:+.1} ms ({low:+.1}–{high:+.1})"),
            format!("≤ +{goal:?}"),
            met.to_owned(),
        ]);
    }

    /// Shows something that is not a time.
    pub(crate) fn note(&mut self, case: &str, ours: &str, (other, theirs): (&str, &str), goal: Option<(&str, bool)>) {
        let met = goal.map_or("", |(_, met)| if met { "yes" } else { "no" });
        self.say([case, ours, other, theirs, "", goal.map_or("", |(goal, _)| goal), met].map(str::to_owned));
    }

    fn say(&mut self, row: [String; 7]) {
        self.rows.push(row);
        self.say_last();
    }

    /// Compares an amount of memory with a fixed one.
    pub(crate) fn memory(&mut self, case: &str, bytes: u64, others: &str, goal: u64) {
        let met = if bytes <= goal { "yes" } else { "no" };
        let row = [case, &megabytes(bytes), others, "", "", &format!("≤ {}", megabytes(goal)), met];
        self.rows.push(row.map(str::to_owned));
        self.say_last();
    }

    /// Compares a speed, in millions of bytes a second, with a fixed one; the ratio is of times, as everywhere.
    pub(crate) fn speed(
        &mut self,
        case: &str,
        bytes: usize,
        ours: &[Duration],
        (name, other): (&str, &[Duration]),
        goal: f64,
    ) {
        let ratio = Middle::of_ratios(ours, other);
        let met = if speed(bytes, median_time(ours)) >= goal { "yes" } else { "no" };
        let with_speed = |times: &[Duration]| format!("{:.0} MB/s, {}", speed(bytes, median_time(times)), range(times));
        self.rows.push([
            case.to_owned(),
            with_speed(ours),
            name.to_owned(),
            with_speed(other),
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high),
            format!("≥ {goal} MB/s"),
            met.to_owned(),
        ]);
        self.say_last();
    }

    fn say_last(&self) {
        if let Some(row) = self.rows.last() {
            eprintln!("{}", row.join(" | "));
        }
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for line in &self.machine {
            let _ = writeln!(text, "* {line}");
        }
        text.push_str("\n| case | pgfleet | against | its time | ratio (interval) | goal | met |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// Median, smallest and largest.
pub(crate) fn range(times: &[Duration]) -> String {
    let (low, high) = (times.iter().min(), times.iter().max());
    let (low, high) = (low.copied().unwrap_or_default(), high.copied().unwrap_or_default());
    let middle = median_time(times);
    if middle < Duration::from_micros(10) {
        let ns = |time: Duration| time.as_nanos();
        format!("{} ns ({}–{})", ns(middle), ns(low), ns(high))
    } else if middle < Duration::from_millis(1) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        format!("{:.1} µs ({:.1}–{:.1})", us(middle), us(low), us(high))
    } else if middle < Duration::from_secs(1) {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        format!("{:.1} ms ({:.1}–{:.1})", ms(middle), ms(low), ms(high))
    } else {
        format!("{:.2} s ({:.2}–{:.2})", middle.as_secs_f64(), low.as_secs_f64(), high.as_secs_f64())
    }
}

/// Millions of bytes a second.
fn speed(bytes: usize, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "millions")]
    let megabytes = bytes as f64 / 1e6;
    megabytes / time.as_secs_f64()
}

/// With one decimal; a megabyte is a million bytes, the stricter reading of a goal.
pub(crate) fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

pub(crate) fn write_readme(benchmark: &str, report: &str) -> Result<()> {
    let path = PathBuf::from("bench/README.md");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(&path, replaced(&text, benchmark, report).context("bench/README.md has no place for the report")?)?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn replaced(text: &str, benchmark: &str, report: &str) -> Option<String> {
    let begin = begin(benchmark);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}{report}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_report_is_replaced() {
        let section = |name, text| format!("{}{text}\n{END}", begin(name));
        let text = format!("a\n{}b\n{}c\n", section("one", "old"), section("two", "old"));
        let expected = format!("a\n{}b\n{}c\n", section("one", "old"), section("two", "new"));
        assert_eq!(replaced(&text, "two", "new\n").unwrap(), expected);
        assert_eq!(replaced("a\n", "two", "new\n"), None);
    }

    #[test]
    fn a_speed_is_held_against_the_slowest_that_will_do() {
        let mut report = Report::new(Vec::new());
        let times = |millis: u64| vec![Duration::from_millis(millis); 3];
        report.speed("fast", 20_000_000, &times(100), ("copy", &times(2)), 100.0);
        report.speed("slow", 20_000_000, &times(250), ("copy", &times(2)), 100.0);
        let text = report.render();
        assert!(text.contains("| fast | 200 MB/s, 100.0 ms (100.0–100.0) | copy | 10000 MB/s, "), "{text}");
        assert!(text.contains("| 50.00 (50.00–50.00) | ≥ 100 MB/s | yes |"), "{text}");
        assert!(text.contains("| slow | 80 MB/s, ") && text.contains("≥ 100 MB/s | no |"), "{text}");
    }

    #[test]
    fn the_readme_has_a_place_for_each_report() {
        for benchmark in ["migrate", "connections", "tenants", "events", "messages"] {
            assert!(replaced(include_str!("../README.md"), benchmark, "new\n").is_some(), "{benchmark}");
        }
    }
}
