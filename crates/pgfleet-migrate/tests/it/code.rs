//! Migrations and seeders written in Rust.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use pgfleet_migrate::code::{Backfill, Batch, Migration, SchemaMigration, Seeder, StepResult};
use pgfleet_migrate::db::Db;
use pgfleet_migrate::options::Stop;
use pgfleet_migrate::repair::{Repair, repair};
use pgfleet_migrate::revert::{Goal, revert};
use pgfleet_migrate::schema::{ForeignKey, OnDelete, Schema};
use pgfleet_migrate::{Error, ErrorKind, Event, Options, Outcome, Report, SetPath, State, StepError, run};

use crate::support::{Bench, shown, until};

struct CreateUsers;

impl SchemaMigration for CreateUsers {
    fn id(&self) -> &'static str {
        "2_create_users"
    }

    fn up(&self, schema: &mut Schema) {
        schema.standard_table("Users", "email text NOT NULL");
        schema.unique_index("users", &["email"]);
        schema.standard_table("tokens", "user_id varchar(50) NOT NULL");
        schema.foreign_key(ForeignKey::new("tokens", "user_id", "users").on_delete(OnDelete::Cascade));
    }

    fn down(&self, schema: &mut Schema) {
        schema.sql("DROP TABLE tokens, users");
    }
}

/// Adds a user; how it ends is the test's choice.
#[derive(Clone, Default)]
struct AddUser {
    revision: u32,
    sql: &'static str,
    swallow: bool,
    runs: Arc<AtomicU32>,
}

impl Migration for AddUser {
    fn id(&self) -> &'static str {
        "3_add_user"
    }

    fn revision(&self) -> u32 {
        self.revision
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        self.runs.fetch_add(1, Ordering::SeqCst);
        db.execute("INSERT INTO users (id, email) VALUES ($1, $2)", &[&"1", &"a@b"]).await?;
        if !self.sql.is_empty() {
            let done = db.batch(self.sql).await;
            if !self.swallow {
                done?;
            }
        }
        Ok(())
    }

    fn is_reversible(&self) -> bool {
        true
    }

    async fn down(&self, db: &Db<'_>) -> StepResult {
        db.execute("DELETE FROM users WHERE id = '1'", &[]).await?;
        Ok(())
    }
}

fn path(bench: &Bench, add: &AddUser) -> SetPath {
    let mut set = bench.set().unwrap();
    set.add(CreateUsers).unwrap();
    set.add(add.clone()).unwrap();
    set.into()
}

async fn migrate(bench: &Bench, path: &SetPath) -> Result<Report, Error> {
    run::migrate(&bench.target(), path, &bench.options, &bench.events).await
}

async fn with_users() -> Bench {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "create table a (id int);");
    bench.file("4_d.sql", "create view emails as select email from users;");
    bench
}

#[tokio::test]
async fn sql_and_rust_are_one_ordered_set() {
    let bench = with_users().await;
    let path = path(&bench, &AddUser::default());
    let report = migrate(&bench, &path).await.unwrap();
    assert_eq!(report.applied, ["1_a", "2_create_users", "3_add_user", "4_d"]);
    assert_eq!(report.to.as_deref(), Some("4"));
    assert_eq!(bench.column("select email from emails").await, ["a@b"]);
    let names = bench
        .column("select conname from pg_constraint where contype = 'f' union select indexname from pg_indexes where tablename = 'users' order by 1")
        .await;
    assert_eq!(names, ["fk_tokens_users", "ix_users_email", "users_pkey"]);
    assert_eq!(migrate(&bench, &path).await.unwrap().outcome, Outcome::UpToDate);
    // What is recorded can be run and taken back like any text.
    let recorded = bench.column("select sql from pgfleet.trip_migrations where version = '2'").await;
    assert!(recorded[0].starts_with("CREATE TABLE \"users\" ("), "{recorded:?}");

    let reverted =
        revert(&bench.target(), &path, &Goal::To(Some("1".parse().unwrap())), &bench.options, &bench.events).await;
    let error = shown(&reverted.unwrap_err());
    assert!(error.contains("cannot revert 4_d in trip"), "{error}");
    bench.file("4_d.sql", "create view emails as select email from users;");
    std::fs::rename(bench.folder.path().join("4_d.sql"), bench.folder.path().join("4_d.up.sql")).unwrap();
    bench.file("4_d.down.sql", "drop view emails;");
    let path = self::path(&bench, &AddUser::default());
    let goal = Goal::To(Some("1".parse().unwrap()));
    let report = revert(&bench.target(), &path, &goal, &bench.options, &bench.events).await.unwrap();
    assert_eq!(report.applied, ["4_d", "3_add_user", "2_create_users"]);
    assert_eq!(bench.versions().await, ["1"]);
}

#[tokio::test]
async fn code_that_fails_leaves_nothing_and_says_what_the_server_said() {
    let bench = with_users().await;
    let add = AddUser { sql: "insert into users (id, email) values ('2', 'a@b')", ..AddUser::default() };
    let error = migrate(&bench, &path(&bench, &add)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Statement);
    let text = shown(&error);
    assert!(text.starts_with("cannot apply 3_add_user to trip\n"), "{text}");
    assert!(text.contains("duplicate key value violates unique constraint \"ix_users_email\""), "{text}");
    assert_eq!(bench.versions().await, ["1", "2"]);
    assert_eq!(bench.column("select count(*) from users").await, ["0"]);
    let failures = bench.column("select version || sql_state from pgfleet.attempts").await;
    assert_eq!(failures, ["323505"]);
}

#[tokio::test]
async fn code_that_ends_its_transaction_is_found() {
    let bench = with_users().await;
    let add = AddUser { sql: "commit; begin", ..AddUser::default() };
    let text = shown(&migrate(&bench, &path(&bench, &add)).await.unwrap_err());
    assert!(text.contains("its code ended the transaction"), "{text}");
    assert_eq!(bench.versions().await, ["1", "2"]);

    let bench = with_users().await;
    let add = AddUser { sql: "commit", ..AddUser::default() };
    let text = shown(&migrate(&bench, &path(&bench, &add)).await.unwrap_err());
    assert!(text.contains("its code ended the transaction"), "{text}");
    assert_eq!(bench.versions().await, ["1", "2"]);
}

#[tokio::test]
async fn code_that_hides_an_error_is_found() {
    let bench = with_users().await;
    let add = AddUser { sql: "select 1/0", swallow: true, ..AddUser::default() };
    let text = shown(&migrate(&bench, &path(&bench, &add)).await.unwrap_err());
    assert!(text.contains("its code did not return the error"), "{text}");
    assert_eq!(bench.versions().await, ["1", "2"]);
    assert_eq!(bench.column("select count(*) from users").await, ["0"]);
}

#[tokio::test]
async fn code_that_meets_a_lock_runs_again_from_the_start() {
    let mut bench = with_users().await;
    bench.options.lock_timeout = Duration::from_millis(50);
    let runs = Arc::new(AtomicU32::new(0));
    let add = AddUser { sql: "alter table a add b int", runs: runs.clone(), ..AddUser::default() };
    let path = path(&bench, &add);
    let first = Options { to: Some("2".parse().unwrap()), ..bench.options.clone() };
    run::migrate(&bench.target(), &path, &first, &bench.events).await.unwrap();
    let holder = bench.connect().await;
    holder.execute_all("begin; lock table a in access share mode").await.unwrap();
    let release = async {
        let met = || bench.events.any(|event| matches!(event, Event::LockTimeout { .. }));
        until("it met the lock", async || met()).await;
        holder.execute_all("commit").await.unwrap();
    };
    let (report, ()) = tokio::join!(migrate(&bench, &path), release);
    assert_eq!(report.unwrap().applied, ["3_add_user", "4_d"]);
    assert!(runs.load(Ordering::SeqCst) >= 2);
    assert_eq!(bench.column("select count(*) from users").await, ["1"]);
}

#[tokio::test]
async fn a_new_revision_of_applied_code_is_an_edit() {
    let bench = with_users().await;
    migrate(&bench, &path(&bench, &AddUser::default())).await.unwrap();
    let error = migrate(&bench, &path(&bench, &AddUser { revision: 2, ..AddUser::default() })).await.unwrap_err();
    let text = shown(&error);
    assert!(text.contains("an applied migration was edited") && text.contains("3_add_user"), "{text}");
    assert!(text.contains("-rust migration 3_add_user revision 0"), "{text}");
}

#[tokio::test]
async fn two_migrations_of_one_version_are_refused() {
    let bench = with_users().await;
    bench.file("3_c.sql", "select 1;");
    let mut set = bench.set().unwrap();
    let error = shown(&set.add(AddUser::default()).unwrap_err());
    assert!(error.contains("have one version"), "{error}");
}

/// Doubles numbers, some at a time.
#[derive(Clone)]
struct Double {
    revision: u32,
    /// Fails before this batch, counted over all runs.
    fails_at: usize,
    stop: Option<(usize, Stop)>,
    batches: Arc<AtomicUsize>,
}

impl Double {
    fn new(fails_at: usize) -> Self {
        Self { revision: 1, fails_at, stop: None, batches: Arc::default() }
    }
}

impl Backfill for Double {
    type Cursor = i32;

    fn id(&self) -> &'static str {
        "2_double"
    }

    fn revision(&self) -> u32 {
        self.revision
    }

    async fn total(&self, db: &Db<'_>) -> StepResult<Option<u64>> {
        let rows: i64 = db.query_one("select count(*) from numbers", &[]).await?.get(0);
        Ok(u64::try_from(rows).ok())
    }

    async fn batch(&self, db: &Db<'_>, after: Option<i32>) -> StepResult<Batch<i32>> {
        let batch = self.batches.fetch_add(1, Ordering::SeqCst) + 1;
        let sql = "with part as (select id from numbers where id > $1 order by id limit 10), \
                   done as (update numbers set n = n * 2 from part where numbers.id = part.id) \
                   select max(id), count(*) from part";
        let row = db.query_one(sql, &[&after.unwrap_or(0)]).await?;
        if let Some((at, stop)) = &self.stop
            && *at == batch
        {
            stop.ask();
        }
        if batch == self.fails_at {
            return Err(StepError::new("the disk of the other service is full"));
        }
        Ok(Batch::new(row.get::<_, i64>(1), row.get(0)))
    }
}

async fn with_numbers() -> Bench {
    let bench = Bench::new().await;
    bench.file("1_numbers.sql", "create table numbers as select g as id, g as n from generate_series(1, 45) g;");
    bench.file("3_after.sql", "create table after_all as select sum(n) from numbers;");
    bench
}

fn doubling(bench: &Bench, double: &Double) -> SetPath {
    let mut set = bench.set().unwrap();
    set.add(double.clone()).unwrap();
    set.into()
}

#[tokio::test]
async fn a_backfill_goes_on_where_it_failed() {
    let bench = with_numbers().await;
    let double = Double::new(4);
    let path = doubling(&bench, &double);
    let error = migrate(&bench, &path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Code);
    let text = shown(&error);
    assert!(text.contains("the disk of the other service is full"), "{text}");
    assert!(text.contains("30 rows in 3 batches are done and stay"), "{text}");
    assert_eq!(bench.column("select count(*) from numbers where n = id * 2").await, ["30"]);

    let look = run::looking(&bench.options);
    let looked = run::migrate(&bench.target(), &path, &look, &bench.events).await.unwrap();
    assert!(looked.notes.iter().any(|note| note.contains("30 rows in 3 batches")), "{:?}", looked.notes);
    assert_eq!(looked.entries[1].state, State::Pending);

    let report = migrate(&bench, &path).await.unwrap();
    assert_eq!(report.applied, ["2_double", "3_after"]);
    assert_eq!(bench.column("select count(*) from numbers where n = id * 2").await, ["45"]);
    assert_eq!(bench.column("select sum from after_all").await, ["2070"]);
    assert_eq!(bench.column("select count(*) from pgfleet.trip_backfills").await, ["0"]);
    assert!(
        bench.events.any(|event| { matches!(event, Event::Progress { rows: 45, total: Some(45), batches: 6, .. }) })
    );
}

#[tokio::test]
async fn a_backfill_stops_behind_a_batch() {
    let mut bench = with_numbers().await;
    bench.options.stop = Stop::default();
    let double = Double { stop: Some((2, bench.options.stop.clone())), ..Double::new(0) };
    let error = migrate(&bench, &doubling(&bench, &double)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    let done = bench.column("select count(*) from numbers where n = id * 2").await;
    assert!(["10", "20"].contains(&done[0].as_str()), "{done:?}");
    bench.options.stop = Stop::default();
    migrate(&bench, &doubling(&bench, &Double::new(0))).await.unwrap();
    assert_eq!(bench.column("select count(*) from numbers where n = id * 2").await, ["45"]);
}

#[tokio::test]
async fn a_backfill_goes_on_only_with_the_same_revision_or_from_the_start() {
    let bench = with_numbers().await;
    migrate(&bench, &doubling(&bench, &Double::new(2))).await.unwrap_err();
    let second = doubling(&bench, &Double { revision: 2, ..Double::new(0) });
    let error = migrate(&bench, &second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(
        shown(&error).contains("revision 1 of it stopped after 1 batches; this is revision 2"),
        "{}",
        shown(&error)
    );
    let version = "2".parse().unwrap();
    let repaired = repair(&bench.target(), second.own(), Repair::Reset, &version, &bench.options, &bench.events).await;
    assert_eq!(repaired.unwrap().label, "2_double");
    let deeds = bench.column("select message from pgfleet.attempts where action = 'reset'").await;
    assert_eq!(deeds, ["had done 10 rows in 1 batches, cursor 10"]);
    bench.run("update numbers set n = id").await;
    migrate(&bench, &second).await.unwrap();
    assert_eq!(bench.column("select count(*) from numbers where n = id * 2").await, ["45"]);
}

struct Admin {
    revision: u32,
}

impl Seeder for Admin {
    fn name(&self) -> &'static str {
        "2_admin"
    }

    fn revision(&self) -> u32 {
        self.revision
    }

    fn properties(&self) -> &[&str] {
        &["admin_email"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        let email = db.property("admin_email")?;
        db.execute("insert into seeded (what) values ($1) on conflict do nothing", &[&email]).await?;
        Ok(())
    }
}

#[tokio::test]
async fn seeders_run_in_the_order_of_their_names_once() {
    let mut bench = Bench::new().await;
    bench.file("1_a.sql", "create table seeded (id int generated always as identity, what text unique);");
    bench.file("seeds/1_first.sql", "insert into seeded (what) values ('first') on conflict do nothing;");
    bench.file("seeds/10_last.sql", "insert into seeded (what) values ('last') on conflict do nothing;");
    let path = |bench: &Bench, revision, email: &str| -> SetPath {
        let properties = BTreeMap::from([("admin_email".to_owned(), email.to_owned())]);
        let seeds = pgfleet_migrate::Seeds::read(&bench.folder.path().join("seeds"), properties).unwrap();
        let mut set = bench.set().unwrap().with_seeds(seeds);
        set.add_seeder(Admin { revision }).unwrap();
        assert!(set.add_seeder(Admin { revision }).is_err());
        set.into()
    };
    let report = migrate(&bench, &path(&bench, 1, "a@b")).await.unwrap();
    assert_eq!(report.seeded, ["1_first", "2_admin", "10_last"]);
    assert_eq!(bench.column("select what from seeded order by id").await, ["first", "a@b", "last"]);
    assert_eq!(migrate(&bench, &path(&bench, 1, "a@b")).await.unwrap().outcome, Outcome::UpToDate);
    assert_eq!(migrate(&bench, &path(&bench, 1, "c@d")).await.unwrap().seeded, ["2_admin"]);
    assert_eq!(migrate(&bench, &path(&bench, 2, "c@d")).await.unwrap().seeded, ["2_admin"]);
    bench.options.always_seed = true;
    assert_eq!(migrate(&bench, &path(&bench, 2, "c@d")).await.unwrap().seeded, ["1_first", "2_admin", "10_last"]);
    assert_eq!(bench.column("select count(*) from seeded").await, ["4"]);
}

#[tokio::test]
async fn a_property_without_a_value_is_named() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "create table seeded (what text);");
    let mut set = bench.set().unwrap();
    set.add_seeder(Admin { revision: 1 }).unwrap();
    let text = shown(&migrate(&bench, &set.into()).await.unwrap_err());
    assert!(text.contains("cannot seed trip with 2_admin") && text.contains("admin_email has no value"), "{text}");
    assert!(text.contains("hint: give it in the manifest's properties"), "{text}");
}
