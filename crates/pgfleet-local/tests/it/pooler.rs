//! Poolers of a test's own.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgfleet_local::testing::{PoolMode, Pooler, TestServer};

use crate::shared::connect;

/// Set for a process of this test program that is there to be killed.
const TO_BE_KILLED: &str = "PGFLEET_TEST_POOLER_TO_BE_KILLED";

fn answers(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn wait_until_silent(port: u16) {
    let began = Instant::now();
    while answers(port) {
        assert!(began.elapsed() < Duration::from_secs(20), "port {port} still answers");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn sessions_are_shared_in_transaction_mode_and_kept_in_session_mode() {
    let database = TestServer::shared().await.database().await;
    for (mode, shared) in [(PoolMode::Transaction, true), (PoolMode::Session, false)] {
        let pooler = Pooler::start(&database.url(), |options| options.mode = mode).await;
        let (first, second) =
            (connect(&pooler.url(&database.url())).await, connect(&pooler.url(&database.url())).await);
        let pid = "SELECT pg_backend_pid()";
        let one: i32 = first.query_one(pid, &[]).await.unwrap().get(0);
        let other: i32 = second.query_one(pid, &[]).await.unwrap().get(0);
        assert_eq!(one == other, shared, "{mode:?}");
        let port = pooler.port();
        drop(pooler);
        wait_until_silent(port);
    }
}

#[tokio::test]
async fn every_role_of_the_server_logs_in_with_its_own_password() {
    let database = TestServer::shared().await.database().await;
    let role = format!("{}_r", database.name);
    let admin = connect(&database.url()).await;
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'right'")).await.unwrap();
    let pooler = Pooler::start(&database.url(), |_| {}).await;
    let url = |password: &str| format!("postgres://{role}:{password}@127.0.0.1:{}/{}", pooler.port(), database.name);
    let row = connect(&url("right")).await.query_one("SELECT current_user::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), role);
    assert!(tokio_postgres::connect(&url("wrong"), tokio_postgres::NoTls).await.is_err());
}

#[tokio::test]
async fn a_pooler_ends_with_its_process_however_that_ends() {
    if std::env::var_os(TO_BE_KILLED).is_some() {
        let server = TestServer::shared().await;
        let pooler = Pooler::start(&server.superuser_url("postgres"), |_| {}).await;
        println!("port {}", pooler.port());
        std::future::pending::<()>().await;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pooler::a_pooler_ends_with_its_process_however_that_ends", "--nocapture"])
        .env(TO_BE_KILLED, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines
        .map(|line| line.unwrap())
        .find_map(|line| line.split_once("port ").map(|(_, port)| port.parse::<u16>().unwrap()))
        .unwrap();
    assert!(answers(port));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_silent(port);
}
