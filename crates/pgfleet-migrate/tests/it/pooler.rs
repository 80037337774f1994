//! Runs by way of a PgBouncer.

use pgfleet_local::testing::{PoolMode, Pooler, PoolerOptions};
use pgfleet_migrate::code::{Migration, StepResult};
use pgfleet_migrate::db::Db;
use pgfleet_migrate::repair::{Repair, repair};
use pgfleet_migrate::revert::{self, Goal};
use pgfleet_migrate::{Error, Options, Outcome, Report, Seeds, Set, Target, run};
use pgfleet_postgres::{Address, ErrorKind as PgErrorKind};

use crate::support::{Bench, shown};

/// A bench whose runs go through a pooler.
struct Pooled {
    bench: Bench,
    pooler: Pooler,
}

impl Pooled {
    async fn new(configure: impl FnOnce(&mut PoolerOptions)) -> Self {
        let bench = Bench::new().await;
        let pooler = Pooler::start(&bench.database.url(), configure).await;
        Self { bench, pooler }
    }

    fn target(&self) -> Target {
        let address = Address::parse(&self.pooler.url(&self.bench.database.url())).unwrap();
        let mut target = Target::new("trip", address.clone());
        target.admin = Some(address.with_database("postgres"));
        target.schema = Some("trip schema".to_owned());
        target
    }

    async fn migrate(&self, options: &Options) -> Result<Report, Error> {
        self.migrate_set(self.bench.set()?, options).await
    }

    async fn migrate_set(&self, set: Set, options: &Options) -> Result<Report, Error> {
        let seeds = Seeds::read(&self.bench.folder.path().join("seeds"), self.bench.properties.clone())?;
        run::migrate(&self.target(), &set.with_seeds(seeds).into(), options, &self.bench.events).await
    }
}

fn is_refused(error: &Error) {
    let text = shown(error);
    assert_eq!(error.postgres().map(pgfleet_postgres::Error::kind), Some(PgErrorKind::Pooler), "{text}");
    for words in ["a pooler in transaction mode stands before", "belong to one session", "hint: give the server's own"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn transaction_mode_is_refused_before_anything_is_touched() {
    // Start-up parameters refused and forgotten; one session for all, and several.
    for (ignored, pool_size) in [("", 1), ("extra_float_digits,options", 1), ("extra_float_digits,options", 4)] {
        let pooled = Pooled::new(|options| {
            options.ignore_startup_parameters = ignored.to_owned();
            options.pool_size = pool_size;
        })
        .await;
        let bench = &pooled.bench;
        bench.file("1_t.up.sql", "create table t (id int);");
        bench.file("1_t.down.sql", "drop table t;");
        is_refused(&pooled.migrate(&bench.options).await.unwrap_err());
        let made = "select nspname from pg_namespace where nspname in ('pgfleet', 'trip schema')";
        assert!(bench.column(made).await.is_empty());
        assert!(
            bench
                .column(
                    "select objid from pg_locks where locktype = 'advisory' and database = (select oid \
                             from pg_database where datname = current_database())"
                )
                .await
                .is_empty()
        );

        bench.migrate().await.unwrap();
        let (target, set) = (pooled.target(), bench.set().unwrap());
        let reverted = revert::revert(&target, &bench.path(), &Goal::Steps(1), &bench.options, &bench.events).await;
        is_refused(&reverted.unwrap_err());
        let version = "1".parse().unwrap();
        let forgotten = repair(&target, &set, Repair::Forget, &version, &bench.options, &bench.events).await;
        is_refused(&forgotten.unwrap_err());
        assert_eq!(bench.versions().await, ["1"]);
    }
}

#[tokio::test]
async fn looks_go_through_a_pooler_in_transaction_mode() {
    for ignored in ["", "extra_float_digits,options"] {
        let pooled = Pooled::new(|options| options.ignore_startup_parameters = ignored.to_owned()).await;
        let bench = &pooled.bench;
        bench.file("1_t.sql", "create table t (id int);");
        let looking = run::looking(&bench.options);
        assert_eq!(pooled.migrate(&looking).await.unwrap().pending, ["1_t"]);
        let dry = Options { dry_run: true, ..bench.options.clone() };
        assert_eq!(pooled.migrate(&dry).await.unwrap().outcome, Outcome::Pending);
        bench.migrate().await.unwrap();
        assert_eq!(pooled.migrate(&bench.options).await.unwrap().outcome, Outcome::UpToDate);
    }
}

/// Keeps the settings that are in force in a table.
const KEEP: &str = "insert into kept select current_setting('statement_timeout') || ' ' || \
                    current_setting('search_path') || ' ' || current_setting('synchronous_commit');";

struct Keep;

impl Migration for Keep {
    fn id(&self) -> &'static str {
        "4_code"
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        db.batch(KEEP).await?;
        db.batch("set search_path = nowhere; set statement_timeout = '1h'").await
    }
}

/// The settings of a run are not those of its session there, and each file's `RESET ALL` must come
/// back to them all the same.
#[tokio::test]
async fn session_mode_is_as_good_as_the_server_itself() {
    for ignored in ["", "extra_float_digits,options"] {
        let pooled = Pooled::new(|options| {
            options.mode = PoolMode::Session;
            options.ignore_startup_parameters = ignored.to_owned();
        })
        .await;
        let bench = &pooled.bench;
        let database = &bench.database.name;
        bench.run(&format!("alter database {database} set statement_timeout = '300ms'")).await;
        bench.file("1_kept.up.sql", format!("create table kept (what text); {KEEP} set search_path = nowhere;"));
        bench.file("1_kept.down.sql", "drop table kept;");
        bench.file("2_slow.up.sql", format!("select pg_sleep(0.4); {KEEP} set role pg_monitor;"));
        bench.file("2_slow.down.sql", format!("select pg_sleep(0.4); {KEEP}"));
        let alone = "-- pgfleet: no-transaction\n";
        bench
            .file("3_alone.sql", format!("{alone}create index concurrently on kept (what); set search_path = nowhere"));
        bench.file("5_after.sql", KEEP);
        bench.file("seeds/1_seed.sql", KEEP);
        let set = || {
            let mut set = bench.set().unwrap();
            set.add(Keep).unwrap();
            set
        };
        let report = pooled.migrate_set(set(), &bench.options).await;
        let report = report.unwrap_or_else(|error| panic!("{}", shown(&error)));
        assert_eq!((report.applied.len(), report.seeded.len()), (5, 1));
        let ours = "0 \"trip schema\", public off";
        assert_eq!(bench.column("select what from \"trip schema\".kept").await, [ours; 5]);
        assert_eq!(pooled.migrate_set(set(), &bench.options).await.unwrap().outcome, Outcome::UpToDate);

        bench.run("delete from pgfleet.trip_migrations where version in ('3', '4', '5')").await;
        revert::revert(&pooled.target(), &bench.path(), &Goal::Steps(1), &bench.options, &bench.events).await.unwrap();
        assert_eq!(bench.column("select what from \"trip schema\".kept").await, [ours; 6]);
    }
}

#[tokio::test]
async fn runs_through_a_pooler_in_session_mode_and_past_it_keep_each_other_out() {
    let pooled = Pooled::new(|options| options.mode = PoolMode::Session).await;
    let bench = &pooled.bench;
    bench.run("create schema \"trip schema\"").await;
    for number in 1..=10 {
        bench.file(&format!("{number}_t.sql"), format!("create table \"trip schema\".t{number} (id int);"));
    }
    let through = || pooled.migrate(&bench.options);
    let (one, two, three, four) = tokio::join!(through(), through(), bench.migrate(), bench.migrate());
    let reports = [one, two, three, four].map(|result| result.unwrap_or_else(|error| panic!("{}", shown(&error))));
    let applied: usize = reports.iter().map(|report| report.applied.len()).sum();
    assert_eq!(applied, 10);
}
