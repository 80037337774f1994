//! (d) Memory with 10,000 targets, (e) where 3,000 stand: tenants whose databases are written down and do not exist.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgfleet_control::manifest::{Manifest, Sources};
use pgfleet_control::solution::Surroundings;
use pgfleet_control::tenants::{Choices, NewString};
use pgfleet_migrate::Observer;
use pgfleet_migrate::event::Silent;

use super::Bench;
use super::options::Case;
use super::solution::Solution;
use crate::report::Report;
use crate::timing;

const SHOWN: usize = 3_000;
const MANY: usize = 10_000;
const PEAK: u64 = 100_000_000;
const SHOW: Duration = Duration::from_millis(200);

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, limit, .. } = bench;
    let solution = Solution::make(bench, "many")?;
    let (shown, many) = if options.quick { (100, 200) } else { (SHOWN, MANY) };
    server.prepare(|| make(bench, &solution, 0..shown))?;
    if options.has(Case::Status) {
        // As if each had a database that somebody looked at.
        let control = solution.control();
        let statements = [
            "UPDATE control.tenant_strings SET system_identifier = '7', database_oid = substr(tenant, 2)::oid"
                .to_owned(),
            format!(
                "INSERT INTO control.targets (server, database, service, set_name, tenant, system_identifier, \
                 database_oid, version, state, plan) SELECT 'main', tenant, '{0}', '{0}', tenant, '7', database_oid, '50', \
                 CASE WHEN database_oid::bigint % 1000 = 0 THEN 'failed' ELSE 'current' END, 'v1:0' \
                 FROM control.tenant_strings",
                solution.service()
            ),
        ];
        server.execute(&control, &statements)?;
        let mut times = Vec::new();
        for round in 0..=options.rounds {
            let mut command = solution.command(&["status"]);
            let took = timing::time(&mut command)?;
            if round > 0 {
                times.push(took);
            }
        }
        ensure!(solution.output(&["status"])?.lines().count() < 60, "the summary does not fit a screen");
        report.time(&format!("(e) status, {shown} targets"), &times, SHOW);
        server.execute(&control, &["TRUNCATE control.targets".to_owned()])?;
    }
    if options.has(Case::Memory) {
        server.prepare(|| make(bench, &solution, shown..many))?;
        // Not one of them is there: each is tried, fails and is written down.
        let failures = (2 * many).to_string();
        let arguments = ["migrate", "--concurrency", "4", "--canary", "0", "--max-failures", &failures];
        let command = solution.command(&arguments);
        // It ends with 1, so its own exit code is nothing that `peak` may take for a mistake.
        let shell = format!("\"$0\" {} >/dev/null 2>&1; exec true", arguments.join(" "));
        let mut through = std::process::Command::new("sh");
        through.arg("-c").arg(shell).arg(command.get_program());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                through.env(name, value);
            }
        }
        through.current_dir(solution.folder());
        let peak = limit.peak(&through)?;
        report.memory(&format!("(d) peak memory, {many} targets"), peak, "", PEAK);
        let pending = solution.command(&["migrate", "--check"]).status()?;
        ensure!(pending.code() == Some(5), "all of them are pending still");
    }
    Ok(())
}

/// Makes tenants with strings that nobody tried.
fn make(bench: &Bench<'_>, solution: &Solution<'_>, numbers: std::ops::Range<usize>) -> Result<()> {
    let variables = vec![("PGFLEET_SERVERS__MAIN__URL".to_owned(), bench.server.url("postgres"))];
    let sources = Sources { manifest: solution.folder().join("pgfleet.toml"), variables, ..Sources::default() };
    let manifest = Manifest::load(&sources).map_err(|error| anyhow::anyhow!("{error}"))?.manifest;
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned();
    let surroundings = Surroundings { key: Some(key.into()), ..Surroundings::default() };
    let observer: Arc<dyn Observer> = Arc::new(Silent);
    crate::connections::setting::runtime()?.block_on(async {
        let opened =
            pgfleet_control::Solution::open(manifest, &surroundings).await.context("cannot open the solution")?;
        for number in numbers {
            let string = NewString { connection: String::new(), text: format!("dbname=nowhere_{number}").into() };
            let choices = Choices { check: false, shared: false };
            opened.create_tenant(&format!("t{number}"), None, &[string], choices, &observer).await?;
        }
        Ok::<_, anyhow::Error>(())
    })
}
