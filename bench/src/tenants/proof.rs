//! (f) A fleet with breakdowns: made, rolled out with a canary, halted, mended, killed and gone on with; in the end every
//! migration is in every database once.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::solution::{SERVICE, Solution};
use super::{AT_A_TIME, Bench};
use crate::report::Report;
use crate::timing;

const KILLS: usize = 20;
const MORE: usize = 5;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, .. } = bench;
    let solution = Solution::make(bench, "proof")?;
    let count = options.tenants;
    let names: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
    let file = solution.names("names", &names)?;
    let at_a_time = AT_A_TIME.to_string();
    let began = Instant::now();
    timing::time(&mut solution.command(&["tenant", "create", "--from", &file, "--concurrency", &at_a_time]))?;
    let made = began.elapsed();

    // Three databases in which the first of the new migrations fails.
    let broken: Vec<&String> = names.iter().skip(count / 3).take(3).collect();
    for name in &broken {
        server.execute(&solution.database(name), &[format!("CREATE TABLE {SERVICE}.in_the_way (id int)")])?;
    }
    solution.migration(|_| "CREATE TABLE in_the_way (id int);\n".to_owned())?;
    for _ in 1..MORE {
        solution.more()?;
    }
    let began = Instant::now();
    let halted =
        solution.command(&["migrate", "--concurrency", &at_a_time, "--canary", "2", "--max-failures", "2"]).output()?;
    ensure!(halted.status.code() == Some(1), "three failures halt it: {}", String::from_utf8_lossy(&halted.stderr));
    for name in &broken {
        server.execute(&solution.database(name), &[format!("DROP TABLE {SERVICE}.in_the_way")])?;
    }
    let id = rollout(&solution)?;
    let mut killed = 0;
    // A simple generator: the moments are spread, and the same in each run.
    let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
    while killed < KILLS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut command = solution.command(&["rollout", "resume", &id]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(40 + seed % 400));
        if child.try_wait()?.is_some() {
            break;
        }
        child.kill()?;
        child.wait()?;
        killed += 1;
    }
    // What is left, by two runners at once, and then what failed.
    let other = solution.command(&["rollout", "resume", &id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _ended = solution.command(&["rollout", "resume", &id]).output()?;
    other?.wait()?;
    let retried = solution.command(&["rollout", "retry", &id]).output()?;
    let _ended = solution.command(&["migrate"]).output()?;
    let took = began.elapsed();
    let left = solution.command(&["migrate", "--check", "--recheck"]).output()?;
    ensure!(
        left.status.success(),
        "something is pending in the end: {}{}",
        String::from_utf8_lossy(&retried.stderr),
        String::from_utf8_lossy(&left.stderr)
    );
    let expected = 50 + MORE;
    for name in &names {
        let sql = format!(
            "DO $$ BEGIN ASSERT (SELECT count(*) FROM pgfleet.{}_migrations) = {expected}, 'history'; END $$",
            solution.service()
        );
        server.execute(&solution.database(name), &[sql])?;
    }
    report.note(
        &format!("(f) {count} tenants: made, {MORE} migrations, 3 broken, halted, mended, resumed"),
        &format!("made in {made:.1?}, the rest in {took:.1?}"),
        ("killed", &format!("{killed} times")),
        Some(("every migration once in every database", true)),
    );
    let own: Vec<String> = names.iter().map(|name| solution.database(name)).collect();
    server.prepare(|| server.drop(&own))
}

/// The number of the only rollout.
fn rollout(solution: &Solution<'_>) -> Result<String> {
    let text = solution.output(&["rollout", "list", "--json"])?;
    let digits = |rest: &str| rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>();
    let ids: Vec<String> = text.split("\"id\":").skip(1).map(digits).collect();
    ensure!(ids.len() == 1, "there is one rollout: {text}");
    Ok(ids[0].clone())
}
