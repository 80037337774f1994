//! (g) A fleet that is too large for one machine: 10,000 tenants with five services on twenty servers.
//!
//! What one target costs is measured here, at several counts at a time; the fleet is computed from it. Each server is
//! taken to be as fast as this machine's, which also runs pgfleet: a server of its own is faster. A machine that runs
//! pgfleet is taken to do as many targets a second as its processors allow, by the processor time of one target.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Bench;
use super::solution::Solution;
use crate::report::Report;
use crate::timing;

const SERVERS: usize = 20;
const TENANTS: usize = 10_000;
const SERVICES: u32 = 5;
/// Processors of a machine that runs pgfleet.
const PROCESSORS: f64 = 2.0;
const CANARY: usize = 1;
const GROWTH: usize = 4;

/// What one service in one database costs with so many at a time.
struct Cost {
    at_a_time: usize,
    /// From beginning to end.
    latency: Duration,
}

pub(super) fn measure(bench: &Bench<'_>, solution: &Solution<'_>, report: &mut Report) -> Result<()> {
    let targets = u32::try_from(bench.options.tenants)?;
    let mut costs = Vec::new();
    let mut processor = Duration::ZERO;
    for at_a_time in [1, 2, 4, 8] {
        solution.more()?;
        bench.server.prepare(|| Ok(()))?;
        let before = children()?;
        let took = timing::time(&mut solution.command(&["migrate", "--concurrency", &at_a_time.to_string()]))?;
        processor = children()?.saturating_sub(before) / targets;
        costs.push(Cost { at_a_time, latency: took * u32::try_from(at_a_time)? / targets });
    }
    let shown: Vec<String> =
        costs.iter().map(|cost| format!("{} at a time: {:.1?}", cost.at_a_time, cost.latency)).collect();
    report.note(
        "(g) one service in one database",
        &shown.join(", "),
        ("processor time of pgfleet", &format!("{processor:.1?}")),
        None,
    );
    for cost in &costs {
        for machines in [1, 2, 4] {
            let took = fleet(cost, machines, processor);
            report.note(
                &format!("(g) {TENANTS} tenants × {SERVICES} services on {SERVERS} servers, computed"),
                &format!("{:.1} min", took.as_secs_f64() / 60.0),
                (
                    &format!("{} at a time a server, {machines} machines", cost.at_a_time),
                    &format!("{} connections", SERVERS * cost.at_a_time + machines),
                ),
                None,
            );
        }
    }
    Ok(())
}

/// Computes how long one migration of every service takes: each wave begins when the one before is over.
fn fleet(cost: &Cost, machines: usize, processor: Duration) -> Duration {
    let mut now = 0.0;
    let (mut wave, mut left) = (CANARY, TENANTS);
    while left > 0 {
        let size = wave.min(left);
        now = run_wave(now, size, cost, machines, processor);
        left -= size;
        wave = wave.saturating_mul(GROWTH);
    }
    Duration::from_secs_f64(now)
}

/// Runs a wave whose targets are dealt out to the servers in turn; returns when the last one is over.
fn run_wave(begin: f64, size: usize, cost: &Cost, machines: usize, processor: Duration) -> f64 {
    // The slots of all servers, by when they are free.
    let mut slots: Vec<BinaryHeap<Reverse<u64>>> =
        (0..SERVERS).map(|_| std::iter::repeat_n(Reverse(nanos(begin)), cost.at_a_time).collect()).collect();
    let work = processor.as_secs_f64() * f64::from(SERVICES);
    #[expect(clippy::cast_precision_loss, reason = "a handful of machines")]
    let rate = work / (PROCESSORS * machines as f64);
    let (mut machine, mut last) = (begin, begin);
    for target in 0..size {
        let free = &mut slots[target % SERVERS];
        let Some(Reverse(at)) = free.pop() else { continue };
        // Both a place on the server and time on a machine are needed.
        machine = machine.max(begin) + rate;
        let end = (seconds(at).max(machine - rate)) + (cost.latency * SERVICES).as_secs_f64();
        free.push(Reverse(nanos(end)));
        last = last.max(end);
    }
    last
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times of some hours")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[expect(clippy::cast_precision_loss, reason = "times of some hours")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The processor time of all processes that this one has waited for.
fn children() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name before them may have spaces in it.
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/self/stat")?;
    let ticks: u64 = rest.split_whitespace().skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    // A tick is a hundredth of a second on every Linux.
    Ok(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(at_a_time: usize, machines: usize) -> f64 {
        let cost = Cost { at_a_time, latency: Duration::from_millis(20) };
        fleet(&cost, machines, Duration::from_millis(2)).as_secs_f64()
    }

    #[test]
    fn servers_or_machines_are_the_limit() {
        // 500 targets a server of 100 ms each; one machine does 200 targets a second.
        let by_servers = took(1, 4);
        assert!((50.0..60.0).contains(&by_servers), "{by_servers}");
        let by_machine = took(8, 1);
        assert!((50.0..60.0).contains(&by_machine), "{by_machine}");
        assert!(took(8, 4) < 20.0);
    }
}
