//! Starting, finding, stopping.

use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use pgfleet_local::{Binaries, FETCHED_MAJOR, Status, StopMode};

use crate::fixture::{Fixture, assert_row, connect, put_a_row};

#[tokio::test]
async fn a_server_is_made_found_stopped_and_started_with_its_data() {
    let fixture = Fixture::new();
    let cluster = &fixture.cluster;
    assert_eq!(cluster.status().unwrap(), Status::Absent);
    assert!(!cluster.stop(StopMode::Fast).unwrap().was_running);

    let first = cluster.ensure_running().unwrap();
    assert!(first.created && first.started);
    assert_eq!(first.restart_needed, None);
    assert!(first.socket_dir.join(format!(".s.PGSQL.{}", first.port)).exists());
    put_a_row(&first).await;

    let again = cluster.ensure_running().unwrap();
    assert!(!again.created && !again.started);
    assert_eq!((again.pid, again.port), (first.pid, first.port));
    assert!(matches!(cluster.status().unwrap(), Status::Running(running) if running == again));

    assert!(cluster.stop(StopMode::Fast).unwrap().was_running);
    assert!(matches!(cluster.status().unwrap(), Status::Stopped { .. }));

    let third = cluster.ensure_running().unwrap();
    assert!(!third.created && third.started);
    assert_eq!(third.port, first.port);
    assert_row(&third).await;

    cluster.destroy().unwrap();
    assert_eq!(cluster.status().unwrap(), Status::Absent);
    assert!(!first.data_dir.exists() && !first.socket_dir.exists() && !first.log_file.exists());
}

#[tokio::test]
async fn the_server_speaks_utf8_in_utc_on_the_loopback_address_with_scram_only() {
    let fixture = Fixture::with(|options| {
        options.durable = true;
        options.settings.push(("work_mem".to_owned(), "5MB".to_owned()));
    });
    let client = connect(&fixture.cluster.ensure_running().unwrap()).await;
    for (name, value) in [
        ("server_encoding", "UTF8"),
        ("timezone", "UTC"),
        ("listen_addresses", "127.0.0.1"),
        ("max_connections", "20"),
        ("fsync", "on"),
        ("work_mem", "5MB"),
        ("cluster_name", "test"),
        ("recovery_init_sync_method", "syncfs"),
    ] {
        let row = client.query_one("SELECT current_setting($1)", &[&name]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{name}");
    }
    let sql = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[test]
fn a_port_that_was_taken_meanwhile_is_left_alone() {
    let fixture = Fixture::new();
    let first = fixture.cluster.ensure_running().unwrap();
    fixture.cluster.stop(StopMode::Fast).unwrap();
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, first.port)).unwrap();
    let second = fixture.cluster.ensure_running().unwrap();
    assert_ne!(second.port, first.port);
    drop(stranger);
    fixture.cluster.stop(StopMode::Fast).unwrap();
    assert_eq!(fixture.cluster.ensure_running().unwrap().port, second.port);
}

#[test]
fn a_port_lost_between_our_look_and_the_start_is_replaced_by_the_next() {
    let fixture = Fixture::with(|options| {
        options.settings.push(("listen_addresses".to_owned(), "0.0.0.0".to_owned()));
    });
    let first = fixture.cluster.ensure_running().unwrap();
    fixture.cluster.stop(StopMode::Fast).unwrap();
    // On 127.0.0.1 this port looks free, but the server cannot bind it on all addresses.
    let _stranger = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), first.port)).unwrap();
    let second = fixture.cluster.ensure_running().unwrap();
    assert_ne!(second.port, first.port);
}

#[test]
fn two_solutions_run_at_once() {
    let fixtures = [Fixture::new(), Fixture::new()];
    let [left, right] = thread::scope(|scope| {
        fixtures
            .each_ref()
            .map(|fixture| scope.spawn(|| fixture.cluster.ensure_running().unwrap()))
            .map(|thread| thread.join().unwrap())
    });
    assert_ne!(left.port, right.port);
    assert_ne!(left.data_dir, right.data_dir);
    assert_ne!(left.socket_dir, right.socket_dir);
}

#[test]
fn four_starters_at_once_make_one_server() {
    let fixture = Fixture::new();
    let all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.cluster.ensure_running().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(all.iter().filter(|running| running.created).count(), 1);
    assert_eq!(all.iter().filter(|running| running.started).count(), 1);
    assert!(all.iter().all(|running| running.pid == all[0].pid));
}

#[test]
fn more_connections_than_the_server_has_are_reported_and_come_with_the_next_start() {
    let fixture = Fixture::new();
    fixture.cluster.ensure_running().unwrap();
    let mut options = fixture.cluster.options().clone();
    options.max_connections = 50;
    let more = pgfleet_local::Cluster::new(options);
    let reason = more.ensure_running().unwrap().restart_needed.unwrap();
    assert_eq!(reason, "max_connections is 20, asked is 50");
    more.stop(StopMode::Fast).unwrap();
    assert_eq!(more.ensure_running().unwrap().restart_needed, None);
    assert_eq!(fixture.cluster.ensure_running().unwrap().restart_needed, None);
}

#[test]
fn a_start_that_fails_shows_the_log() {
    let fixture = Fixture::with(|options| {
        options.settings.push(("work_mem".to_owned(), "plenty".to_owned()));
    });
    let error = fixture.cluster.ensure_running().unwrap_err();
    assert!(error.to_string().contains("work_mem"), "{error}");
}

#[tokio::test]
async fn a_fetched_build_starts_and_answers_and_stays_with_its_data() {
    let fixture = Fixture::with(|options| options.search.major = Some(FETCHED_MAJOR));
    let running = fixture.cluster.ensure_running().unwrap();
    assert_eq!(running.version.0, FETCHED_MAJOR);
    put_a_row(&running).await;
    let row = connect(&running).await.query_one("SHOW lc_collate", &[]).await;
    assert!(row.is_err(), "18 has no such setting");
    let output = std::process::Command::new(running.bin_dir.join("pg_dump"))
        .args(["-h", running.host, "-p", &running.port.to_string(), "-U", "postgres", "postgres"])
        .env("PGPASSWORD", crate::fixture::PASSWORD)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("CREATE TABLE public.kept"));

    // Whatever else is on the machine: this data needs version 18.
    fixture.cluster.stop(StopMode::Fast).unwrap();
    let mut options = fixture.cluster.options().clone();
    options.search.major = None;
    let any = pgfleet_local::Cluster::new(options.clone());
    assert_eq!(any.ensure_running().unwrap().version.0, FETCHED_MAJOR);
    any.stop(StopMode::Fast).unwrap();
    options.search.major = Some(15);
    let error = pgfleet_local::Cluster::new(options).ensure_running().unwrap_err();
    assert!(error.to_string().contains("was made by PostgreSQL 18"), "{error}");
}

#[test]
fn several_fetch_at_once_into_an_empty_cache() {
    let folder = crate::fixture::open_dir();
    let cache = pgfleet_local::Cache::new(folder.path().join("cache"));
    let found: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| Binaries::fetch(&cache).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|binaries| *binaries == found[0]));
    let mut names: Vec<_> =
        std::fs::read_dir(&cache.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["fetch.lock", "postgresql-18.6.3"]);
}
