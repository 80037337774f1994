//! The shared test server and its databases.

use std::time::{Duration, Instant};

use pgfleet_local::testing::TestServer;
use tokio_postgres::{Client, NoTls};

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn exists(client: &Client, database: &str) -> bool {
    let sql = "SELECT 1 FROM pg_database WHERE datname = $1";
    client.query_opt(sql, &[&database]).await.unwrap().is_some()
}

#[tokio::test]
async fn a_test_gets_an_empty_database_that_goes_away_with_it() {
    let server = TestServer::shared().await;
    let database = server.database().await;
    let client = connect(&database.url()).await;
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(client.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 0);

    let admin = connect(&server.superuser_url("postgres")).await;
    let name = database.name.clone();
    assert!(exists(&admin, &name).await);
    drop(database);
    let begin = Instant::now();
    while exists(&admin, &name).await {
        assert!(begin.elapsed() < Duration::from_secs(20), "{name} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_second_look_finds_the_running_server_at_once() {
    let server = TestServer::shared().await;
    let begin = Instant::now();
    let again = TestServer::shared().await;
    assert_eq!(server.port(), again.port());
    assert!(begin.elapsed() < Duration::from_millis(200));
    assert!(server.bin_dir().join("pg_ctl").is_file());
    let name = server.empty_name().await;
    let admin = connect(&server.superuser_url("postgres")).await;
    assert!(!exists(&admin, &name).await);
}
