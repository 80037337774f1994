//! Rows that are deleted without being lost, and updates that notice each other.

use std::time::{Duration, Instant};

use pgfleet::values::{Columns, Conflict, Found, Table};
use pgfleet_migrate::schema::Schema;
use sqlx::Row as _;
use tokio_postgres::Client;

use crate::values_support::{TripId, both, client};

const TRIPS: Table = Table::new("trips").versioned();

fn schema() -> String {
    let mut schema = Schema::default();
    schema.standard_table("trips", "seats int NOT NULL DEFAULT 4, version int NOT NULL DEFAULT 1");
    schema.text()
}

async fn insert(client: &Client) -> TripId {
    let id = TripId::generate();
    client.execute("INSERT INTO trips (id) VALUES ($1)", &[&id]).await.unwrap();
    id
}

#[tokio::test]
async fn deleted_rows_are_not_seen_unless_asked_for() {
    let both = both(&schema()).await;
    let (kept, gone) = (insert(&both.client).await, insert(&both.client).await);
    assert_eq!(both.client.execute(&*TRIPS.soft_delete(), &[&gone]).await.unwrap(), 1);
    assert_eq!(both.client.execute(&*TRIPS.soft_delete(), &[&gone]).await.unwrap(), 0, "deleted already");

    let rows = both.client.query(&*TRIPS.select("id").and("seats > $1 OR true"), &[&0]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<TripId>>(), [kept]);
    let ids: Vec<TripId> = sqlx::query_scalar(TRIPS.select("id")).fetch_all(&both.pool).await.unwrap();
    assert_eq!(ids, [kept]);
    let all = TRIPS.with_deleted().select("id").then("ORDER BY id");
    let ids: Vec<TripId> = sqlx::query_scalar(all).fetch_all(&both.pool).await.unwrap();
    assert_eq!(ids, [kept, gone]);
    let joined = format!("SELECT t.id FROM trips t JOIN trips o USING (id) WHERE {}", TRIPS.live_as("t"));
    assert_eq!(both.client.query(&joined, &[]).await.unwrap().len(), 1);

    let state = "SELECT is_deleted, deleted_at IS NOT NULL AND deleted_at = updated_at AND deleted_at > created_at, version \
                 FROM trips WHERE id = $1";
    let row = both.client.query_one(state, &[&gone]).await.unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1), row.get::<_, i32>(2)), (true, true, 2));

    let restored = sqlx::query(TRIPS.restore()).bind(gone).execute(&both.pool).await.unwrap();
    assert_eq!(restored.rows_affected(), 1);
    assert_eq!(sqlx::query(TRIPS.restore()).bind(gone).execute(&both.pool).await.unwrap().rows_affected(), 0);
    let state = "SELECT NOT is_deleted AND deleted_at IS NULL AND updated_at > created_at AND version = 3 FROM trips WHERE id = $1";
    assert!(both.client.query_one(state, &[&gone]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn names_can_be_as_they_are_written() {
    let both = both(
        "CREATE SCHEMA \"Shop\"; CREATE TABLE \"Shop\".\"Drivers\" (\"Id\" text PRIMARY KEY, \"Name\" text, \
         \"UpdatedAt\" timestamptz, \"IsDeleted\" boolean NOT NULL DEFAULT false, \"DeletedAt\" timestamptz, \
         \"Version\" bigint NOT NULL DEFAULT 1); INSERT INTO \"Shop\".\"Drivers\" VALUES ('d')",
    )
    .await;
    let drivers = Table::new("Shop.Drivers").columns(Columns::PASCAL_CASE).versioned();
    let row = both.client.query_opt(&*drivers.update("\"Name\" = $3"), &[&"d", &1_i64, &"Dua"]).await.unwrap();
    assert_eq!(drivers.updated(row.as_ref(), 1), Ok(2));
    assert_eq!(both.client.execute(&*drivers.soft_delete(), &[&"d"]).await.unwrap(), 1);
    assert!(both.client.query(&*drivers.select("*"), &[]).await.unwrap().is_empty());
    let row = both.client.query_opt(&*drivers.look(), &[&"d"]).await.unwrap();
    assert_eq!(drivers.updated(row.as_ref(), 2).unwrap_err().found(), Found::Deleted(3));
}

#[tokio::test]
async fn an_update_says_what_was_in_its_way() {
    let both = both(&schema()).await;
    let id = insert(&both.client).await;
    let update = TRIPS.update("seats = seats - $3");
    let with_tokio = async |id: TripId, version: i64, seats: i32| -> Result<i64, Conflict> {
        let row = both.client.query_opt(&*update, &[&id, &version, &seats]).await.unwrap();
        TRIPS.updated(row.as_ref(), version)
    };
    let with_sqlx = async |id: TripId, version: i64, seats: i32| -> Result<i64, Conflict> {
        let query = sqlx::query(update.clone()).bind(id).bind(version).bind(seats);
        let row = query.fetch_optional(&both.pool).await.unwrap();
        TRIPS.updated(row.as_ref(), version)
    };
    assert_eq!(with_tokio(id, 1, 1).await, Ok(2));
    assert_eq!(with_sqlx(id, 2, 1).await, Ok(3));
    for conflict in [with_tokio(id, 1, 1).await.unwrap_err(), with_sqlx(id, 1, 1).await.unwrap_err()] {
        assert_eq!((conflict.expected(), conflict.found(), conflict.table()), (1, Found::Version(3), "trips"));
        assert_eq!(conflict.to_string(), "the row of trips has been changed: version 1 was expected, and it has 3");
    }
    let nobody = TripId::generate();
    for conflict in [with_tokio(nobody, 1, 1).await.unwrap_err(), with_sqlx(nobody, 1, 1).await.unwrap_err()] {
        assert_eq!(conflict.found(), Found::Nothing);
    }
    both.client.execute(&*TRIPS.soft_delete(), &[&id]).await.unwrap();
    for conflict in [with_tokio(id, 4, 1).await.unwrap_err(), with_sqlx(id, 3, 1).await.unwrap_err()] {
        assert_eq!(conflict.found(), Found::Deleted(4));
    }
    // For an update of one's own that has changed nothing.
    let row = sqlx::query(TRIPS.look()).bind(id).fetch_optional(&both.pool).await.unwrap();
    assert_eq!(TRIPS.updated(row.as_ref(), 3).unwrap_err().found(), Found::Deleted(4));
    let all = TRIPS.with_deleted();
    let row = both.client.query_opt(&*all.update("seats = $3"), &[&id, &4_i64, &9]).await.unwrap();
    assert_eq!(all.updated(row.as_ref(), 4), Ok(5));

    let row = both.client.query_one("SELECT seats, version, updated_at > created_at FROM trips", &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1), row.get::<_, bool>(2)), (9, 5, true));
}

#[tokio::test]
async fn of_updates_at_the_same_time_each_counts_once() {
    const TASKS: i64 = 6;
    const EACH: i64 = 10;
    let both = both(&schema()).await;
    let id = insert(&both.client).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let client = client(&both.database).await;
        tasks.spawn(async move {
            let mut conflicts = 0;
            for _ in 0..EACH {
                loop {
                    let row = client.query_one(&*TRIPS.select("version::bigint").and("id = $1"), &[&id]).await.unwrap();
                    let version: i64 = row.get(0);
                    let update = TRIPS.update("seats = seats + 1");
                    let row = client.query_opt(&*update, &[&id, &version]).await.unwrap();
                    match TRIPS.updated(row.as_ref(), version) {
                        Ok(new) => break assert_eq!(new, version + 1),
                        // The one that was in the way is seen, not the one that this statement began with.
                        Err(conflict) => match conflict.found() {
                            Found::Version(found) => conflicts += i64::from(found > version),
                            other => panic!("{other:?}"),
                        },
                    }
                }
            }
            conflicts
        });
    }
    let conflicts: i64 = tasks.join_all().await.iter().sum();
    assert!(conflicts > 0, "they did not meet");
    let row = sqlx::query("SELECT seats, version FROM trips").fetch_one(&both.pool).await.unwrap();
    let changes = i32::try_from(TASKS * EACH).unwrap();
    assert_eq!((row.get::<i32, _>(0), row.get::<i32, _>(1)), (4 + changes, 1 + changes));
}

#[tokio::test]
async fn an_update_that_waited_for_another_one_sees_what_that_did() {
    let both = both(&schema()).await;
    let id = insert(&both.client).await;
    let mut first = both.pool.begin().await.unwrap();
    let update = || TRIPS.update("seats = $3");
    let row = sqlx::query(update()).bind(id).bind(1_i64).bind(3).fetch_optional(&mut *first).await.unwrap();
    assert_eq!(TRIPS.updated(row.as_ref(), 1), Ok(2));
    let second = client(&both.database).await;
    let second = tokio::spawn(async move {
        let row = second.query_opt(&*update(), &[&id, &1_i64, &2]).await.unwrap();
        TRIPS.updated(row.as_ref(), 1)
    });
    let waits = "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database())";
    let began = Instant::now();
    while !both.client.query_one(waits, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not wait");
    }
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap().unwrap_err().found(), Found::Version(2));
    let row = both.client.query_one("SELECT seats, version FROM trips", &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (3, 2));
}

#[test]
fn the_guide_shows_the_table_and_the_types_that_its_parts_run_on() {
    let guide = include_str!("../../../../docs/src/guides/values.md");
    assert!(guide.contains(include_str!("../files/values/trips.sql")));
    let run_on = include_str!("../files/values/guide.rs");
    let shown = guide.split("```rust\n").skip(1).take(2).flat_map(|block| block.split("```").next().unwrap().lines());
    for line in shown.filter(|line| !line.starts_with("use ") && !line.starts_with('#')) {
        assert!(run_on.contains(&line.replace("tokio_postgres::Row", "Row")), "{line}");
    }
}

#[tokio::test]
async fn a_table_without_deleted_rows_has_versions() {
    const TRIPS: Table = Table::new("trips")
        .columns(Columns { updated_at: "updated_at_utc", ..Columns::STANDARD })
        .versioned()
        .without_deleted();
    let schema = "CREATE TABLE trips (id varchar(50) PRIMARY KEY, seats int NOT NULL, version bigint NOT NULL DEFAULT 1, \
                  updated_at_utc timestamptz NOT NULL DEFAULT '2000-01-01')";
    let both = both(schema).await;
    let id = TripId::generate();
    both.client.execute("INSERT INTO trips (id, seats) VALUES ($1, 4)", &[&id]).await.unwrap();
    let change = async |version: i64| {
        let update = TRIPS.update("seats = $3");
        let row = sqlx::query(update).bind(id).bind(version).bind(3).fetch_optional(&both.pool).await.unwrap();
        TRIPS.updated(row.as_ref(), version)
    };
    assert_eq!(change(1).await, Ok(2));
    assert_eq!(change(1).await.map_err(|conflict| conflict.found()), Err(Found::Version(2)));
    let sql = TRIPS.select("seats").and("updated_at_utc > '2001-01-01'");
    assert_eq!(both.client.query_one(&*sql, &[]).await.unwrap().get::<_, i32>(0), 3);
    assert!(std::panic::catch_unwind(|| TRIPS.soft_delete()).is_err());
}
