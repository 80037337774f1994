//! Folders, users and permissions.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;
use pgfleet_local::{Cluster, StopMode};

use crate::fixture::{Fixture, open_dir, options};

#[test]
fn as_root_the_server_runs_as_somebody_else_without_roots_groups_or_environment() {
    let fixture = Fixture::new();
    let running = fixture.cluster.ensure_running().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        found.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(line("Uid:").iter().all(|uid| uid != "0"), "{status}");
    if geteuid().is_root() {
        assert!(line("Gid:").iter().all(|gid| gid != "0"), "{status}");
        assert!(line("Groups:").is_empty(), "{status}");
    }
    let environment = fs::read(format!("/proc/{}/environ", running.pid)).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("CARGO"));
}

#[test]
fn ctrl_c_in_our_terminal_does_not_reach_the_server() {
    let fixture = Fixture::new();
    let running = fixture.cluster.ensure_running().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // After the name: state, parent, process group, session.
    assert_eq!((fields[2], fields[3]), (&*running.pid.to_string(), &*running.pid.to_string()));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    for path in ["/dev/null/x", "/proc/x"] {
        let error = Cluster::new(options(Path::new(path), |_| {})).ensure_running().unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
    let error = Cluster::new(options(Path::new("/dev/null/x"), |_| {})).ensure_running().unwrap_err();
    assert!(error.is_not_writable() && !error.hints().is_empty(), "{error:?}");
}

#[test]
fn data_goes_elsewhere_when_the_servers_user_cannot_reach_the_state_folder() {
    if !geteuid().is_root() {
        return;
    }
    let folder = open_dir();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let state_dir = folder.path().join("state");
    let cluster = Cluster::new(options(&state_dir, |_| {}));
    let running = cluster.ensure_running().unwrap();
    let found = running.data_dir.starts_with("/var/lib/pgfleet");

    // A copy of the project must not get the original's server.
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(state_dir.join("local.json"), copy.join("local.json")).unwrap();
    let copied = Cluster::new(options(&copy, |_| {}));
    let other = copied.ensure_running();
    copied.destroy().unwrap();
    // A moved one keeps its own.
    let moved_dir = folder.path().join("moved");
    fs::rename(&state_dir, &moved_dir).unwrap();
    let moved = Cluster::new(options(&moved_dir, |_| {}));
    let same = moved.ensure_running();
    moved.destroy().unwrap();

    assert!(found, "{}", running.data_dir.display());
    let other = other.unwrap();
    assert!(other.created && other.data_dir != running.data_dir);
    assert_eq!(same.unwrap().pid, running.pid);
    assert!(!running.data_dir.exists());
}

#[test]
fn a_configured_data_folder_that_cannot_be_reached_is_an_error_with_the_closed_folder() {
    if !geteuid().is_root() {
        return;
    }
    let folder = open_dir();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let cluster = Cluster::new(options(&folder.path().join("state"), |options| {
        options.data_dir = Some(closed.join("data"));
    }));
    let error = cluster.ensure_running().unwrap_err();
    assert!(error.is_not_writable());
    assert!(error.to_string().contains(closed.to_str().unwrap()), "{error}");
}

#[test]
fn a_folder_with_other_things_in_it_is_not_taken_for_data() {
    let fixture = Fixture::with(|_| {});
    let data = fixture.state_dir().join("postgres");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("letter.txt"), "dear").unwrap();
    let error = fixture.cluster.ensure_running().unwrap_err();
    assert!(error.to_string().contains("not a PostgreSQL data directory"), "{error}");
    assert!(fixture.cluster.destroy().is_err());
    assert!(data.join("letter.txt").exists());
}

#[test]
fn a_socket_folder_of_somebody_else_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let fixture = Fixture::new();
    let running = fixture.cluster.ensure_running().unwrap();
    fixture.cluster.stop(StopMode::Fast).unwrap();
    assert!(!running.socket_dir.exists(), "a stopped server leaves no folder behind");
    fs::create_dir(&running.socket_dir).unwrap();
    chown(&running.socket_dir, Some(12_345), None).unwrap();
    let error = fixture.cluster.ensure_running().unwrap_err();
    fs::remove_dir(&running.socket_dir).unwrap();
    assert!(error.to_string().contains("belongs to uid 12345"), "{error}");
}

#[test]
fn the_password_is_in_no_argument_and_no_file_is_left() {
    let fixture = Fixture::new();
    let running = fixture.cluster.ensure_running().unwrap();
    assert!(!running.socket_dir.join("initdb-password").exists());
    let output = Command::new("grep")
        .args(["-rlF", crate::fixture::PASSWORD])
        .args([&running.data_dir, &running.socket_dir, &fixture.state_dir()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}
