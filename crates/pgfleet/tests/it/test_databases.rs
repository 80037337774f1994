//! What a test with `#[pgfleet::test]` finds in its database.

use std::io::Write as _;
use std::panic::catch_unwind;

use pgfleet::embed::{Folder, Seeds};
use pgfleet::test::{Database, FromDatabase};
use pgfleet::{
    Backfill, Batch, Builder, Connection, Db, Error, Migration, Module, Seeder, Service, StepError, StepResult,
};
use sqlx::{PgPool, Row as _};

const TRIPS: Folder = pgfleet::migrations!("tests/files/migrations");
const SEEDS: Seeds = pgfleet::seeds!("tests/files/seeds");

/// A migration that works on the connection.
struct AddFares;

impl Migration for AddFares {
    fn id(&self) -> &'static str {
        "3_add_fares"
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        db.execute("CREATE TABLE fares (trip bigint REFERENCES trips, price int)", &[]).await?;
        Ok(())
    }
}

/// A migration in batches, of which there is one.
struct CountSeats;

impl Backfill for CountSeats {
    type Cursor = i64;

    fn id(&self) -> &'static str {
        "4_count_seats"
    }

    async fn batch(&self, db: &Db<'_>, _: Option<i64>) -> StepResult<Batch<i64>> {
        Ok(Batch::done(db.execute("UPDATE trips SET driver = driver", &[]).await?))
    }
}

/// A seeder that says when it ran, and then does not end, where the environment asks for that.
struct SeedFares;

impl Seeder for SeedFares {
    fn name(&self) -> &'static str {
        "2_fares"
    }

    fn properties(&self) -> &[&str] {
        &["price"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        if let Some(path) = std::env::var_os("PGFLEET_TESTS_MADE") {
            let mut made = std::fs::File::options().create(true).append(true).open(path)?;
            writeln!(made, "made")?;
        }
        if std::env::var_os("PGFLEET_TESTS_HANG").is_some() {
            std::future::pending::<()>().await;
        }
        let price: i32 = db.property("price")?.parse()?;
        db.execute("INSERT INTO fares VALUES (1, $1)", &[&price]).await?;
        Ok(())
    }
}

/// A service with everything that can be in one.
pub(crate) fn everything() -> Builder {
    let users = Folder::new("identity", "pgfleet", &[("1_users.sql", "CREATE TABLE users (id bigint)")]);
    Service::builder("trip")
        .module(Module::new("identity").schema("public").migrations(users))
        .migrations(TRIPS)
        .migration(AddFares)
        .migration(CountSeats)
        .seeds(SEEDS)
        .seeder(SeedFares)
        .property("price", "7")
        .on_applied(|_| async { Err::<(), _>(StepError::new("a template is nothing to be told of")) })
}

async fn count(connection: &Connection, table: &str) -> i64 {
    connection.query(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap()[0].get(0)
}

#[pgfleet::test(migrations = "tests/files/migrations")]
async fn one_test_sees_no_rows_of_another(db: Database) {
    adds_the_same_row_as_others(&db).await;
}

#[pgfleet::test(migrations = "tests/files/migrations")]
async fn another_test_sees_no_rows_of_the_first(db: Database) {
    adds_the_same_row_as_others(&db).await;
}

async fn adds_the_same_row_as_others(db: &Database) {
    let connection = db.connect().await.unwrap();
    assert_eq!(count(&connection, "trips").await, 0);
    connection.execute("INSERT INTO trips VALUES (1, 'mine')", &[]).await.unwrap();
    assert_eq!(count(&connection, "trips").await, 1);
    let here: String = connection.query("SELECT current_database()::text", &[]).await.unwrap()[0].get(0);
    assert_eq!(here, db.name());
}

#[pgfleet::test(migrations = "tests/files/migrations", seeds = "tests/files/seeds")]
async fn files_of_seeds_were_run(connection: Connection) -> Result<(), Error> {
    let rows = connection.query("SELECT driver FROM trips", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["from a file"]);
    assert_eq!(count(&connection, "seats").await, 0);
    Ok(())
}

#[pgfleet::test(service = everything)]
async fn migrations_and_seeders_in_rust_were_run(client: tokio_postgres::Client) -> Result<(), tokio_postgres::Error> {
    let price: i32 = client.query_one("SELECT price FROM fares JOIN trips ON id = trip", &[]).await?.get(0);
    assert_eq!(price, 7);
    let users: i64 = client.query_one("SELECT count(*) FROM users", &[]).await?.get(0);
    assert_eq!(users, 0);
    Ok(())
}

#[pgfleet::test(service = everything)]
async fn a_service_starts_on_it_with_nothing_to_do(db: Database) {
    // Had anything been left to do, the hook would fail the start.
    let service = everything().url(db.url()).migrator_url(db.url()).start().await.unwrap();
    assert_eq!(service.current_version().await.unwrap().as_deref(), Some("4"));
    assert_eq!(service.status().await.unwrap().pending, [""; 0]);
}

#[pgfleet::test(migrations = "tests/files/migrations")]
async fn a_pool_of_sqlx_is_connected(pool: PgPool) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO trips VALUES ($1, $2)").bind(5_i64).bind("sqlx").execute(&pool).await?;
    let mut several = Vec::new();
    for _ in 0..3 {
        several.push(pool.acquire().await?);
    }
    let row = sqlx::query("SELECT driver FROM trips").fetch_one(&mut *several[2]).await?;
    assert_eq!(row.get::<String, _>(0), "sqlx");
    Ok(())
}

#[pgfleet::test]
async fn without_folders_the_database_is_there_and_empty(db: Database) {
    let connection = db.connect().await.unwrap();
    assert_eq!(count(&connection, "pg_class WHERE relnamespace = 'public'::regnamespace").await, 0);
}

fn in_a_schema() -> Builder {
    Service::builder("trip").migrations(TRIPS).schema("the \"trip\" \\ schema")
}

#[pgfleet::test(service = in_a_schema)]
async fn names_go_to_the_schema_of_the_service(db: Database) {
    let connection = db.connect().await.unwrap();
    let schema = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'trips'::regclass";
    let ours = r#""the ""trip"" \ schema""#;
    assert_eq!(connection.query(schema, &[]).await.unwrap()[0].get::<_, String>(0), ours);
    let pool = db.pool().await.unwrap();
    assert_eq!(sqlx::query(schema).fetch_one(&pool).await.unwrap().get::<String, _>(0), ours);
    let (client, driver) = tokio_postgres::connect(&db.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(driver);
    assert_eq!(client.query_one(schema, &[]).await.unwrap().get::<_, String>(0), ours);
}

/// An argument of a crate's own.
struct Trips(Connection);

impl FromDatabase for Trips {
    async fn from_database(database: &Database) -> Result<Self, Error> {
        Ok(Self(database.connect().await?))
    }
}

#[pgfleet::test(migrations = "tests/files/migrations")]
async fn a_test_takes_what_a_crate_makes_of_the_database(trips: Trips) {
    assert_eq!(count(&trips.0, "trips").await, 0);
}

#[pgfleet::test(migrations = "tests/files/migrations")]
#[should_panic(expected = "the test's own words")]
async fn a_panic_is_the_tests_own(_: Database) {
    panic!("the test's own words");
}

/// Whether a database is there, asked on the server of another one.
async fn exists(other: &Database, name: &str) -> bool {
    let connection = other.connect().await.unwrap();
    !connection.simple(&format!("SELECT FROM pg_database WHERE datname = '{name}'")).await.unwrap().is_empty()
}

fn empty() -> Builder {
    Service::builder("test")
}

#[test]
fn the_database_is_gone_when_the_test_is_over_and_also_when_it_failed() {
    let mut names = Vec::new();
    pgfleet::test::run(empty, async |db: Database| {
        // Still in it when the test ends.
        let pool = db.pool().await.unwrap();
        std::mem::forget(pool.acquire().await.unwrap());
        tokio::spawn(async move {
            let connection = db.connect().await.unwrap();
            connection.simple("SELECT pg_sleep(600)").await
        });
    });
    let failed: Result<(), &str> = pgfleet::test::run(empty, async |db: Database| {
        names.push(db.name().to_owned());
        Err("failed")
    });
    assert_eq!(failed, Err("failed"));
    let panics = || pgfleet::test::run(empty, async |db: Database| assert!(db.name().is_empty(), "{}", db.name()));
    names.push(*catch_unwind(panics).unwrap_err().downcast::<String>().unwrap());
    let mut kept = String::new();
    pgfleet::test::run(empty, async |db: Database| {
        db.keep();
        db.name().clone_into(&mut kept);
    });
    pgfleet::test::run(empty, async |db: Database| {
        assert_eq!(names.len(), 2);
        for name in &names {
            assert!(!exists(&db, name).await, "{name}");
        }
        assert!(exists(&db, &kept).await);
        db.connect().await.unwrap().execute_all(&format!("DROP DATABASE {kept}")).await.unwrap();
    });
}

#[test]
fn the_database_of_another_service_goes_with_the_first() {
    let mut name = String::new();
    pgfleet::test::run(empty, async |db: Database| {
        let other = db.beside(&in_a_schema()).await.unwrap();
        assert_eq!(count(&other.connect().await.unwrap(), "trips").await, 0);
        assert_ne!(other.name(), db.name());
        other.name().clone_into(&mut name);
    });
    pgfleet::test::run(empty, async |db: Database| assert!(!exists(&db, &name).await, "{name}"));
}

const BROKEN: &[(&str, &str)] =
    &[("1_a.sql", "CREATE TABLE a (id int);"), ("2_b.sql", "SELECT 1;\nSELECT nam FROM (SELECT 1 AS name) AS b;")];

fn broken() -> Builder {
    Service::builder("trip").migrations(Folder::new("db/migrations", "pgfleet", BROKEN))
}

#[pgfleet::test(service = broken)]
#[should_panic(expected = "db/migrations/2_b.sql:2:8")]
async fn a_failing_migration_is_shown_with_its_place(_: Database) {}

#[test]
fn a_failing_migration_fails_all_tests_of_the_process_alike() {
    let message = || {
        let run = || pgfleet::test::run(broken, async |db: Database| db.keep());
        *catch_unwind(run).unwrap_err().downcast::<String>().unwrap()
    };
    let first = message();
    for part in ["cannot make the database of a test", "cannot apply 2_b to trip", "column \"nam\" does not exist"] {
        assert!(first.contains(part), "{first}");
    }
    assert!(first.contains("hint: ") && first.contains("b.name"), "{first}");
    assert_eq!(message(), first);
}
