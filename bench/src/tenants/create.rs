//! (a) Making tenants, one and many.

use anyhow::{Result, ensure};

use super::solution::{SERVICE, Solution};
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
    let by_hand = ByHand::of(bench, &solution)?;
    let seed = limit.message("seed.sql", &by_hand.seed)?;
    let url = server.url("postgres");

    let count = if options.quick { 20 } else { MANY };
    for (case, count, at_a_time, goal) in [
        ("(a) a tenant with one service, 50 migrations and a seed", 1, 1, 1.5),
        (&*format!("(a) {count} tenants"), count, AT_A_TIME, 1.4),
    ] {
        let tenants = |round| (0..count).map(|number| format!("r{round}-of-{count}-{number}")).collect::<Vec<_>>();
        let made = |kind: &str, round: usize| {
            (0..count).map(|number| format!("{kind}_{round}_of_{count}_{number}")).collect::<Vec<_>>()
        };
        let (mut files, mut lines, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=options.rounds {
            files.push(solution.names(&format!("names-{round}-of-{count}"), &tenants(round))?);
            let text: Vec<String> =
                made("made", round).iter().map(|name| by_hand.line(name, &server.url(name))).collect();
            lines.push(limit.message(&format!("made-{round}-of-{count}"), &(text.join("\n") + "\n"))?);
            let text: Vec<String> = made("copy", round).iter().map(|name| by_hand.copy(name)).collect();
            copies.push(limit.message(&format!("copies-{round}-of-{count}"), &(text.join("\n") + "\n"))?);
        }
        let concurrency = at_a_time.to_string();
        let mut turns = [
            Contender::new("pgfleet tenant create", |round| {
                if count == 1 {
                    let tenant = &tenants(round)[0];
                    return solution.command(&["tenant", "create", tenant, "--property", "admin_email=a@b.example"]);
                }
                solution.command(&["tenant", "create", "--from", &files[round], "--concurrency", &concurrency])
            }),
            Contender::new("limit: copy, mark, rights, seed", |round| {
                limit.make(at_a_time, &url, &seed, &lines[round])
            }),
            Contender::new("limit: CREATE DATABASE … TEMPLATE alone", |round| {
                limit.statements(at_a_time, &url, &copies[round])
            }),
        ];
        for round in 0..=options.rounds {
            eprintln!("{count} tenants, round {round} of {}", options.rounds);
            timing::round_with(&mut turns, round, round > 0, || server.prepare(|| Ok(())))?;
        }
        verify(bench, &solution.database(&tenants(0)[0]), &made("made", 0)[0])?;
        // Not between the rounds: for minutes after thousands of files were deleted, ext4 searches longer for the
        // inode of each new one, and half of a copy's time would be that.
        server.prepare(|| {
            for round in 0..=options.rounds {
                let own: Vec<String> = tenants(round).iter().map(|tenant| solution.database(tenant)).collect();
                server.drop(&own)?;
                server.drop(&made("made", round))?;
                server.drop(&made("copy", round))?;
            }
            Ok(())
        })?;
        report.compare(case, &turns[0], &turns[1], Some(goal));
        report.compare(case, &turns[0], &turns[2], Some(goal));
    }
    Ok(())
}

/// What a tenant is to the server, said in SQL: the copy with its mark and rights, and its seed with the record of it.
struct ByHand {
    template: String,
    /// Whose tenants' databases are.
    owner: String,
    /// The statements between the copy and its use, with `{}` for the database.
    rights: String,
    seed: String,
}

impl ByHand {
    /// Takes from a tenant that was made what there is to be done.
    fn of(bench: &Bench<'_>, solution: &Solution<'_>) -> Result<Self> {
        let owner = bench.server.read(
            "postgres",
            &format!("SELECT datdba::regrole FROM pg_database WHERE datname = '{}'", solution.database("first")),
        )?;
        let grants = bench.server.read(
            "postgres",
            &format!(
                "SELECT format('GRANT %s ON DATABASE {{}} TO %s', privilege_type, string_agg(grantee::regrole::text, ', ')) \
                 FROM pg_database, aclexplode(datacl) WHERE datname = '{}' AND grantee <> datdba \
                 GROUP BY privilege_type ORDER BY privilege_type",
                solution.database("first")
            ),
        )?;
        ensure!(!grants.trim().is_empty(), "nobody may use a tenant's database");
        let mark = "COMMENT ON DATABASE {} IS 'pgfleet: solution limit, tenant first'";
        let rights = format!(
            "{mark}; REVOKE ALL ON DATABASE {{}} FROM PUBLIC; {}; ALTER DATABASE {{}} ALLOW_CONNECTIONS true IS_TEMPLATE false",
            grants.trim().replace('\n', "; ")
        );
        let seed = format!(
            "BEGIN; SET LOCAL lock_timeout = '2s'; \
             INSERT INTO {SERVICE}.item_01 (name) VALUES ('first admin@bench.example') ON CONFLICT DO NOTHING; \
             INSERT INTO pgfleet.{}_seeds (name, checksum, os_user, host, tool, run, took_ms) VALUES \
             ('1_admin', 'v1:{}', 'somebody', 'somewhere', 'limit', '00000000-0000-0000-0000-000000000000', 0.5); COMMIT",
            solution.service(),
            "0".repeat(64)
        );
        Ok(Self { template: solution.template()?, owner: owner.trim().to_owned(), rights, seed })
    }

    fn copy(&self, name: &str) -> String {
        format!("CREATE DATABASE {name} TEMPLATE {} STRATEGY wal_log", self.template)
    }

    fn line(&self, name: &str, url: &str) -> String {
        let closed = format!("{} OWNER {} ALLOW_CONNECTIONS false", self.copy(name), self.owner);
        format!("{closed}\t{}\t{url}", self.rights.replace("{}", name))
    }
}

/// Compares what was made by hand with what pgfleet made: rights, rows of the seed, and the record of it.
fn verify(bench: &Bench<'_>, ours: &str, theirs: &str) -> Result<()> {
    let rights = |name: &str| {
        bench.server.read(
            "postgres",
            &format!(
                "SELECT datallowconn, datistemplate, grantee::regrole, privilege_type \
                 FROM pg_database, aclexplode(datacl) WHERE datname = '{name}' ORDER BY 3, 4"
            ),
        )
    };
    ensure!(rights(ours)? == rights(theirs)?, "{theirs} has other rights than {ours}");
    let rows = format!("SELECT count(*) FROM {SERVICE}.item_01");
    ensure!(
        bench.server.read(ours, &rows)? == bench.server.read(theirs, &rows)?,
        "{theirs} has other rows than {ours}"
    );
    Ok(())
}
