//! Streaming replicas of a test's own server.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgfleet_local::testing::{OwnServer, Replica, TestServer};
use pgfleet_local::{Status, StopMode};
use tokio_postgres::Client;

use crate::shared::connect;

/// Set for a process of this test program that is there to be killed.
const TO_BE_KILLED: &str = "PGFLEET_TEST_REPLICA_TO_BE_KILLED";

const LIMIT: Duration = Duration::from_secs(20);

/// A primary of the version of that shared server, with a table.
async fn primary(server: TestServer) -> (OwnServer, Client) {
    let folder = server.bin_dir().to_owned();
    let primary = OwnServer::start(|options| {
        options.search.bin_dir = Some(folder);
        "it's/a @\\ password".clone_into(&mut options.password);
    })
    .await
    .unwrap();
    assert_eq!(primary.running().version.0, server.version().0);
    let client = connect(&primary.superuser_url("postgres")).await;
    client.batch_execute("CREATE TABLE seats (id int PRIMARY KEY)").await.unwrap();
    (primary, client)
}

async fn write(client: &Client, id: i32) {
    client.execute("INSERT INTO seats VALUES ($1)", &[&id]).await.unwrap();
}

async fn seats(client: &Client) -> Vec<i32> {
    let rows = client.query("SELECT id FROM seats ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn seats_of(replica: &Replica) -> Vec<i32> {
    seats(&connect(&replica.superuser_url("postgres")).await).await
}

/// The whole life of a replica.
async fn replicates(server: TestServer) {
    let (primary, writer) = primary(server).await;
    let replica = primary.replica().await.unwrap();
    assert_ne!(replica.port(), primary.port());
    write(&writer, 1).await;
    replica.caught_up().await.unwrap();
    let reader = connect(&replica.superuser_url("postgres")).await;
    assert_eq!(seats(&reader).await, [1]);
    let refused = reader.execute("INSERT INTO seats VALUES (0)", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25006");

    replica.pause_replay().await.unwrap();
    write(&writer, 2).await;
    let flushed = "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'test', '')";
    writer.batch_execute(flushed).await.unwrap();
    let received = "SELECT pg_last_wal_receive_lsn() >= $1::text::pg_lsn";
    let lsn: String = writer.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    let began = Instant::now();
    while !reader.query_one(received, &[&lsn]).await.unwrap().get::<_, bool>(0) {
        assert!(began.elapsed() < LIMIT, "{lsn} is not received");
    }
    assert_eq!(seats(&reader).await, [1], "received, and not replayed");
    replica.resume_replay().await.unwrap();
    replica.caught_up().await.unwrap();
    assert_eq!(seats(&reader).await, [1, 2]);

    let port = replica.port();
    replica.kill().unwrap();
    assert!(reader.query_one("SELECT 1", &[]).await.is_err());
    assert!(matches!(replica.cluster().status().unwrap(), Status::Stopped { .. }));
    write(&writer, 3).await;
    replica.start().await.unwrap();
    assert_eq!(replica.port(), port);
    replica.caught_up().await.unwrap();
    assert_eq!(seats_of(&replica).await, [1, 2, 3]);

    replica.stop(StopMode::Fast).unwrap();
    replica.start().await.unwrap();
    primary.stop(StopMode::Immediate).unwrap();
    replica.promote().await.unwrap();
    let writer = connect(&replica.superuser_url("postgres")).await;
    write(&writer, 4).await;
    // It stays a primary.
    replica.stop(StopMode::Fast).unwrap();
    replica.start().await.unwrap();
    let writer = connect(&replica.superuser_url("postgres")).await;
    write(&writer, 5).await;
    assert_eq!(seats(&writer).await, [1, 2, 3, 4, 5]);

    let running = replica.running();
    let folder = replica.cluster().options().state_dir.clone();
    assert!(running.data_dir.exists());
    drop(replica);
    assert!(!running.data_dir.exists() && !running.socket_dir.exists() && !folder.exists());
}

#[tokio::test]
async fn a_replica_is_paused_killed_started_and_promoted() {
    // In a task of its own, which all of it must be fit for.
    tokio::spawn(replicates(TestServer::shared().await)).await.unwrap();
}

#[tokio::test]
async fn a_replica_of_version_18_is_paused_killed_started_and_promoted() {
    replicates(TestServer::shared_version(18).await).await;
}

#[tokio::test]
async fn of_two_replicas_one_follows_the_other() {
    let (primary, writer) = primary(TestServer::shared().await).await;
    let feedback = ("hot_standby_feedback".to_owned(), "on".to_owned());
    let (first, second) =
        tokio::join!(primary.replica_with(|options| options.settings.push(feedback)), primary.replica());
    let (first, second) = (first.unwrap(), second.unwrap());
    let shown = connect(&first.superuser_url("postgres")).await.query_one("SHOW hot_standby_feedback", &[]).await;
    assert_eq!(shown.unwrap().get::<_, String>(0), "on");
    write(&writer, 1).await;
    first.caught_up().await.unwrap();
    second.caught_up().await.unwrap();
    let names = "SELECT count(DISTINCT application_name) FROM pg_stat_replication WHERE state = 'streaming'";
    assert_eq!(writer.query_one(names, &[]).await.unwrap().get::<_, i64>(0), 2);
    drop(primary);

    first.promote().await.unwrap();
    second.follow(&first).await.unwrap();
    write(&connect(&first.superuser_url("postgres")).await, 2).await;
    second.caught_up().await.unwrap();
    assert_eq!(seats_of(&second).await, [1, 2]);
    // Also after a restart.
    second.kill().unwrap();
    write(&connect(&first.superuser_url("postgres")).await, 3).await;
    second.start().await.unwrap();
    second.caught_up().await.unwrap();
    assert_eq!(seats_of(&second).await, [1, 2, 3]);
}

#[tokio::test]
async fn no_replica_of_a_stopped_server_and_nothing_is_left() {
    let (primary, _) = primary(TestServer::shared().await).await;
    primary.stop(StopMode::Immediate).unwrap();
    let error = primary.replica().await.unwrap_err().to_string();
    assert!(error.contains("pg_basebackup failed") && error.contains("refused"), "{error}");
    assert!(!error.contains("password"), "{error}");
}

#[tokio::test]
async fn a_replica_of_a_killed_process_is_removed_by_the_next_one() {
    if std::env::var_os(TO_BE_KILLED).is_some() {
        let primary = OwnServer::start(|_| {}).await.unwrap();
        let replica = primary.replica().await.unwrap();
        println!("folder {}", replica.cluster().options().state_dir.display());
        std::future::pending::<()>().await;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "replica::a_replica_of_a_killed_process_is_removed_by_the_next_one", "--nocapture"])
        .env(TO_BE_KILLED, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let folder = lines
        .map(|line| line.unwrap())
        .find_map(|line| line.split_once("folder ").map(|(_, folder)| folder.to_owned()))
        .unwrap();
    assert!(Path::new(&folder).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let _next = OwnServer::start(|_| {}).await.unwrap();
    let began = Instant::now();
    // Other tests look for orphans, too; one of them may be at it.
    while Path::new(&folder).exists() {
        assert!(began.elapsed() < LIMIT, "{folder} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
