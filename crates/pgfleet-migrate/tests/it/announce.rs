//! Telling others what was applied: after it is on disk, at least once, never about what was lost.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pgfleet_migrate::announce::{Announce, Announced, Announcer, Applied};
use pgfleet_migrate::{Options, Outcome, Report, Set, SetPath, StepError, run};
use pgfleet_postgres::lock;

use crate::support::Bench;

/// Keeps what it is told; may refuse it.
#[derive(Clone, Default)]
struct Told {
    applied: Arc<Mutex<Vec<Applied>>>,
    refuse: bool,
}

impl Announcer for Told {
    fn announce<'a>(&'a self, applied: &'a Applied) -> Announced<'a> {
        self.applied.lock().unwrap().push(applied.clone());
        let answer = if self.refuse { Err(StepError::new("the broker is away")) } else { Ok(()) };
        Box::pin(async move { answer })
    }
}

impl Told {
    fn take(&self) -> Vec<Applied> {
        std::mem::take(&mut self.applied.lock().unwrap())
    }
}

async fn migrate(bench: &Bench, path: &SetPath, told: &Told) -> Report {
    let options = Options { announcer: Some(Announce::new(told.clone())), ..bench.options.clone() };
    run::migrate(&bench.target(), path, &options, &bench.events).await.unwrap()
}

fn summary(applied: &[Applied]) -> Vec<String> {
    let of_set = |set: &pgfleet_migrate::announce::AppliedSet| {
        let (from, to) = (set.from.as_deref().unwrap_or("-"), set.to.as_deref().unwrap_or("-"));
        format!("{} {from} to {to}: {}", set.set, set.versions.join(" "))
    };
    applied.iter().flat_map(|applied| applied.sets.iter().map(of_set)).collect()
}

const DUE: &str = "select count(*) from pgfleet.trip_migrations where announced_at is null";

#[tokio::test]
async fn each_run_is_announced_once_with_its_versions() {
    let bench = Bench::new().await;
    let told = Told::default();
    bench.file("1_a.sql", "select 1;");
    bench.file("2_b.sql", "select 1;");
    bench.file("R__views.sql", "select 1;");
    migrate(&bench, &bench.path(), &told).await;
    let first = told.take();
    assert_eq!(summary(&first), ["trip - to 2: 1 2 R__views"]);
    assert_eq!(first[0].database, bench.database.name);
    let identity = "select system_identifier::text from pg_control_system()";
    assert_eq!(bench.column(identity).await, [first[0].system_identifier.clone()]);
    let oid = "select oid::text from pg_database where datname = current_database()";
    assert_eq!(bench.column(oid).await, [first[0].database_oid.to_string()]);
    assert_eq!(bench.column(DUE).await, ["0"]);

    assert_eq!(migrate(&bench, &bench.path(), &told).await.outcome, Outcome::UpToDate);
    assert!(told.take().is_empty());
    bench.file("3_c.sql", "select 1;");
    migrate(&bench, &bench.path(), &told).await;
    let second = told.take();
    assert_eq!(summary(&second), ["trip 2 to 3: 3"]);
    assert_ne!(first[0].run, second[0].run);
}

#[tokio::test]
async fn what_nobody_took_is_announced_by_who_looks_next() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    // Nobody to tell, as after a crash before the announcement.
    bench.migrate().await.unwrap();
    assert_eq!(bench.column(DUE).await, ["1"]);
    let refusing = Told { refuse: true, ..Told::default() };
    bench.file("2_b.sql", "select 1;");
    let report = migrate(&bench, &bench.path(), &refusing).await;
    assert_eq!(report.applied, ["2_b"]);
    assert!(report.notes.iter().any(|note| note.contains("the broker is away")), "{:?}", report.notes);
    assert_eq!(bench.column(DUE).await, ["2"]);
    let first = refusing.take();

    let told = Told::default();
    assert_eq!(migrate(&bench, &bench.path(), &told).await.outcome, Outcome::UpToDate);
    let second = told.take();
    assert_eq!(summary(&second), ["trip - to 1: 1", "trip 1 to 2: 2"]);
    // The same run is known again by its id.
    assert_eq!(first[0], second[0]);
    assert_eq!(bench.column(DUE).await, ["0"]);
}

#[tokio::test]
async fn a_run_over_several_sets_is_one_announcement() {
    let bench = Bench::new().await;
    let told = Told::default();
    let set = |name: &str| {
        let files = vec![(PathBuf::from("1_a.sql"), b"select 1;".to_vec())];
        Set::from_files(name, &PathBuf::from(name), files, None).unwrap()
    };
    let path = SetPath::new(vec![set("identity")], set("trip")).unwrap();
    migrate(&bench, &path, &told).await;
    let applied = told.take();
    assert_eq!(applied.len(), 1);
    assert_eq!(summary(&applied), ["identity - to 1: 1", "trip - to 1: 1"]);
}

#[tokio::test]
async fn a_row_written_by_hand_is_nobodys_run() {
    let bench = Bench::new().await;
    let told = Told::default();
    bench.file("1_a.sql", "select 1;");
    migrate(&bench, &bench.path(), &told).await;
    told.take();
    bench.file("2_b.sql", "select 1;");
    bench.run("insert into pgfleet.trip_migrations (version, description) values ('2', 'by hand')").await;
    assert_eq!(migrate(&bench, &bench.path(), &told).await.outcome, Outcome::UpToDate);
    assert!(told.take().is_empty());
}

#[tokio::test]
async fn a_run_that_failed_announces_what_it_did() {
    let bench = Bench::new().await;
    let told = Told::default();
    bench.file("1_a.sql", "select 1;");
    bench.file("2_b.sql", "select 1/0;");
    let options = Options { announcer: Some(Announce::new(told.clone())), ..bench.options.clone() };
    run::migrate(&bench.target(), &bench.path(), &options, &bench.events).await.unwrap_err();
    bench.file("2_b.sql", "select 1;");
    migrate(&bench, &bench.path(), &told).await;
    assert_eq!(summary(&told.take()), ["trip - to 1: 1", "trip 1 to 2: 2"]);
}

#[tokio::test]
async fn seeding_always_is_announced_once_though_nothing_was_applied() {
    let mut bench = Bench::new().await;
    let told = Told::default();
    bench.file("1_a.sql", "create table t (id int primary key);");
    bench.file("seeds/1_s.sql", "insert into t values (1) on conflict do nothing;");
    let seeds = pgfleet_migrate::Seeds::read(&bench.folder.path().join("seeds"), bench.properties.clone()).unwrap();
    let path: SetPath = bench.set().unwrap().with_seeds(seeds).into();
    bench.options.always_seed = true;
    // Together with what it applied.
    migrate(&bench, &path, &told).await;
    let first = told.take();
    assert_eq!((first.len(), summary(&first)), (1, vec!["trip - to 1: 1".to_owned()]));
    // Also where there is no seed that could run.
    for path in [&path, &bench.path()] {
        migrate(&bench, path, &told).await;
        let applied = told.take();
        assert_eq!((applied.len(), summary(&applied)), (1, vec!["trip 1 to 1: ".to_owned()]));
        assert_ne!(applied[0].run, first[0].run);
    }
    let looking = run::looking(&bench.options);
    bench.options = Options { announcer: Some(Announce::new(told.clone())), ..looking };
    bench.migrate().await.unwrap();
    assert!(told.take().is_empty());
}

#[tokio::test]
async fn a_tenant_in_the_hosts_database_tells_nothing_but_its_own() {
    let mut bench = Bench::new().await;
    let told = Told::default();
    bench.file("1_a.sql", "create table t (id text primary key);");
    bench.file("seeds/1_s.sql", "insert into t values (:'tenant') on conflict do nothing;");
    // Nobody was told of what the host did.
    bench.migrate().await.unwrap();
    let target = pgfleet_migrate::Target { name: "trip/acme".to_owned(), ..bench.target() }.shared_by("acme");
    let seeds = pgfleet_migrate::Seeds::read(&bench.folder.path().join("seeds"), bench.properties.clone()).unwrap();
    let path: SetPath = bench.set().unwrap().with_seeds(seeds).into();
    bench.options.announcer = Some(Announce::new(told.clone()));
    for (always, count) in [(false, 0), (true, 1)] {
        bench.options.always_seed = always;
        run::seed(&target, &path, &bench.options, &bench.events).await.unwrap();
        let applied = told.take();
        assert_eq!(applied.len(), count);
        assert!(applied.iter().all(|applied| applied.target == "trip/acme"), "{applied:?}");
    }
    assert_eq!(bench.column("select id from t order by id").await, ["", "acme"]);
    assert_eq!(bench.column(DUE).await, ["1"]);
}

#[tokio::test]
async fn where_the_server_does_not_tell_its_identifier_its_address_stands_for_it() {
    let bench = Bench::new().await;
    let told = Told::default();
    let role = format!("{}_plain", bench.database.name);
    // Rights on functions are those of one database.
    bench.run("revoke execute on function pg_catalog.pg_control_system() from public").await;
    bench
        .run(&format!(
            "create role {role} login password 'x'; grant create on database {} to {role}",
            bench.database.name
        ))
        .await;
    bench.file("1_a.sql", "select 1;");
    let target = pgfleet_migrate::Target::new("trip", bench.address().with_user(&role, Some("x".into())));
    let options = Options { announcer: Some(Announce::new(told.clone())), ..bench.options.clone() };
    let report = run::migrate(&target, &bench.path(), &options, &bench.events).await.unwrap();
    let applied = told.take();
    assert_eq!(summary(&applied), ["trip - to 1: 1"], "{:?}", report.notes);
    assert_eq!(applied[0].system_identifier, bench.address().server());
    bench.run(&format!("drop owned by {role}; drop role {role}")).await;
}

async fn announce_left(bench: &Bench, told: &Told, known: Option<&str>) -> bool {
    let options = Options { announcer: Some(Announce::new(told.clone())), ..bench.options.clone() };
    run::announce_left(&bench.target(), &bench.path(), &options, known).await.unwrap()
}

#[tokio::test]
async fn who_only_listens_hears_of_runs_that_were_told_to_nobody_or_to_somebody_else() {
    let bench = Bench::new().await;
    let told = Told::default();
    assert!(!announce_left(&bench, &told, None).await, "there is no history yet");
    bench.file("1_a.sql", "select 1;");
    bench.migrate().await.unwrap();
    assert!(announce_left(&bench, &told, None).await);
    let first = told.take();
    assert_eq!(summary(&first), ["trip - to 1: 1"]);
    assert_eq!(bench.column(DUE).await, ["0"]);
    let known = Some(first[0].run.as_str());
    assert!(!announce_left(&bench, &told, known).await);
    // The service told its own hook.
    let hook = Told::default();
    bench.file("2_b.sql", "select 1;");
    migrate(&bench, &bench.path(), &hook).await;
    assert!(announce_left(&bench, &told, known).await);
    assert_eq!(told.take(), hook.take());
    // What is pending is not its business.
    bench.file("3_c.sql", "select 1;");
    bench.run("update pgfleet.trip_migrations set announced_at = null where version = '2'").await;
    assert!(announce_left(&bench, &told, Some("ffffffff")).await);
    assert_eq!(summary(&told.take()), ["trip 1 to 2: 2"]);
}

#[tokio::test]
async fn who_only_listens_waits_until_a_run_is_over() {
    let bench = Bench::new().await;
    let told = Told::default();
    bench.file("1_a.sql", "select 1;");
    bench.migrate().await.unwrap();
    let runs = bench.connect().await;
    assert!(lock::try_lock(&runs, lock::LockKey::Migrate).await.unwrap());
    assert!(!announce_left(&bench, &told, None).await);
    runs.close().await;
    assert!(announce_left(&bench, &told, None).await);
}
