//! A database, and both kinds of client on it.

use pgfleet::values::{Entity, Id};
use pgfleet_local::testing::TestDatabase;
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;
use sqlx::PgPool;
use tokio_postgres::{Client, NoTls};

use crate::support::database;

#[derive(Debug)]
pub(crate) struct Trip;

impl Entity for Trip {
    const PREFIX: &'static str = "t_";
}

pub(crate) type TripId = Id<Trip>;

pub(crate) struct Both {
    pub(crate) client: Client,
    pub(crate) pool: PgPool,
    pub(crate) database: TestDatabase,
}

pub(crate) async fn both(sql: &str) -> Both {
    let database = database().await;
    let client = client(&database).await;
    client.batch_execute(sql).await.unwrap();
    let pool = PgPool::connect(&database.url()).await.unwrap();
    Both { client, pool, database }
}

pub(crate) async fn client(database: &TestDatabase) -> Client {
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Values at random, others in each run.
pub(crate) fn random<S: Strategy>(count: usize, strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::default();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// An error with all that is below it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
