//! A run of everything there is (two sets, SQL, Rust, batches, a file without a transaction, seeds,
//! announcements), killed at any moment in any way.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgfleet_local::StopMode;
use pgfleet_local::testing::OwnServer;
use pgfleet_migrate::announce::{Announce, Announced, Announcer, Applied};
use pgfleet_migrate::code::{Backfill, Batch, Migration, Seeder, StepResult};
use pgfleet_migrate::db::Db;
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::repair::{Repair, repair};
use pgfleet_migrate::{Error, ErrorKind, Options, Report, Seeds, Set, SetPath, Target, run};
use pgfleet_postgres::{Address, Connection, Purpose, connect};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::crash::rounds;
use crate::support::shown;

/// Adds one to a row of its own, in the migration's transaction.
struct Count;

impl Migration for Count {
    fn id(&self) -> &'static str {
        "2_count"
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        for _ in 0..3 {
            db.execute("insert into did (what) values ('count')", &[]).await?;
        }
        Ok(())
    }
}

/// Adds one to each number, ten at a time.
struct AddOne;

impl Backfill for AddOne {
    type Cursor = i32;

    fn id(&self) -> &'static str {
        "3_add_one"
    }

    async fn batch(&self, db: &Db<'_>, after: Option<i32>) -> StepResult<Batch<i32>> {
        let sql = "with part as (select id from numbers where id > $1 order by id limit 10), \
                   done as (update numbers set n = n + 1 from part where numbers.id = part.id) \
                   select max(id), count(*) from part";
        let row = db.query_one(sql, &[&after.unwrap_or(0)]).await?;
        Ok(Batch::new(row.get::<_, i64>(1), row.get(0)))
    }
}

struct Seeding;

impl Seeder for Seeding {
    fn name(&self) -> &'static str {
        "2_code"
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        db.execute("insert into seeded values ('code') on conflict do nothing", &[]).await?;
        Ok(())
    }
}

fn set(name: &str, files: &[(&str, &str)]) -> Set {
    let files = files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect();
    Set::from_files(name, &PathBuf::from(name), files, None).unwrap()
}

fn path() -> SetPath {
    let module = set(
        "module",
        &[
            (
                "1_did.sql",
                "create table did (what text); create table numbers as select g id, 0 n from generate_series(1, 95) g;",
            ),
            ("2_late.sql", "-- pgfleet: requires own@3\ninsert into did (what) values ('late');"),
        ],
    );
    let mut own = set(
        "own",
        &[
            ("1_seeded.sql", "create table seeded (what text primary key); insert into did (what) values ('one');"),
            (
                "4_index.sql",
                "-- pgfleet: no-transaction\ncreate table marks (id int);\n\
                         create index concurrently marks_id on marks (id);\ncreate index concurrently marks_2 on marks (id);",
            ),
            ("5_five.sql", "insert into did (what) values ('five');"),
            ("R__views.sql", "create or replace view v as select * from did;"),
        ],
    );
    own.add(Count).unwrap();
    own.add(AddOne).unwrap();
    let files = [("1_file.sql", "insert into seeded values ('file') on conflict do nothing;")];
    let mut own = own.with_seeds(Seeds::from_files(&PathBuf::from("seeds"), files, std::collections::BTreeMap::new()));
    own.add_seeder(Seeding).unwrap();
    SetPath::new(vec![module], own).unwrap()
}

/// What was said outside the database.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Applied>>>);

impl Announcer for Told {
    fn announce<'a>(&'a self, applied: &'a Applied) -> Announced<'a> {
        self.0.lock().unwrap().push(applied.clone());
        Box::pin(async { Ok(()) })
    }
}

struct Crashing {
    server: Option<OwnServer>,
    target: Target,
    path: Arc<SetPath>,
    options: Options,
    told: Told,
}

impl Crashing {
    async fn new() -> Self {
        // Without the background writer nothing reaches the disk but what a run puts there.
        let server = OwnServer::start(|options| {
            options.settings.push(("wal_writer_delay".to_owned(), "10s".to_owned()));
        });
        let server = server.await.unwrap();
        let target = Target::new("own", Address::parse(&server.superuser_url("postgres")).unwrap());
        let told = Told::default();
        let options = Options {
            max_tries: 1,
            wait_attempts: 1,
            announcer: Some(Announce::new(told.clone())),
            ..Options::default()
        };
        Self { server: Some(server), target, path: Arc::new(path()), options, told }
    }

    async fn connect(&self) -> Connection {
        connect(&self.target.address, &Purpose::new("test")).await.unwrap()
    }

    async fn migrate(&self) -> Result<Report, Error> {
        run::migrate(&self.target, &self.path, &self.options, &Silent).await
    }

    /// Runs until it is done, going on with the file without a transaction as its user would.
    async fn finish(&self, seed: u64) {
        for _ in 0..5 {
            let Err(error) = self.migrate().await else { return };
            assert_eq!(error.kind(), ErrorKind::Interrupted, "seed {seed}: {}", shown(&error));
            let version = "4".parse().unwrap();
            // Which of the two it needs depends on whether its first statement had ended.
            let resumed = repair(&self.target, self.path.own(), Repair::Resume, &version, &self.options, &Silent).await;
            if let Err(error) = resumed {
                let text = shown(&error);
                assert!(text.contains("already exists"), "seed {seed}: {text}");
                // The statement was done when its journal was not: what it made goes away by hand.
                self.connect().await.execute_all("drop table marks").await.unwrap();
                let reset =
                    repair(&self.target, self.path.own(), Repair::Reset, &version, &self.options, &Silent).await;
                // Where it was the first statement, its failing again ended the journal.
                let no_journal = |error: &Error| shown(error).contains("did not stop in the middle");
                assert!(reset.as_ref().err().is_none_or(no_journal), "seed {seed}: {reset:?}");
            }
        }
        panic!("seed {seed}: it does not come to an end");
    }

    /// Kills what runs in one of three ways.
    async fn crash(&mut self, random: &mut StdRng) {
        let (target, path, options) = (self.target.clone(), self.path.clone(), self.options.clone());
        let running = tokio::spawn(async move { run::migrate(&target, &path, &options, &Silent).await });
        let killer = self.connect().await;
        let wait = Duration::from_micros(random.random_range(0..60_000));
        tokio::time::sleep(wait).await;
        match random.random_range(0..5) {
            // The runner: what it had in flight is nobody's.
            0 | 1 => running.abort(),
            2 | 3 => killer
                .execute_all(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'pgfleet migrate%'",
                )
                .await
                .unwrap(),
            _ => {
                let mut server = self.server.take().unwrap();
                let restarted = tokio::task::spawn_blocking(move || {
                    server.stop(StopMode::Immediate).unwrap();
                    server.ensure_running().unwrap();
                    server
                });
                self.server = Some(restarted.await.unwrap());
            }
        }
        // However it ended: it was killed, or had ended before.
        let _ended = running.await;
    }

    /// Everything once, and nothing said that is not there.
    async fn check(&self, seed: u64, told_before: &[Applied]) {
        let connection = self.connect().await;
        let column = async |sql: &str| -> Vec<String> {
            let rows = connection.simple(sql).await.unwrap_or_else(|error| panic!("seed {seed}: {sql}: {error:?}"));
            rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
        };
        let did = column("select what || count(*) from did group by what order by 1").await;
        assert_eq!(did, ["count3", "five1", "late1", "one1"], "seed {seed}");
        assert_eq!(column("select distinct n::text from numbers").await, ["1"], "seed {seed}");
        assert_eq!(column("select what from seeded order by 1").await, ["code", "file"], "seed {seed}");
        let indexes = "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid \
                       where c.relname in ('marks_id', 'marks_2') and indisvalid";
        assert_eq!(column(indexes).await, ["2"], "seed {seed}");
        let history = "select 'module' || ' ' || version || ' ' || run from pgfleet.module_migrations union all \
                       select 'own' || ' ' || version || ' ' || run from pgfleet.own_migrations order by 1";
        let history = column(history).await;
        assert_eq!(history.len(), 8, "seed {seed}: {history:?}");
        for applied in told_before {
            for set in &applied.sets {
                for version in &set.versions {
                    let row = format!("{} {version} {}", set.set, applied.run);
                    assert!(history.contains(&row), "seed {seed}: {row} was said and is not in {history:?}");
                }
            }
        }
        let due = "select count(*) from pgfleet.own_migrations where announced_at is null";
        assert_eq!(column(due).await, ["0"], "seed {seed}");
    }

    async fn start_over(&self) {
        let sql = "drop view if exists v; drop table if exists did, numbers, seeded, marks; drop schema if exists pgfleet cascade";
        self.connect().await.execute_all(sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_everything_is_killed_at_any_moment() {
    let first: u64 = rand::random_range(0..1_000_000);
    let mut crashing = Crashing::new().await;
    for seed in first..first + rounds(20) {
        crashing.start_over().await;
        crashing.told.0.lock().unwrap().clear();
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..random.random_range(1..3) {
            crashing.crash(&mut random).await;
        }
        let told_before = crashing.told.0.lock().unwrap().clone();
        crashing.finish(seed).await;
        crashing.check(seed, &told_before).await;
    }
}
