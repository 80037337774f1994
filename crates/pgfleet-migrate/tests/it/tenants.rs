//! Seeds under the scope of a tenant: in a database of its own, and among others in the host's.

use std::collections::BTreeMap;

use pgfleet_migrate::code::{Seeder, StepResult};
use pgfleet_migrate::db::Db;
use pgfleet_migrate::revert::Goal;
use pgfleet_migrate::{Error, ErrorKind, Outcome, Report, Seeds, SetPath, Target, guest, run};

use crate::support::{Bench, shown};

/// Writes down for whom it runs.
struct Greeting;

impl Seeder for Greeting {
    fn name(&self) -> &'static str {
        "3_greeting"
    }

    fn properties(&self) -> &[&str] {
        &["tenant"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        assert_eq!(db.property("tenant")?, db.tenant().unwrap_or_default());
        let text = db.tenant().map_or_else(|| "good day, host".to_owned(), |tenant| format!("hello {tenant}"));
        db.execute("insert into log values ($1)", &[&text]).await?;
        Ok(())
    }
}

/// A service with a seed for everybody, two that depend on the tenant, and one that may.
struct Case {
    bench: Bench,
    path: SetPath,
}

impl Case {
    async fn new() -> Self {
        Self::of(Bench::new().await)
    }

    fn of(bench: Bench) -> Self {
        bench.file("1_log.up.sql", "create table log (line text);");
        bench.file("1_log.down.sql", "drop table log;");
        bench.file("seeds/1_plain.sql", "insert into log values ('plain');");
        bench.file("seeds/2_tenant.sql", "insert into log values ('for ' || coalesce(nullif(:'tenant', ''), 'all'));");
        bench.file("seeds/4_mail.sql", "insert into log values (:'email');");
        let path = path(&bench);
        Self { bench, path }
    }

    fn host(&self) -> Target {
        self.bench.target()
    }

    fn guest(&self, tenant: &str) -> Target {
        Target { name: format!("trip/{tenant}"), ..self.bench.target() }.shared_by(tenant)
    }

    async fn migrate(&self, target: &Target) -> Report {
        run::migrate(target, &self.path, &self.bench.options, &self.bench.events).await.unwrap()
    }

    async fn seed(&self, target: &Target, path: &SetPath) -> Result<Report, Error> {
        run::seed(target, path, &self.bench.options, &self.bench.events).await
    }

    /// Returns what was written since the last call.
    async fn log(&self) -> Vec<String> {
        self.bench.column("with gone as (delete from log returning line) select line from gone").await
    }
}

fn path(bench: &Bench) -> SetPath {
    let properties = BTreeMap::from([("email".to_owned(), "host@x".to_owned())]);
    let seeds = Seeds::read(&bench.folder.path().join("seeds"), properties).unwrap();
    let mut set = bench.set().unwrap().with_seeds(seeds);
    set.add_seeder(Greeting).unwrap();
    set.into()
}

fn email(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("email".to_owned(), value.to_owned())])
}

#[tokio::test]
async fn in_a_database_of_its_own_what_depends_on_the_tenant_runs_again() {
    let case = Case::new().await;
    case.migrate(&case.host()).await;
    assert_eq!(case.log().await, ["plain", "for all", "good day, host", "host@x"]);
    // As in a clone of a database that was seeded before it had a tenant.
    let acme = case.host().of_tenant("acme");
    assert_eq!(case.migrate(&acme).await.seeded, ["2_tenant", "3_greeting"]);
    assert_eq!(case.log().await, ["for acme", "hello acme"]);
    assert_eq!(case.migrate(&acme).await.outcome, Outcome::UpToDate);
    let own = case.path.with_properties(&email("acme@x"));
    assert_eq!(case.seed(&acme, &own).await.unwrap().seeded, ["4_mail"]);
    assert_eq!(case.seed(&acme, &own).await.unwrap().outcome, Outcome::UpToDate);
    assert_eq!(case.log().await, ["acme@x"]);
    assert_eq!(case.bench.column("select count(*) from pgfleet.trip_seeds").await, ["4"]);
    assert_eq!(case.bench.column("select to_regclass('pgfleet.trip_seeds_by_tenant')::text").await, ["NULL"]);
}

async fn guests_are_seeded_beside_the_host(case: Case) {
    case.migrate(&case.host()).await;
    case.log().await;
    let report = case.seed(&case.guest("acme"), &case.path).await.unwrap();
    assert_eq!((report.target.as_str(), report.seeded), ("trip/acme", vec!["2_tenant".into(), "3_greeting".into()]));
    assert_eq!(report.to.as_deref(), Some("1"));
    assert_eq!(case.log().await, ["for acme", "hello acme"]);
    // A value of its own makes a seed its own.
    let zeta = case.path.with_properties(&email("zeta@x"));
    assert_eq!(case.seed(&case.guest("zeta's"), &zeta).await.unwrap().seeded, ["2_tenant", "3_greeting", "4_mail"]);
    assert_eq!(case.log().await, ["for zeta's", "hello zeta's", "zeta@x"]);
    for (guest, path) in [("acme", &case.path), ("zeta's", &zeta)] {
        assert_eq!(case.seed(&case.guest(guest), path).await.unwrap().outcome, Outcome::UpToDate);
    }
    assert_eq!(case.migrate(&case.host()).await.outcome, Outcome::UpToDate);
    assert_eq!(case.log().await, [""; 0]);
    let recorded = "select tenant || ' ' || name from pgfleet.trip_seeds_by_tenant order by 1";
    let wanted = ["acme 2_tenant", "acme 3_greeting", "zeta's 2_tenant", "zeta's 3_greeting", "zeta's 4_mail"];
    assert_eq!(case.bench.column(recorded).await, wanted);
    let who = "select count(*) from pgfleet.trip_seeds_by_tenant where run is not null and tool like 'pgfleet %'";
    assert_eq!(case.bench.column(who).await, ["5"]);

    // An edited seed runs again for each that it is for.
    case.bench.file("seeds/2_tenant.sql", "insert into log values ('again ' || :'tenant');");
    let edited = path(&case.bench);
    for (guest, line) in [("acme", "again acme"), ("zeta's", "again zeta's")] {
        assert_eq!(case.seed(&case.guest(guest), &edited).await.unwrap().seeded, ["2_tenant"]);
        assert_eq!(case.log().await, [line]);
    }
}

#[tokio::test]
async fn a_tenant_without_a_database_is_seeded_in_the_hosts_and_recorded_there() {
    guests_are_seeded_beside_the_host(Case::new().await).await;
}

#[tokio::test]
async fn a_tenant_without_a_database_is_seeded_in_the_hosts_on_18_too() {
    guests_are_seeded_beside_the_host(Case::of(Bench::new_on(18).await)).await;
}

#[tokio::test]
async fn two_at_once_seed_a_tenant_once() {
    let case = Case::new().await;
    case.migrate(&case.host()).await;
    case.log().await;
    let acme = case.guest("acme");
    let seed = || async { case.seed(&acme, &case.path).await.unwrap() };
    let reports = tokio::join!(seed(), seed(), seed(), seed());
    let applied = [&reports.0, &reports.1, &reports.2, &reports.3];
    assert_eq!(applied.iter().filter(|report| report.outcome == Outcome::Applied).count(), 1, "{applied:?}");
    assert_eq!(case.log().await, ["for acme", "hello acme"]);
}

#[tokio::test]
async fn a_way_back_forgets_what_ran_for_tenants() {
    let mut case = Case::new().await;
    case.migrate(&case.host()).await;
    case.seed(&case.guest("acme"), &case.path).await.unwrap();
    case.bench.revert(Goal::Steps(1)).await.unwrap();
    case.bench.options.max_tries = 1;
    let error = case.seed(&case.guest("acme"), &case.path).await.unwrap_err();
    assert_eq!(
        shown(&error),
        "cannot seed trip/acme\ncause: the migration 1_log is pending\n\
         hint: pgfleet migrate applies them and seeds\n"
    );
    case.migrate(&case.host()).await;
    case.log().await;
    case.seed(&case.guest("acme"), &case.path).await.unwrap();
    assert_eq!(case.log().await, ["for acme", "hello acme"]);
}

#[tokio::test]
async fn seeding_changes_nothing_but_seeds() {
    let case = Case::new().await;
    let options = run::looking(&case.bench.options);
    let looked = run::seed(&case.host(), &case.path, &options, &case.bench.events).await.unwrap();
    assert!(looked.blocked.as_ref().is_some_and(|why| why.contains("1_log is pending")), "{looked:?}");
    assert_eq!(case.seed(&case.host(), &case.path).await.unwrap_err().kind(), ErrorKind::Findings);
    assert_eq!(case.bench.column("select count(*) from pg_namespace where nspname = 'pgfleet'").await, ["0"]);

    let nowhere = format!("{}_not", case.bench.database.name);
    let mut missing = Target::new("trip", case.bench.address().with_database(&nowhere));
    missing.admin = Some(case.bench.address());
    let text = shown(&case.seed(&missing, &case.path).await.unwrap_err());
    assert!(text.contains("cannot seed trip\ncause: the database does not exist\n"), "{text}");
    let there = format!("select count(*) from pg_database where datname = '{nowhere}'");
    assert_eq!(case.bench.column(&there).await, ["0"]);

    case.migrate(&case.host()).await;
    case.bench.file("2_more.up.sql", "select 1;");
    case.bench.file("3_more.up.sql", "select 1;");
    let newer = path(&case.bench);
    let text = shown(&case.seed(&case.host(), &newer).await.unwrap_err());
    assert!(text.contains("2 migrations are pending, 2_more first"), "{text}");
    assert_eq!(case.bench.versions().await, ["1"]);
}

#[tokio::test]
async fn the_schema_that_tenants_share_is_changed_for_the_host_only() {
    let case = Case::new().await;
    let acme = case.guest("acme");
    let options = &case.bench.options;
    let migrated = run::migrate(&acme, &case.path, options, &case.bench.events).await.unwrap_err();
    let goal = Goal::To(None);
    let reverted = pgfleet_migrate::revert::revert(&acme, &case.path, &goal, options, &case.bench.events).await;
    for (error, verb) in [(migrated, "migrate"), (reverted.unwrap_err(), "revert")] {
        let text = shown(&error);
        let wanted = format!("cannot {verb} trip/acme\ncause: acme has no database of its own here\n");
        assert!(text.starts_with(&wanted), "{text}");
    }
}

#[tokio::test]
async fn a_failing_seed_of_a_tenant_is_recorded_and_runs_again() {
    let case = Case::new().await;
    case.migrate(&case.host()).await;
    case.log().await;
    case.bench.file("seeds/2_tenant.sql", "insert into log values ('x'); select 1 / length(:'tenant') - 1 / 0;");
    let broken = path(&case.bench);
    let error = case.seed(&case.guest("acme"), &broken).await.unwrap_err();
    assert!(shown(&error).contains("cannot seed trip/acme with 2_tenant"), "{}", shown(&error));
    assert_eq!(case.log().await, [""; 0]);
    let attempt = "select action || ' ' || version || ' ' || statement from pgfleet.attempts";
    assert_eq!(case.bench.column(attempt).await, ["seed 2_tenant select 1 / length(:'tenant') - 1 / 0"]);
    assert_eq!(case.seed(&case.guest("acme"), &case.path).await.unwrap().seeded, ["2_tenant", "3_greeting"]);
}

#[tokio::test]
async fn what_ran_for_a_tenant_is_forgotten_for_the_next_of_its_name() {
    let case = Case::new().await;
    let forget =
        async |target: &Target| guest::forget(target, &case.path, &case.bench.options, &case.bench.events).await;
    let acme = case.guest("acme");
    assert_eq!(forget(&acme).await.unwrap(), 0);
    case.migrate(&case.host()).await;
    for tenant in ["acme", "zeta"] {
        case.seed(&case.guest(tenant), &case.path).await.unwrap();
    }
    assert_eq!(forget(&acme).await.unwrap(), 2);
    assert_eq!(case.seed(&case.guest("zeta"), &case.path).await.unwrap().outcome, Outcome::UpToDate);
    case.log().await;
    case.seed(&acme, &case.path).await.unwrap();
    assert_eq!(case.log().await, ["for acme", "hello acme"]);
    assert_eq!(forget(&case.host().of_tenant("acme")).await.unwrap_err().kind(), ErrorKind::Findings);
}

#[tokio::test]
async fn seeding_always_runs_the_seeds_of_a_tenant_and_no_others() {
    let mut case = Case::new().await;
    case.migrate(&case.host()).await;
    case.bench.options.always_seed = true;
    for _ in 0..2 {
        case.log().await;
        let report = case.seed(&case.guest("acme"), &case.path).await.unwrap();
        assert_eq!(report.seeded, ["2_tenant", "3_greeting"]);
        assert_eq!(case.log().await, ["for acme", "hello acme"]);
    }
}
