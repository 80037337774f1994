//! (a) Making tenants, one and many.

use anyhow::Result;

use super::solution::Solution;
use super::{AT_A_TIME, Bench};
use crate::report::Report;
use crate::timing::{self, Contender};

/// So many in the second part.
const MANY: usize = 200;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, limit, .. } = bench;
    let solution = Solution::make(bench, "making")?;
    // Makes the template.
    timing::time(&mut solution.command(&["tenant", "create", "first"]))?;
    let template = solution.template()?;
    let url = server.url("postgres");
    let copy = |name: &str| format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log");
    let tenant = |round: usize| format!("one-{round}");
    for round in 0..=options.rounds {
        limit.message(&format!("copy-{round}.sql"), &(copy(&format!("copy_{round}")) + "\n"))?;
    }
    let folder = bench.work.join("limit");
    let mut one = [
        Contender::new("pgfleet tenant create", |round| {
            solution.command(&["tenant", "create", &tenant(round), "--property", "admin_email=a@b.example"])
        }),
        Contender::new("limit: CREATE DATABASE … TEMPLATE", |round| {
            limit.statements(1, &url, &folder.join(format!("copy-{round}.sql")))
        }),
    ];
    for round in 0..=options.rounds {
        timing::round_with(&mut one, round, round > 0, || server.prepare(|| Ok(())))?;
    }
    report.compare("(a) a tenant with one service, 50 migrations and a seed", &one[0], &one[1], Some(1.5));

    let count = if options.quick { 20 } else { MANY };
    let tenants = |round: usize| (0..count).map(|number| format!("r{round}-{number}")).collect::<Vec<_>>();
    let copies = |round: usize| (0..count).map(|number| format!("copies_{round}_{number}")).collect::<Vec<_>>();
    let mut files = Vec::new();
    for round in 0..=options.rounds {
        files.push(solution.names(&format!("names-{round}"), &tenants(round))?);
        let lines: Vec<String> = copies(round).iter().map(|name| copy(name)).collect();
        limit.message(&format!("copies-{round}.sql"), &(lines.join("\n") + "\n"))?;
    }
    let at_a_time = AT_A_TIME.to_string();
    let mut many = [
        Contender::new("pgfleet tenant create", |round| {
            solution.command(&["tenant", "create", "--from", &files[round], "--concurrency", &at_a_time])
        }),
        Contender::new(format!("limit: {AT_A_TIME} threads copy"), |round| {
            limit.statements(AT_A_TIME, &url, &folder.join(format!("copies-{round}.sql")))
        }),
    ];
    for round in 0..=options.rounds {
        eprintln!("{count} tenants, round {round} of {}", options.rounds);
        timing::round_with(&mut many, round, round > 0, || server.prepare(|| Ok(())))?;
    }
    // Not between the rounds: for minutes after thousands of files were deleted, ext4 searches longer for the
    // inode of each new one, and half of a copy's time would be that.
    server.prepare(|| {
        for round in 0..=options.rounds {
            let own: Vec<String> = tenants(round).iter().map(|tenant| solution.database(tenant)).collect();
            server.drop(&own)?;
            server.drop(&copies(round))?;
        }
        Ok(())
    })?;
    report.compare(&format!("(a) {count} tenants"), &many[0], &many[1], Some(1.4));
    Ok(())
}
