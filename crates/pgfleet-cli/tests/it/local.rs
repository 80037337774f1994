//! A PostgreSQL of the solution's own: started, found again, stopped.

use nix::sys::signal::Signal;

use crate::support::{Folder, Ran};

/// Stops and removes the servers below a folder, also when the test fails.
struct Local(Folder);

impl Local {
    fn pgfleet(&self, line: &str) -> Ran {
        self.0.pgfleet(line)
    }

    fn postmaster(&self, server: &str) -> u32 {
        let path = self.0.path().join(format!(".pgfleet/{server}/postgres/postmaster.pid"));
        std::fs::read_to_string(path).unwrap().lines().next().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.0.path().join("pgfleet.toml").is_file() {
            let _ = self.0.command(&["down"]).output();
        }
    }
}

fn solution(services: &str) -> Local {
    let local = Local(Folder::new());
    local.0.file(
        "pgfleet.toml",
        format!("[solution]\nname = \"local test\"\n\n[servers.main]\nurl = \"local\"\n\n{services}"),
    );
    local
}

#[test]
fn up_and_down_and_everything_between() {
    let local = Local(Folder::new());
    local.pgfleet("init --template masar").exits(0);
    local
        .pgfleet("status")
        .exits(4)
        .says("error: the local server main is not running")
        .says("hint: start it: pgfleet up");
    local
        .pgfleet("up --detach")
        .exits(0)
        .says("made and started server main: PostgreSQL ")
        .says("provisioned main: ")
        .says("the server keeps running until pgfleet down")
        .prints("passfile=");
    local.pgfleet("up").exits(0).says("nothing to do: everything is up");
    local.pgfleet("status --check").exits(0).says("5 databases, 5 current");
    local.pgfleet("isolation verify").exits(0).says("none open");
    let count = |local: &Local| local.0.run(&["psql", "trip", "--", "-Atc", "select count(*) from trips"]).exits(0).out;
    let before = count(&local);
    // From a folder of the solution, as one works.
    let mut below = local.0.command(&["up", "--json"]);
    below.current_dir(local.0.path().join("services/trip"));
    let documents = Ran::of(below).exits(0).says("nothing to do").json();
    assert_eq!(documents.as_array().unwrap().len(), 5);

    // A crash of the server loses nothing.
    let pid = local.postmaster("main");
    crate::support::signal(pid, Signal::SIGKILL);
    local.pgfleet("up").exits(0).says("started server main").says_nothing_of("made and started");
    assert_eq!(count(&local), before);
    assert_ne!(local.postmaster("main"), pid);
    local.pgfleet("status --check").exits(0);

    local
        .pgfleet("down")
        .exits(0)
        .says("stopped the local server main; its data stays")
        .says("hint: to undo a migration: pgfleet revert");
    local.pgfleet("down").exits(0).says("was not running").says("hint: to undo a migration: pgfleet revert");
    local.pgfleet("migrate").exits(4).says("hint: start it: pgfleet up");
    local.pgfleet("up").exits(0).says("started server main");
    assert_eq!(count(&local), before);
    let down = local.pgfleet("down --json").exits(0).json();
    assert_eq!((&down[0]["server"], &down[0]["was_running"]), (&"main".into(), &true.into()));
}

#[test]
fn two_solutions_run_beside_each_other_with_reserved_words_for_names() {
    let services = "[services.user]\n[services.order]\n[services.Order-Item]\n[services.'o\"Brien']\n";
    let (first, second) = (solution(services), solution(services));
    for local in [&first, &second] {
        local.0.file("services/user/migrations/1_user.sql", "create table \"user\" (\"order\" int);\n");
        local.0.file("services/order/migrations/1_order.sql", "create table \"order\" (\"user\" int);\n");
    }
    // Each is started twice at the same time: one makes the server, the other finds it.
    let children = [&first, &second, &first, &second].map(|local| local.0.spawn(&["up"]));
    for child in children {
        Ran::end_of(child).exits(0);
    }
    assert_ne!(first.postmaster("main"), second.postmaster("main"));
    first.0.run(&["psql", "user", "--", "-c", "insert into \"user\" values (1)"]).exits(0);
    let count =
        |local: &Local| local.0.run(&["psql", "user", "--", "-Atc", "select count(*) from \"user\""]).exits(0).out;
    assert_eq!((count(&first).as_str(), count(&second).as_str()), ("1\n", "0\n"));
    first.pgfleet("isolation verify").exits(0).prints("Order-Item").prints("o\"Brien");
    // Nobody but the owner reads what holds a secret.
    let folder = first.0.path().join(".pgfleet");
    for name in ["secrets.toml", "pgpass"] {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.join(name)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::read_to_string(folder.join(".gitignore")).unwrap(), "*\n");
    first.pgfleet("down").exits(0);
    assert_eq!(count(&second), "0\n");
    second.pgfleet("down").exits(0);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_a_hint() {
    let local = solution("[services.trip]\n");
    // Root may write anywhere: a file in the place of the folder stops it too.
    local.0.file(".pgfleet", "");
    let ran = local.pgfleet("up").exits(3);
    ran.says("error: cannot ").says(".pgfleet").says("hint: ");
    std::fs::remove_file(local.0.path().join(".pgfleet")).unwrap();
    let manifest = std::fs::read_to_string(local.0.path().join("pgfleet.toml")).unwrap();
    local.0.file("taken", "");
    local.0.file("pgfleet.toml", manifest.replace("url = \"local\"", "url = \"local\"\ndata_dir = \"taken/data\""));
    local.pgfleet("up").exits(3).says("taken").says("hint: give user ").says("or set the state or data directory");
}
