//! Servers of a test's own.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgfleet_local::StopMode;
use pgfleet_local::testing::OwnServer;

use crate::shared::connect;

#[tokio::test]
async fn a_server_of_its_own_goes_away_with_its_test() {
    let mut server = OwnServer::start(|options| {
        options.settings.push(("wal_level".to_owned(), "logical".to_owned()));
        "it's/ours@x".clone_into(&mut options.password);
    })
    .await
    .unwrap();
    let client = connect(&server.superuser_url("postgres")).await;
    let row = client.query_one("SHOW wal_level", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "logical");
    server.stop(StopMode::Immediate).unwrap();
    assert!(server.ensure_running().unwrap().started);
    let running = server.running().clone();
    drop(server);
    assert!(!running.data_dir.exists() && !running.socket_dir.exists());
}

#[tokio::test]
async fn a_killed_one_is_started_again_with_what_was_committed() {
    let mut server = OwnServer::start(|options| options.durable = true).await.unwrap();
    let client = connect(&server.superuser_url("postgres")).await;
    client.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    server.kill().unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err(), "it is gone");
    let port = server.port();
    assert!(server.ensure_running().unwrap().started);
    assert_eq!(server.port(), port);
    let again = connect(&server.superuser_url("postgres")).await;
    assert_eq!(again.query_one("SELECT n FROM t", &[]).await.unwrap().get::<_, i32>(0), 7);
}

#[tokio::test]
async fn clients_that_connect_and_say_nothing_do_not_hold_up_an_immediate_stop() {
    let server = OwnServer::start(|_| {}).await.unwrap();
    let port = server.port();
    let (is_over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let knocking = std::thread::spawn({
        let (is_over, made) = (is_over.clone(), made.clone());
        move || {
            let mut silent = Vec::new();
            // Also while it stops: the children that it makes then are told nothing.
            while !is_over.load(Ordering::Relaxed) && silent.len() < 2_000 {
                silent.extend(TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
                made.store(silent.len(), Ordering::Relaxed);
            }
        }
    });
    // Its first ones take it a moment to end.
    while made.load(Ordering::Relaxed) < 100 {}
    let began = Instant::now();
    let stopped = server.stop(StopMode::Immediate);
    is_over.store(true, Ordering::Relaxed);
    knocking.join().unwrap();
    stopped.unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
