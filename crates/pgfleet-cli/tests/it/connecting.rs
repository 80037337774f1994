//! Servers that refuse, are down, come late, or are full.

use std::time::{Duration, Instant};

use crate::support::{Bare, Folder, Solution, column, until};

/// A port where nobody listens, free until somebody else takes it.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_wrong_password_ends_at_once_without_another_try() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    let url = format!("postgres://postgres:hunter2wrong@127.0.0.1:{}/postgres", bare.database.server().port());
    let ran = bare.folder.run(&["migrate", "--url", &url, "--dir", "m", "--wait"]).exits(1);
    assert!(ran.took < Duration::from_secs(4), "the retries of 5 s were waited for: {:?}", ran.took);
    ran.says("password authentication failed for user \"postgres\" (SQLSTATE 28P01)")
        .says_nothing_of("try ")
        .says_nothing_of("waiting")
        .says_nothing_of("hunter2wrong");
}

#[test]
fn a_server_that_is_down_ends_at_once_with_4() {
    let folder = Folder::new();
    folder.file("m/1_a.sql", "select 1;");
    let url = format!("postgres://postgres@127.0.0.1:{}/shop", free_port());
    let ran = folder.run(&["migrate", "--url", &url, "--dir", "m"]).exits(4);
    assert!(ran.took < Duration::from_secs(4), "{:?}", ran.took);
    ran.says("error: cannot migrate shop").says("Connection refused").says("hint: ").says("--wait");
}

#[tokio::test]
async fn with_wait_a_server_that_comes_late_is_migrated() {
    let mut solution = Solution::new().await;
    solution.pgfleet("provision").exits(0);
    let port = free_port();
    let url = solution.server.superuser_url("postgres").replace(&solution.server.port().to_string(), &port.to_string());
    solution.folder.set("PGFLEET_SERVERS__MAIN__URL", url);
    solution.folder.pgfleet("migrate").exits(4);
    solution.folder.set("PGFLEET_MIGRATIONS__WAIT_DELAY", "20ms");
    solution.folder.set("PGFLEET_MIGRATIONS__WAIT_ATTEMPTS", "3");
    solution
        .folder
        .pgfleet("migrate --wait")
        .exits(4)
        .says("main: waiting for the server (2 of 3): Connection refused")
        .says("error: server main does not answer");
    solution.folder.set("PGFLEET_MIGRATIONS__WAIT_ATTEMPTS", "1000");
    let child = solution.folder.spawn(&["migrate", "--wait"]);
    // The tries themselves are not seen from here; a listener that opens at any moment is what it
    // waits for.
    let to = solution.server.port();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let relay = tokio::spawn(async move {
        loop {
            let Ok((mut from, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let Ok(mut onward) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else { return };
                let _ended = tokio::io::copy_bidirectional(&mut from, &mut onward).await;
            });
        }
    });
    let ended = tokio::task::spawn_blocking(move || crate::support::Ran::end_of(child)).await.unwrap();
    relay.abort();
    ended.exits(0);
    assert_eq!(solution.column("trip", "select count(*) from trips").await, ["1"]);
}

#[tokio::test]
async fn a_full_server_is_tried_three_times_and_then_4() {
    let solution = Solution::new().await;
    solution.pgfleet("migrate").exits(0);
    solution.folder.file(&format!("services/{}/migrations/2_b.sql", solution.name("trip")), "create table b (id int);");
    solution.sql("alter role \"{}_trip_migrator\" connection limit 0").await;
    let mut folder = solution;
    folder.folder.set("PGFLEET_MIGRATIONS__MIN_RETRY_WAIT", "10ms");
    folder.folder.set("PGFLEET_MIGRATIONS__MAX_RETRY_WAIT", "20ms");
    let began = Instant::now();
    let ran = folder.pgfleet("migrate --service {}_trip").exits(4);
    assert!(began.elapsed() < Duration::from_secs(8));
    ran.says("try 1 of 3").says("try 2 of 3").says("53300").says_nothing_of("try 3 of 3").says("hint: ");
    folder.sql("alter role \"{}_trip_migrator\" connection limit -1").await;
    folder.pgfleet("migrate").exits(0).says("applied 1");
}

#[tokio::test]
async fn a_missing_database_is_made_when_the_url_allows_it() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    let url = format!("{}_new", bare.database.url());
    bare.folder.run(&["migrate", "--url", &url, "--dir", "m"]).exits(0).says("created the database").says("applied 1");
    assert_eq!(column(&url, "select count(*) from a").await, ["0"]);
    let name = format!("{}_new", bare.database.name);
    let server = bare.database.server().superuser_url("postgres");
    column(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[test]
fn a_url_that_is_none_is_a_mistake_of_usage() {
    let folder = Folder::new();
    folder.file("m/1_a.sql", "select 1;");
    folder.run(&["migrate", "--url", "postgres://host:notaport/x", "--dir", "m"]).exits(2).says("error: ");
    folder.run(&["migrate", "--url", "postgres://localhost/x"]).exits(2).says("--dir");
    folder.run(&["migrate", "--dir", "m"]).exits(2).says("--url").says("PGFLEET_URL");
}

#[tokio::test]
async fn another_run_that_holds_the_lock_is_named() {
    let bare = Bare::new().await;
    bare.file("1_slow.sql", "create table slow (id int);\nselect pg_sleep(30);\n");
    let mut first = bare.folder.spawn(&bare.arguments(&[]));
    until("the first one works", async || {
        !bare.column("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(30)%' AND wait_event = 'PgSleep'").await.is_empty()
    })
    .await;
    let ran = bare.migrate(&["--lock-wait", "0"]).exits(1);
    ran.says("lock");
    crate::support::signal(first.id(), nix::sys::signal::Signal::SIGKILL);
    first.wait().unwrap();
}
