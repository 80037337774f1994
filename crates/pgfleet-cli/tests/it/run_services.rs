//! `up` runs the services: what they are given, what they print, how they are kept running and stopped.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Ran, Solution, signal, until};

/// A solution whose services are stopped at the end, also when the test fails.
struct Town(Solution);

impl Town {
    /// Makes one with the services `trip` and `user`, and what is said of them.
    async fn new(trip: &str, user: &str) -> Self {
        let solution = Solution::new().await;
        let (first, second) = (solution.name("trip"), solution.name("user"));
        solution.manifest(&format!("[services.{first}]\n{trip}\n\n[services.{second}]\n{user}\n"));
        Self(solution)
    }

    fn pgfleet(&self, line: &str) -> Ran {
        self.0.pgfleet(line)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.folder.path().join(name)
    }

    /// The lines of a file that a service writes; none while it is not there.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn wait_for_lines(&self, name: &str, count: usize) -> Vec<String> {
        until(&format!("{name} has {count} lines"), async || self.lines(name).len() >= count).await;
        self.lines(name)
    }

    fn board(&self) -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(self.file(".pgfleet/run/state.json")).unwrap()).unwrap()
    }

    fn supervisor(&self) -> u32 {
        self.board()["supervisor"]["pid"].as_u64().unwrap().try_into().unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _stopped = self.0.folder.command(&["down"]).output();
    }
}

/// Whether a process runs; one that ended and of which nobody took notice does not.
fn alive(pid: &str) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())) else { return false };
    let state = stat[stat.rfind(')').unwrap() + 1..].trim_start().chars().next().unwrap();
    !matches!(state, 'Z' | 'X')
}

async fn gone(pid: &str) {
    until(&format!("process {pid} has ended"), async || !alive(pid)).await;
}

#[tokio::test]
async fn a_service_gets_its_own_strings_and_nobody_else_s() {
    let mut town = Town::new("run = \"env > trip.env\"", "run = \"env > user.env\"").await;
    for (name, value) in [("PGFLEET_GONE_URL", "leak"), ("PGFLEET_ADMIN_URL", "leak"), ("PLAIN", "kept")] {
        town.0.folder.set(name, value);
    }
    let user_variable = format!("PGFLEET_{}_MIGRATOR_URL", town.0.name("user").to_uppercase());
    town.0.folder.set(&user_variable, "leak");
    town.pgfleet("up").exits(0).says("all services have ended").prints("done");
    let read = |name: &str| -> BTreeMap<String, String> {
        let lines = town.lines(name).into_iter();
        lines.filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    };
    for (file, own, other) in [("trip.env", "trip", "user"), ("user.env", "user", "trip")] {
        let (own, other) = (town.0.name(own), town.0.name(other));
        let variables = read(file);
        let prefix = format!("PGFLEET_{}", own.to_uppercase());
        let mut names: Vec<&str> =
            variables.keys().map(String::as_str).filter(|name| name.starts_with("PGFLEET_")).collect();
        names.sort_unstable();
        let mut expected = ["_BUDGET", "_MIGRATOR_URL", "_POOL", "_URL"].map(|end| format!("{prefix}{end}")).to_vec();
        expected.extend(["PGFLEET_RUN".to_owned(), "PGFLEET_SOLUTION__AUTO_MIGRATE".to_owned()]);
        expected.sort_unstable();
        assert_eq!(names, expected);
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("PGFLEET_")) {
            assert!(!value.contains(&format!("{other}_")) && value != "leak", "{name}");
            assert!(!value.contains("postgres@") && !value.contains("postgres:"), "{name} is not the administrator's");
        }
        assert_eq!(variables["PLAIN"], "kept");
        // The strings are right: what reads URLs gets in with them.
        let names = crate::support::column(&variables[&format!("{prefix}_URL")], "select current_user").await;
        assert_eq!(names, [format!("{own}_app")]);
    }
}

#[tokio::test]
async fn lines_have_the_service_s_name_in_front_whatever_is_in_them() {
    let trip = r#"run = "printf 'one\\ntwo'; printf 'bad \\377 byte\\nerr\\033[2Jor\\n' >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; exit 0""#;
    let town = Town::new(trip, "").await;
    let ran = town.pgfleet("up").exits(0);
    let name = town.0.name("trip");
    let lines: Vec<&str> = ran.out.lines().filter_map(|line| line.strip_prefix(&format!("{name} | "))).collect();
    for line in ["one", "bad \u{fffd} byte", "error"] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
    let whole: String = lines.iter().filter(|line| line.contains("xxx")).copied().collect();
    assert_eq!(whole.replace("two", "").len(), 40_000);
    assert!(lines.iter().all(|line| line.len() <= 17_000), "a long line comes in pieces");
    assert!(!ran.out.contains('\u{1b}'), "no terminal, no colours");
}

#[tokio::test]
async fn a_service_that_fails_is_started_again_and_one_that_is_done_is_not() {
    let fails = "run = \"echo run >> runs; test $(wc -l < runs) -ge 3 || exit 7; exec sleep 600\"";
    let town = Town::new(fails, "run = \"echo once >> once\"").await;
    let ran = town.pgfleet("up --detach").exits(0).prints("running").prints("done").prints("healthy");
    assert!(ran.took >= Duration::from_millis(1400), "it waits before it starts one again: {:?}", ran.took);
    assert_eq!((town.lines("runs").len(), town.lines("once").len()), (3, 1));
    let log = std::fs::read_to_string(town.file(&format!(".pgfleet/run/{}.log", town.0.name("trip")))).unwrap();
    assert_eq!(log.matches("exited with code 7; started again in ").count(), 2, "{log}");
    assert_eq!(town.board()["services"][0]["starts"], 3);
    town.pgfleet("down").exits(0).says(&format!("stopped 1 service: {}", town.0.name("trip")));
}

#[tokio::test]
async fn one_that_does_not_become_healthy_is_shown_with_its_last_lines() {
    let mute = "health = \"tcp:1\"\nhealth_timeout = \"2s\"\n\
                run = \"i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i.; done; exec sleep 600\"";
    let town = Town::new(mute, "run = \"exec sleep 600\"").await;
    let ran = town.pgfleet("up --detach").exits(1);
    let name = town.0.name("trip");
    ran.says(&format!("service {name} is not healthy; its last lines:"))
        .says("    line 11.")
        .says("    line 30.")
        .says_nothing_of("line 10.")
        .says("hint: .pgfleet/run/")
        .prints("unhealthy: tcp:127.0.0.1:1: ");
    // Those that came up go on.
    let pid = town.board()["services"][1]["process"]["pid"].to_string();
    assert!(alive(&pid));
    town.pgfleet("down").exits(0);
    gone(&pid).await;

    let town = Town::new("run = \"echo no such file; exit 3\"", "").await;
    let ran = town.pgfleet("up --detach").exits(1).says("    no such file").prints("exited with code 3");
    assert!(ran.took < Duration::from_secs(30), "three failed starts are enough: {:?}", ran.took);
    // In the foreground it goes on.
    town.pgfleet("down").exits(0);
    let up = town.0.folder.spawn(&["up"]);
    until("it was started again", async || {
        town.file(".pgfleet/run/state.json").is_file() && town.board()["services"][0]["starts"].as_u64() >= Some(4)
    })
    .await;
    signal(up.id(), Signal::SIGTERM);
    Ran::end_of(up).exits(0).says("is not healthy; it goes on").says("the services are stopped");
}

#[tokio::test]
async fn up_waits_until_the_health_check_is_answered_well() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
            let answer = if count < 3 { "503 Not Yet" } else { "200 OK" };
            stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
            if count == 3 {
                return count + 1;
            }
        }
        0
    });
    let health = format!("health = \"http://127.0.0.1:{port}/health\"\nrun = \"exec sleep 600\"");
    let town = Town::new(&health, "").await;
    town.pgfleet("up -d").exits(0).prints("healthy");
    assert_eq!(asked.join().unwrap(), 4);
    let documents = town.pgfleet("up -d --json").exits(0).says("nothing was started").json();
    let trip = &documents.as_array().unwrap()[0];
    assert_eq!((&trip["program"]["state"], &trip["program"]["health"]), (&"running".into(), &"healthy".into()));
    assert!(trip["connection"].as_str().unwrap().contains("passfile="));
}

#[tokio::test]
async fn ctrl_c_stops_children_and_grandchildren() {
    let run = "run = \"sh -c 'echo $$ >> pids; sleep 600 & echo $! >> pids; wait' & wait\"";
    let stubborn = "run = \"trap '' TERM; echo $$ >> stubborn; while true; do sleep 1; done\"";
    for twice in [false, true] {
        let town = Town::new(run, if twice { stubborn } else { "" }).await;
        let up = town.0.folder.spawn(&["up"]);
        let mut pids = town.wait_for_lines("pids", 2).await;
        if twice {
            pids.extend(town.wait_for_lines("stubborn", 1).await);
        }
        assert!(pids.iter().all(|pid| alive(pid)));
        let began = std::time::Instant::now();
        signal(up.id(), Signal::SIGINT);
        if twice {
            // The stubborn one, the last, is asked first and does not end.
            until("it was asked", async || town.board()["services"][0]["state"] != "starting").await;
            signal(up.id(), Signal::SIGINT);
        }
        let ran = Ran::end_of(up)
            .exits(130)
            .says("stopping the services; again to kill them")
            .says("the services are stopped");
        assert!(began.elapsed() < Duration::from_secs(9), "a second Ctrl-C does not wait: {:?}", began.elapsed());
        if twice {
            ran.says("killed");
        }
        for pid in &pids {
            gone(pid).await;
        }
        assert!(!town.file(".pgfleet/run/state.json").exists());
    }
}

#[tokio::test]
async fn the_end_of_the_terminal_stops_the_services_unless_nobody_cares() {
    let town = Town::new("run = \"echo $$ >> pids; exec sleep 600\"", "").await;
    let up = town.0.folder.spawn(&["up"]);
    let pids = town.wait_for_lines("pids", 1).await;
    signal(up.id(), Signal::SIGHUP);
    Ran::end_of(up).exits(0).says("the services are stopped");
    gone(&pids[0]).await;

    let mut command = std::process::Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_pgfleet")).arg("up").current_dir(town.0.folder.path());
    command.env("PGFLEET_SERVERS__MAIN__URL", town.0.server.superuser_url("postgres"));
    let quiet = std::process::Stdio::null;
    let mut up = command.stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().unwrap();
    let pids = town.wait_for_lines("pids", 2).await;
    signal(up.id(), Signal::SIGHUP);
    town.pgfleet("up").exits(0).says("nothing was started");
    assert!(alive(&pids[1]));
    town.pgfleet("down").exits(0).says("stopped 1 service");
    up.wait().unwrap();
}

#[tokio::test]
async fn down_stops_what_another_terminal_runs() {
    let town = Town::new("run = \"echo $$ >> pids; exec sleep 600\"", "").await;
    let up = town.0.folder.spawn(&["up"]);
    let pids = town.wait_for_lines("pids", 1).await;
    let again = town.pgfleet("up").exits(0);
    again.says("the services are run by a pgfleet up in another terminal (pid ").says("nothing was started");
    town.pgfleet("down").exits(0).says("stopped 1 service");
    Ran::end_of(up).exits(0).says("stopping the services").says("the services are stopped");
    assert!(!alive(&pids[0]));
    assert_eq!(town.lines("pids").len(), 1);
    town.pgfleet("down").exits(0).says_nothing_of("stopped 1 service");
}

#[tokio::test]
async fn after_a_kill_of_the_supervisor_there_is_one_process_per_service() {
    let run = "run = \"echo $$ >> pids; sleep 600 & echo $! >> grandchildren; wait\"";
    let town = Town::new(run, "run = \"echo $$ >> pids; exec sleep 600\"").await;
    for round in 1..=3 {
        let ran = town.pgfleet("up --detach").exits(0);
        if round > 1 {
            ran.says("stopped what an earlier pgfleet up left behind");
        }
        let (pids, grandchildren) = (town.lines("pids"), town.lines("grandchildren"));
        assert_eq!((pids.len(), grandchildren.len()), (2 * round, round));
        for (at, pid) in pids.iter().enumerate() {
            assert_eq!(alive(pid), at >= 2 * round - 2, "round {round}: {pids:?}");
        }
        for (at, pid) in grandchildren.iter().enumerate() {
            assert_eq!(alive(pid), at == round - 1, "round {round}: {grandchildren:?}");
        }
        let supervisor = town.supervisor();
        signal(supervisor, Signal::SIGKILL);
        gone(&supervisor.to_string()).await;
        assert!(alive(&pids[2 * round - 1]), "the services outlive it");
        if round == 2 {
            // The service itself dies, too: what it started is still found.
            let leader = town.board()["services"][0]["process"]["pid"].as_u64().unwrap();
            signal(leader.try_into().unwrap(), Signal::SIGKILL);
            gone(&leader.to_string()).await;
            assert!(alive(&grandchildren[1]));
        }
    }
    let last = town.lines("pids");
    town.pgfleet("down").exits(0).says("stopped 2 services");
    for pid in last.iter().chain(&town.lines("grandchildren")) {
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_process_with_the_number_of_one_that_ended_is_left_alone() {
    let town = Town::new("run = \"exec sleep 600\"", "").await;
    town.pgfleet("up --detach").exits(0);
    let supervisor = town.supervisor();
    let service = town.board()["services"][0]["process"]["pid"].to_string();
    signal(supervisor, Signal::SIGKILL);
    gone(&supervisor.to_string()).await;
    // The number of the service now belongs to a process that began at another time.
    let mut command = std::process::Command::new("sleep");
    std::os::unix::process::CommandExt::process_group(command.arg("600"), 0);
    let mut stranger = command.spawn().unwrap();
    let mut board = town.board();
    board["services"][0]["process"]["pid"] = stranger.id().into();
    std::fs::write(town.file(".pgfleet/run/state.json"), board.to_string()).unwrap();
    town.pgfleet("down").exits(0).says_nothing_of("stopped 1 service");
    assert!(alive(&stranger.id().to_string()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    signal(service.parse().unwrap(), Signal::SIGKILL);
}

#[tokio::test]
async fn two_at_once_start_the_services_once() {
    let town = Town::new("run = \"echo $$ >> pids; exec sleep 600\"", "").await;
    town.pgfleet("provision").exits(0);
    let both = [0, 1].map(|_| town.0.folder.spawn(&["up", "--detach"]));
    for up in both {
        Ran::end_of(up).exits(0);
    }
    assert_eq!(town.wait_for_lines("pids", 1).await.len(), 1);
    town.pgfleet("down").exits(0).says("stopped 1 service");
    assert_eq!(town.lines("pids").len(), 1);
}

#[tokio::test]
async fn a_service_whose_database_is_not_ready_is_not_started() {
    let town =
        Town::new("run = \"echo $$ >> pids; exec sleep 600\"", "run = \"echo $$ >> pids; exec sleep 600\"").await;
    town.0.folder.file(&format!("services/{}/migrations/2_wrong.sql", town.0.name("user")), "select wrong;\n");
    town.pgfleet("up --detach").exits(1).prints("not started: its database is not ready").prints("running");
    assert_eq!(town.lines("pids").len(), 1);
}
