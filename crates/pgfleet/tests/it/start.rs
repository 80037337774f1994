//! Starting: who migrates, who waits, who refuses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgfleet::embed::{Folder, Seeds};
use pgfleet::{Db, ErrorKind, Event, Migration, Module, Seeder, Service, StepError, StepResult};
use pgfleet_postgres::lock::{LockKey, try_lock, unlock};

use crate::support::{Events, THREE, TWO, column, database, service, sql, until, waiting};

const BROKEN: Folder =
    Folder::new("db/migrations", "pgfleet", &[("1_a.sql", "CREATE TABLE a (id int);\nCREATE TABEL b (id int);")]);
const TWICE: Folder = Folder::new("m", "pgfleet", &[("3_a.sql", "select 1;")]);
const VERSIONS: &str = "select version from pgfleet.trip_migrations order by version";

#[tokio::test]
async fn a_service_starts_on_an_empty_database() {
    let database = database().await;
    let builder = service(&database, TWO);
    let mut readiness = builder.readiness();
    assert!(!readiness.is_ready());
    let service = builder.start().await.unwrap();
    assert!(readiness.ready().await && service.readiness().is_ready());
    assert_eq!(service.current_version().await.unwrap().as_deref(), Some("2"));
    let connection = service.connect().await.unwrap();
    connection.client().execute("INSERT INTO trips VALUES ($1)", &[&1_i64]).await.unwrap();
    assert_eq!(column(&database, "select count(*) from trips").await, ["1"]);
}

#[tokio::test]
async fn a_missing_database_is_made_when_it_may_be() {
    let server = pgfleet_local::testing::TestServer::shared().await;
    let name = server.empty_name().await;
    let url = server.superuser_url(&name);
    let builder = || {
        Service::builder("trip").migrations(TWO).migrator_url(&url).options(|options| {
            options.wait_attempts = 1;
            options.max_tries = 1;
        })
    };
    let error = builder().start().await.unwrap_err();
    assert!(error.hint().unwrap().contains("pgfleet provision"), "{error:#}");
    let service = builder().admin_url(server.superuser_url("postgres")).start().await.unwrap();
    assert_eq!(service.current_version().await.unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn of_three_replicas_one_migrates_and_all_serve() {
    let database = database().await;
    let events = Events::default();
    let start = || service(&database, THREE).observer(events.clone()).start();
    let (one, two, three) = tokio::join!(start(), start(), start());
    for service in [one, two, three] {
        assert_eq!(service.unwrap().current_version().await.unwrap().as_deref(), Some("3"));
    }
    assert_eq!(events.count(|event| matches!(event, Event::Planned { .. })), 1);
    assert_eq!(events.count(|event| matches!(event, Event::Done { .. })), 3);
}

#[tokio::test]
async fn a_replica_that_needs_less_serves_while_another_still_migrates() {
    let database = database().await;
    service(&database, TWO).start().await.unwrap();
    let holder = sql(&database).await;
    assert!(try_lock(&holder, LockKey::Migrate).await.unwrap());
    let events = Events::default();
    let builder = service(&database, THREE).needs("2").observer(events.clone());
    let started = builder.start().await.unwrap();
    assert!(events.any(|event| matches!(event, Event::LockHeld { .. })));
    assert_eq!(started.current_version().await.unwrap().as_deref(), Some("2"));
    // One that needs all of it waits, and is not ready meanwhile.
    let events = Events::default();
    let builder = service(&database, THREE).observer(events.clone());
    let readiness = builder.readiness();
    let release = async {
        until("it waits", async || events.any(|event| matches!(event, Event::LockHeld { .. }))).await;
        assert!(!readiness.is_ready());
        unlock(&holder, LockKey::Migrate).await.unwrap();
    };
    let (started, ()) = tokio::join!(builder.start(), release);
    assert_eq!(started.unwrap().current_version().await.unwrap().as_deref(), Some("3"));
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn a_service_without_a_migrating_role_waits_for_the_schema() {
    let database = database().await;
    let builder = waiting(&database, TWO).schema_wait(Duration::from_secs(20));
    let readiness = builder.readiness();
    let migrate = async {
        let connected = "select count(*) from pg_stat_activity where application_name = 'pgfleet wait trip' \
                         and datname = current_database()";
        // It has looked and found nothing once it asks who migrates; then it may be seen gone again.
        let watcher = sql(&database).await;
        let seen = async || watcher.simple(connected).await.unwrap()[0].get(0) != Some("0");
        until("it waits", seen).await;
        assert!(!readiness.is_ready());
        service(&database, TWO).start().await.unwrap();
    };
    let (started, ()) = tokio::join!(builder.start(), migrate);
    assert_eq!(started.unwrap().current_version().await.unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn the_wait_for_a_schema_that_nobody_makes_ends() {
    let database = database().await;
    let error = waiting(&database, TWO).schema_wait(Duration::ZERO).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert_eq!(error.to_string(), "trip cannot start: migrations are pending");
    assert_eq!(error.causes(), ["1_trips", "2_seats"]);
    assert_eq!(error.hint().unwrap(), "`pgfleet migrate --service trip` applies them");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn without_auto_migrate_it_serves_or_refuses_as_chosen_and_can_be_told_to() {
    let database = database().await;
    let manual = || service(&database, TWO).auto_migrate(false);
    let error = manual().refuse_pending(true).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pending);
    let started = manual().start().await.unwrap();
    assert_eq!(started.current_version().await.unwrap(), None);
    assert_eq!(column(&database, "select count(*) from pg_namespace where nspname = 'pgfleet'").await, ["0"]);
    let report = started.migrate().await.unwrap();
    assert_eq!(report.applied, ["1_trips", "2_seats"]);
    assert_eq!(started.current_version().await.unwrap().as_deref(), Some("2"));
    manual().refuse_pending(true).start().await.unwrap();
    let error = waiting(&database, TWO).start().await.unwrap().migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.hint().unwrap().contains("PGFLEET_TRIP_MIGRATOR_URL"), "{error:#}");
}

#[tokio::test]
async fn an_old_program_serves_a_newer_schema_up_to_what_it_tolerates() {
    let database = database().await;
    service(&database, THREE).start().await.unwrap();
    let old = service(&database, TWO).start().await.unwrap();
    assert_eq!(old.current_version().await.unwrap().as_deref(), Some("3"));
    service(&database, TWO).tolerates("3").start().await.unwrap();
    waiting(&database, TWO).needs("2").start().await.unwrap();
    let error = service(&database, TWO).tolerates("2").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Ahead);
    assert_eq!(error.causes(), ["the database is at 3, and the service tolerates up to 2"]);
    assert_eq!(column(&database, VERSIONS).await, ["1", "2", "3"]);
}

struct CountTrips;

impl Migration for CountTrips {
    fn id(&self) -> &'static str {
        "3_count_trips"
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        db.batch("CREATE TABLE counted AS SELECT count(*) AS n FROM trips").await
    }
}

struct Admin;

impl Seeder for Admin {
    fn name(&self) -> &'static str {
        "2_admin"
    }

    fn properties(&self) -> &[&str] {
        &["admin_email"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        let email = db.property("admin_email")?;
        db.execute("INSERT INTO users VALUES ($1) ON CONFLICT DO NOTHING", &[&email]).await?;
        Ok(())
    }
}

#[tokio::test]
async fn modules_migrations_and_seeders_make_one_start() {
    let database = database().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let build = || {
        let identity = Module::new("identity")
            .migrations(Folder::new(
                "identity",
                "pgfleet",
                &[("1_users.sql", "CREATE TABLE users (email text UNIQUE);")],
            ))
            .seeds(Seeds::new(
                "identity/seeds",
                &[("1_a.sql", "INSERT INTO users VALUES ('x') ON CONFLICT DO NOTHING;")],
            ))
            .seeder(Admin);
        let told = told.clone();
        service(&database, TWO)
            .module(identity)
            .migration(CountTrips)
            .property("admin_email", "admin@example.org")
            .on_applied(move |applied| {
                told.lock().unwrap().push(applied);
                async { Ok::<(), StepError>(()) }
            })
    };
    build().start().await.unwrap();
    assert_eq!(column(&database, "select email from users order by 1").await, ["admin@example.org", "x"]);
    assert_eq!(column(&database, "select n from counted").await, ["0"]);
    assert_eq!(column(&database, VERSIONS).await, ["1", "2", "3"]);
    build().start().await.unwrap();
    let applied = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(applied.len(), 1);
    let sets: Vec<_> = applied[0].sets.iter().map(|set| (set.set.as_str(), set.versions.len())).collect();
    assert_eq!(sets, [("identity", 1), ("trip", 3)]);
}

#[tokio::test]
async fn a_failing_migration_ends_the_start_with_its_place() {
    let database = database().await;
    let error = service(&database, BROKEN).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration);
    let text = format!("{error:#}");
    assert!(text.starts_with("cannot apply 1_a to trip\n"), "{text}");
    assert!(text.contains("syntax error at or near \"TABEL\""), "{text}");
    assert!(text.contains("db/migrations/1_a.sql:2:8"), "{text}");
    assert_eq!(column(&database, "select count(*) from pg_tables where tablename = 'a'").await, ["0"]);
}

#[tokio::test]
async fn what_the_builder_is_told_wrongly_is_said_at_the_start() {
    let wrong = |error: pgfleet::Error| (error.kind(), format!("{error:#}"));
    let (kind, text) = wrong(Service::builder("trip").start().await.unwrap_err());
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(text.contains("set PGFLEET_TRIP_URL=postgresql://"), "{text}");
    let (_, text) = wrong(Service::builder("trip").url("postgresql://u:s3cret@h:port/d").start().await.unwrap_err());
    assert!(text.starts_with("cannot use the url of trip") && !text.contains("s3cret"), "{text}");
    let (_, text) = wrong(Service::builder("trip").needs("one").url("postgresql://h/d").start().await.unwrap_err());
    assert!(text.contains("`one` is not a version"), "{text}");
    let builder = Service::builder("trip").url("postgresql://h/d").migrations(TWICE).migration(CountTrips);
    let (_, text) = wrong(builder.start().await.unwrap_err());
    assert!(text.contains("have one version"), "{text}");
}
