//! The program itself: its health while it starts, and its end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use masar_common::testing::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgfleet::test::Database;

/// A database in which nothing was migrated.
fn empty() -> pgfleet::Builder {
    pgfleet::Service::builder("user")
}

#[pgfleet::test(service = empty)]
async fn it_answers_before_the_schema_is_there_works_then_and_ends_when_it_is_asked_to(db: Database) {
    // Without a role that migrates it waits until somebody has.
    let mut child = Command::new(env!("CARGO_BIN_EXE_masar-user"))
        .env("PGFLEET_USER_URL", db.url())
        .env_remove("PGFLEET_USER_MIGRATOR_URL")
        .env("PORT", "0")
        .env("RUST_LOG", "info,pgfleet::query=debug")
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = log.find(|line| line.contains("listening")).expect("it says where it listens");
    let address = line.split("address=").nth(1).unwrap().trim();
    let client = Client(address.parse().unwrap());

    for path in ["/health", "/drivers", "/metrics"] {
        let answer = client.get(path).await.is(503);
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
        assert_eq!(answer.text("title"), "the service is starting");
    }
    masar_user::service().url(db.url()).migrator_url(db.url()).start().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.get("/health").await.status != 200 {
        assert!(Instant::now() < deadline, "it does not become ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = client.get("/drivers").await.is(200);
    let _ = client.get("/metrics").await.is(200);

    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let rest: Vec<String> = log.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("pgfleet::query") && line.contains("drivers")), "{rest:#?}");
}
