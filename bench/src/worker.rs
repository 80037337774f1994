//! One step in many databases, four at a time: in Rust, by the program that has it, and the same in SQL.
//!
//! A service has as many databases as it has tenants, and a step in Rust has each of them handed over to one process of
//! the service's program. What that costs is the whole of the difference: the same statements, engine and history.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use pgfleet::{Db, Migration, Service, StepResult};
use pgfleet_control::fleet::{Job, Work, run_all};
use pgfleet_control::program::Handling;
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::worker::Program;
use pgfleet_migrate::{Options as RunOptions, Outcome, Set, SetPath, Target};
use pgfleet_postgres::Address;

use crate::options::Options;
use crate::report::Report;
use crate::server::Server;
use crate::timing::{self, Contender};

const AT_A_TIME: usize = 4;

const SERVICE: &str = "bench";

const SQL: &str = "CREATE TABLE item (id bigint PRIMARY KEY, name text NOT NULL);\n\
                   INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 100) n;\n";

struct Fill;

impl Migration for Fill {
    fn id(&self) -> &'static str {
        "1_fill"
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        db.batch(SQL).await
    }
}

/// This program as the service's.
pub(crate) fn serve() -> Result<()> {
    runtime()?.block_on(async {
        Service::builder(SERVICE).migration(Fill).start().await?;
        bail!("it was not called as a worker")
    })
}

/// One contender: works on the databases that a file lists, to the end.
pub(crate) fn work(kind: &str, list: &Path) -> Result<()> {
    runtime()?.block_on(async {
        let program = Arc::new(Program::new(SERVICE, std::env::current_exe()?, Arc::new(Silent)));
        let (path, handling) = match kind {
            "rust" => {
                let empty = SetPath::incomplete(Vec::new(), Set::from_migrations(SERVICE, Vec::new()));
                let path = program.describe().await?.join(&empty, program.path())?;
                ensure!(path.needs_program(), "the step is not Rust");
                (path, Handling::ByProgram(program.clone()))
            }
            "sql" => {
                let files = vec![("1_fill.sql".into(), SQL.into())];
                (Set::from_files(SERVICE, Path::new(""), files, None)?.into(), Handling::Here)
            }
            _ => bail!("there is no step in {kind}"),
        };
        let path = Arc::new(path);
        let mut jobs = Vec::new();
        for url in fs::read_to_string(list)?.lines() {
            let address = Address::parse(url)?;
            jobs.push(Job {
                service: SERVICE.to_owned(),
                server: "main".to_owned(),
                target: Target::new(address.database().to_owned(), address),
                path: path.clone(),
                handling: handling.clone(),
            });
        }
        let reports = run_all(jobs, Work::Migrate, &RunOptions::default(), AT_A_TIME, Arc::new(Silent)).await;
        program.close().await;
        for report in reports {
            let report = report.result?;
            ensure!(report.outcome == Outcome::Applied, "{}: {:?}", report.target, report.outcome);
        }
        Ok(())
    })
}

pub(crate) fn measure(options: &Options, work: &Path, server: &Server, report: &mut Report) -> Result<()> {
    let kinds = ["rust", "sql"];
    let databases: BTreeMap<&str, Vec<String>> = kinds
        .into_iter()
        .map(|kind| (kind, (0..options.databases).map(|number| format!("{kind}_{number:03}")).collect()))
        .collect();
    let own = std::env::current_exe().context("this program has no file")?;
    let mut contenders = Vec::new();
    for kind in kinds {
        let list = work.join(format!("{kind}.list"));
        let urls: Vec<String> = databases[kind].iter().map(|name| server.url(name)).collect();
        fs::write(&list, urls.join("\n"))?;
        let own = own.clone();
        let name = if kind == "rust" { "pgfleet" } else { "pgfleet: the same step in SQL" };
        contenders.push(Contender::new(name, move |_| {
            let mut command = Command::new(&own);
            command.args(["step", kind]).arg(&list);
            command
        }));
    }
    for round in 0..=options.rounds {
        eprintln!("a step in {} databases, round {round} of {}", options.databases, options.rounds);
        server.prepare(|| {
            for names in databases.values() {
                server.drop(names)?;
                server.create(names)?;
            }
            Ok(())
        })?;
        timing::round_with(&mut contenders, round, round > 0, || server.prepare(|| Ok(())))?;
    }
    for names in databases.values() {
        server.drop(names)?;
    }
    let case = format!("(f) one step in Rust, {} databases", options.databases);
    report.compare(&case, &contenders[0], &contenders[1], Some(1.3));
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    // As the command line has it.
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
