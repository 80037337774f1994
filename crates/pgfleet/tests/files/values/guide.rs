// What the guide about values defines, for those of its parts that come after.
use pgfleet::test::Database;
use pgfleet::values::{
    CommitError, Conflict, Entity, Id, Key, Keyset, Money, Page, PageQuery, Retry, Table, Timestamp, ValueError,
};
use tokio_postgres::{Client, IsolationLevel, Row};

struct Driver;

impl Entity for Driver {
    const PREFIX: &'static str = "d_";
}

struct Trip {
    id: Id<Trip>,
    departs_at: Timestamp,
    seats: i32,
    fare: Money,
    version: i64,
}

impl Entity for Trip {
    const PREFIX: &'static str = "t_";
}

impl From<Row> for Trip {
    fn from(row: Row) -> Self {
        Self {
            id: row.get("id"),
            departs_at: row.get("departs_at"),
            seats: row.get("seats"),
            fare: row.get("fare"),
            version: row.get("version"),
        }
    }
}

const TRIPS: Table = Table::new("trips").versioned();
const COLUMNS: &str = "id, departs_at, seats, fare, version";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("a value is not what it should be")]
    Value(#[from] ValueError),
    #[error("somebody else was faster")]
    Conflict(#[from] Conflict),
    #[error("the database refused")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("the work was not saved")]
    Commit(#[from] CommitError),
    #[error("no seat is left")]
    Full,
}

fn service() -> pgfleet::Builder {
    let table = include_str!("trips.sql");
    pgfleet::Service::builder("trip").migrations(pgfleet::embed::Folder::new(
        "migrations",
        "pgfleet",
        Box::leak(Box::new([("0001_create_trips.sql", table)])),
    ))
}

/// Runs a part of the guide on a database with the table and three trips of a driver.
fn run(part: impl AsyncFnOnce(Client, Id<Driver>) -> Result<(), Error>) {
    pgfleet::test::run(service, async |db: Database| {
        let db = db.connect().await.unwrap().into_client();
        let driver = Id::generate();
        for fare in ["12.50", "8.00", "20.25"] {
            let (id, fare): (Id<Trip>, Money) = (Id::generate(), fare.parse()?);
            let sql = "INSERT INTO trips (id, driver_id, departs_at, seats, fare) VALUES ($1, $2, $3, 4, $4)";
            db.execute(sql, &[&id, &driver, &Timestamp::now(), &fare]).await?;
        }
        part(db, driver).await
    })
    .unwrap();
}
