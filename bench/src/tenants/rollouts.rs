//! (b) Nothing to do, (c) a rollout of one migration, (d) its memory; and what (g) is computed from.

use std::time::Duration;

use anyhow::Result;

use super::options::Case;
use super::solution::{SERVICE, Solution};
use super::{AT_A_TIME, Bench, simulate};
use crate::report::Report;
use crate::timing::{self, Contender};

/// The most that a rollout may take of memory.
const PEAK: u64 = 100_000_000;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, limit, .. } = bench;
    let solution = Solution::make(bench, "fleet")?;
    let count = options.tenants;
    let names: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
    let file = solution.names("names", &names)?;
    let at_a_time = AT_A_TIME.to_string();
    server.prepare(|| {
        let took = timing::time(&mut solution.command(&["tenant", "create", "--from", &file, "--concurrency", &at_a_time]))?;
        eprintln!("{count} tenants made in {took:.1?}, nothing on disk");
        let history = "CREATE TABLE limit_history (version text PRIMARY KEY, description text NOT NULL DEFAULT '', \
            checksum text, raw_hash text, sql text, down text, applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
            applied_by text NOT NULL DEFAULT session_user, os_user text, host text, tool text, run uuid, \
            took_ms double precision, announced_at timestamptz)";
        let message = limit.message("history.sql", history)?;
        let targets = targets(bench, &solution, &names)?;
        timing::time(&mut limit.run(AT_A_TIME, &message, &targets)).map(drop)
    })?;
    let targets = targets(bench, &solution, &names)?;
    if options.has(Case::Nothing) {
        nothing(bench, &solution, &targets, report)?;
    }
    if options.has(Case::Rollout) {
        rollout(bench, &solution, &targets, report)?;
    }
    if options.has(Case::Memory) {
        solution.more()?;
        let command = solution.command(&["migrate", "--concurrency", &at_a_time]);
        report.memory(&format!("(d) peak memory, {count} targets"), limit.peak(&command)?, "", PEAK);
    }
    if options.has(Case::Simulation) {
        simulate::measure(bench, &solution, report)?;
    }
    let own: Vec<String> = names.iter().map(|name| solution.database(name)).collect();
    server.prepare(|| server.drop(&own))
}

fn targets(bench: &Bench<'_>, solution: &Solution<'_>, names: &[String]) -> Result<std::path::PathBuf> {
    let urls: Vec<String> = names.iter().map(|name| bench.server.url(&solution.database(name))).collect();
    bench.limit.targets("tenants", &urls)
}

fn nothing(bench: &Bench<'_>, solution: &Solution<'_>, targets: &std::path::Path, report: &mut Report) -> Result<()> {
    let Bench { options, server, limit, .. } = bench;
    let look = limit.message(
        "look-tenants.sql",
        &format!(
            "SELECT version, description, checksum, raw_hash, applied_at FROM pgfleet.{}_migrations",
            solution.service()
        ),
    )?;
    let at_a_time = AT_A_TIME.to_string();
    let mut times = Vec::new();
    let mut looking = [
        Contender::new("pgfleet migrate --recheck", |_| {
            solution.command(&["migrate", "--recheck", "--concurrency", &at_a_time])
        }),
        Contender::new(format!("limit: {AT_A_TIME} threads over libpq"), |_| limit.run(AT_A_TIME, &look, targets)),
    ];
    // What was made is known to be current.
    timing::time(&mut solution.command(&["migrate"]))?;
    for round in 0..=options.rounds {
        eprintln!("nothing to do, round {round} of {}", options.rounds);
        server.prepare(|| Ok(()))?;
        let took = timing::time(&mut solution.command(&["migrate"]))?;
        if round > 0 {
            times.push(took);
        }
        timing::round_with(&mut looking, round, round > 0, || server.prepare(|| Ok(())))?;
    }
    let count = options.tenants;
    report.time(&format!("(b) nothing to do, {count} targets"), &times, Duration::from_millis(100));
    report.compare(&format!("(b) --recheck, {count} targets"), &looking[0], &looking[1], Some(1.25));
    Ok(())
}

fn rollout(bench: &Bench<'_>, solution: &Solution<'_>, targets: &std::path::Path, report: &mut Report) -> Result<()> {
    let Bench { options, server, limit, .. } = bench;
    let at_a_time = AT_A_TIME.to_string();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        eprintln!("a rollout, round {round} of {}", options.rounds);
        let number = solution.more()?;
        let hash = "0".repeat(64);
        let message = limit.message(
            "roll.sql",
            &format!(
                "BEGIN; SET LOCAL lock_timeout = '2s'; ALTER TABLE {SERVICE}.item_01 ADD COLUMN limit_{number} integer; \
                 INSERT INTO limit_history (version, description, checksum, raw_hash, sql, os_user, host, tool, run, took_ms) \
                 VALUES ('{number:04}', 'more', 'v1:{hash}', '{hash}', 'ALTER TABLE item_01 ADD COLUMN more integer', \
                 'somebody', 'somewhere', 'limit', '00000000-0000-0000-0000-000000000000', 0.5); COMMIT"
            ),
        )?;
        let mut turn = [
            Contender::new("pgfleet", |_| solution.command(&["migrate", "--concurrency", &at_a_time])),
            Contender::new("limit", |_| limit.run(AT_A_TIME, &message, targets)),
        ];
        timing::round_with(&mut turn, round, round > 0, || server.prepare(|| Ok(())))?;
        ours.extend(turn[0].times.clone());
        theirs.extend(turn[1].times.clone());
    }
    let ours = Contender::measured("pgfleet", ours);
    let theirs = Contender::measured(format!("limit: {AT_A_TIME} threads over libpq"), theirs);
    report.compare(&format!("(c) one migration, {} targets", options.tenants), &ours, &theirs, Some(1.3));
    Ok(())
}
