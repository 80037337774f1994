//! What is left after something was killed.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgfleet_local::{Status, StopMode};

use crate::fixture::{Fixture, assert_row, put_a_row};

/// Kills the postmaster and waits until it is gone; its children may still be there.
fn kill_hard(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    let stat = format!("/proc/{pid}/stat");
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        thread::yield_now();
    }
}

#[tokio::test]
async fn a_killed_server_is_started_again_with_its_data() {
    // Durable, since without synchronous commits the last moments may be lost.
    let fixture = Fixture::with(|options| options.durable = true);
    let mut running = fixture.cluster.ensure_running().unwrap();
    put_a_row(&running).await;
    for _ in 0..3 {
        kill_hard(running.pid);
        let again = fixture.cluster.ensure_running().unwrap();
        assert!(again.started && !again.created);
        assert_ne!(again.pid, running.pid);
        assert_row(&again).await;
        running = again;
    }
}

#[test]
fn a_pid_file_with_the_number_of_another_program_is_no_server() {
    let fixture = Fixture::new();
    let running = fixture.cluster.ensure_running().unwrap();
    let path = running.data_dir.join("postmaster.pid");
    let text = fs::read_to_string(&path).unwrap();
    fixture.cluster.stop(StopMode::Fast).unwrap();

    // A process of the server's user, which is what the server itself would take for another one.
    let owner = fs::metadata(&running.data_dir).unwrap();
    let mut command = Command::new("sleep");
    command.arg("60").stdin(Stdio::null()).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let mut other = command.spawn().unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&path, format!("{}\n{rest}", other.id())).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();

    assert!(matches!(fixture.cluster.status().unwrap(), Status::Stopped { .. }));
    assert!(!fixture.cluster.stop(StopMode::Fast).unwrap().was_running);
    let again = fixture.cluster.ensure_running().unwrap();
    assert!(again.started);
    assert!(other.try_wait().unwrap().is_none(), "the other program was left alone");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn an_empty_pid_file_of_a_machine_that_went_down_is_no_obstacle() {
    let fixture = Fixture::new();
    let running = fixture.cluster.ensure_running().unwrap();
    fixture.cluster.stop(StopMode::Immediate).unwrap();
    fs::write(running.data_dir.join("postmaster.pid"), "").unwrap();
    assert!(fixture.cluster.ensure_running().unwrap().started);
}

#[test]
fn a_lost_state_file_is_written_anew_and_the_server_goes_on() {
    let fixture = Fixture::new();
    let running = fixture.cluster.ensure_running().unwrap();
    fs::remove_file(fixture.state_dir().join("local.json")).unwrap();
    let again = fixture.cluster.ensure_running().unwrap();
    assert_eq!((again.pid, again.started), (running.pid, false));
    assert!(fixture.state_dir().join("local.json").exists());
}

#[test]
fn a_half_made_data_directory_is_made_anew() {
    let fixture = Fixture::new();
    let half = fixture.state_dir().join("postgres.new-1-0000abcd");
    fs::create_dir_all(half.join("base")).unwrap();
    fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    assert!(fixture.cluster.ensure_running().unwrap().created);
    assert!(!half.exists());
}
