//! Test databases of many processes, of killed ones, and on servers that are not ours.
//!
//! The processes are this test program, told to run one of its tests by its full name.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use pgfleet::test::Database;
use pgfleet_local::testing::{OwnServer, TestServer};
use pgfleet_postgres::{Address, Connection, Purpose, connect};

use crate::support::until;
use crate::test_databases::everything;

const EVERYTHING: &str = "test_databases::migrations_and_seeders_in_rust_were_run";
const HOLDS: &str = "test_processes::a_test_holds_its_database_as_long_as_it_is_told";

/// Holds its database until it is killed, where the environment says into which file its name is to be written.
#[pgfleet::test(service = everything)]
async fn a_test_holds_its_database_as_long_as_it_is_told(db: Database) {
    assert!(db.name().starts_with("pgt_"));
    if let Some(path) = std::env::var_os("PGFLEET_TESTS_HOLD") {
        fs::write(path, db.name()).unwrap();
        std::future::pending::<()>().await;
    }
}

#[pgfleet::test(service = everything)]
async fn a_test_fails_when_it_is_told(db: Database) {
    assert!(std::env::var_os("PGFLEET_TESTS_FAIL").is_none(), "failed in {}", db.name());
}

/// This program with one test.
fn program(test: &str) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", test, "--nocapture"]);
    for name in ["MADE", "HANG", "HOLD", "FAIL"] {
        program.env_remove(format!("PGFLEET_TESTS_{name}"));
    }
    program.env_remove("PGFLEET_TEST_KEEP").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

/// The output of a process in which one test was run and passed.
fn passed(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

async fn on(url: &str) -> Connection {
    connect(&Address::parse(url).unwrap(), &Purpose::new("test")).await.unwrap()
}

/// Names of databases.
async fn databases(connection: &Connection, condition: &str) -> Vec<String> {
    let sql = format!("SELECT datname FROM pg_database WHERE {condition} ORDER BY 1");
    connection.simple(&sql).await.unwrap().iter().map(|row| row.get(0).unwrap().to_owned()).collect()
}

/// Kills the process in the middle of whatever it does.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// What a file says when it was written.
async fn written(path: &Path) -> String {
    until("the process has written its file", async || fs::read_to_string(path).is_ok_and(|text| !text.is_empty()))
        .await;
    fs::read_to_string(path).unwrap()
}

/// A server of somebody else's, with a role that may make databases and nothing more.
struct Foreign {
    server: OwnServer,
    admin: Connection,
}

impl Foreign {
    async fn start() -> Self {
        let server = OwnServer::start(|_| {}).await.unwrap();
        let admin = on(&server.superuser_url("postgres")).await;
        admin.execute_all("CREATE ROLE tester LOGIN CREATEDB PASSWORD 'tester'").await.unwrap();
        Self { server, admin }
    }

    fn url(&self) -> String {
        format!("postgresql://tester:tester@127.0.0.1:{}/postgres", self.server.port())
    }

    fn program(&self, test: &str) -> Command {
        let mut program = program(test);
        program.env("PGFLEET_TEST_URL", self.url());
        program
    }

    /// Databases of tests that are no templates.
    async fn databases(&self) -> Vec<String> {
        databases(&self.admin, "NOT datistemplate AND datdba = 'tester'::regrole").await
    }
}

#[tokio::test]
async fn twenty_processes_at_once_make_a_template_once() {
    let foreign = Foreign::start().await;
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let start = || foreign.program(EVERYTHING).env("PGFLEET_TESTS_MADE", &made).spawn().unwrap();
    let processes: Vec<Child> = (0..20).map(|_| start()).collect();
    for process in processes {
        passed(&process.wait_with_output().unwrap());
    }
    assert_eq!(lines(&made), 1);
}

#[tokio::test]
async fn a_template_whose_maker_was_killed_is_made_by_the_next_one() {
    let foreign = Foreign::start().await;
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let mut hanging = foreign.program(EVERYTHING);
    let hanging = hanging.env("PGFLEET_TESTS_MADE", &made).env("PGFLEET_TESTS_HANG", "1").spawn().unwrap();
    until("the seeder runs", async || lines(&made) == 1).await;
    let waiting = foreign.program(EVERYTHING).env("PGFLEET_TESTS_MADE", &made).spawn().unwrap();
    kill(hanging);
    passed(&waiting.wait_with_output().unwrap());
    assert_eq!(lines(&made), 2);
    passed(&foreign.program(EVERYTHING).env("PGFLEET_TESTS_MADE", &made).output().unwrap());
    assert_eq!(lines(&made), 2);
}

#[tokio::test]
async fn what_killed_processes_leave_is_swept_and_nothing_else_is_touched() {
    let foreign = Foreign::start().await;
    let folder = tempfile::tempdir().unwrap();
    // All but the comment is as ours are; and one of a process that lives.
    foreign.admin.execute_all("CREATE DATABASE pgt_1234567890_00000001_0_abcd OWNER tester").await.unwrap();
    let start = |name: &str| {
        let path = folder.path().join(name);
        (foreign.program(HOLDS).env("PGFLEET_TESTS_HOLD", &path).spawn().unwrap(), path)
    };
    let ((alive, of_alive), (killed, of_killed)) = (start("alive"), start("killed"));
    let (of_alive, of_killed) = (written(&of_alive).await, written(&of_killed).await);
    let mut there = vec!["pgt_1234567890_00000001_0_abcd".to_owned(), of_alive, of_killed.clone()];
    there.sort();
    assert_eq!(foreign.databases().await, there);

    kill(killed);
    let mut is_gone = async || {
        // The sweep is in the background: a process that ends early leaves it to the next one.
        passed(&foreign.program(EVERYTHING).output().unwrap());
        !foreign.databases().await.contains(&of_killed)
    };
    until("the database of the killed process is gone", &mut is_gone).await;
    there.retain(|name| *name != of_killed);
    assert_eq!(foreign.databases().await, there);
    kill(alive);
}

#[tokio::test]
async fn a_failed_test_keeps_its_database_where_that_is_wanted() {
    const FAILS: &str = "test_processes::a_test_fails_when_it_is_told";
    let foreign = Foreign::start().await;
    let fails = |keep| {
        let mut program = foreign.program(FAILS);
        let output = program.env("PGFLEET_TESTS_FAIL", "1").env("PGFLEET_TEST_KEEP", keep).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let plain = fails("");
    assert!(plain.contains("failed in pgt_") && !plain.contains("kept"), "{plain}");
    assert_eq!(foreign.databases().await, [""; 0]);
    let kept = fails("1");
    let [name] = &foreign.databases().await[..] else { panic!("{kept}") };
    let shown =
        format!("the database of this test is kept: postgresql://tester@127.0.0.1:{}/{name}", foreign.server.port());
    assert!(kept.contains(&shown), "{kept}");
    let again = foreign.program(EVERYTHING).env("PGFLEET_TEST_KEEP", "1").output().unwrap();
    assert!(!passed(&again).contains("kept"));
    assert_eq!(foreign.databases().await, [name.as_str()]);
}

#[tokio::test]
async fn a_database_that_bears_a_templates_name_is_left_alone() {
    let foreign = Foreign::start().await;
    passed(&foreign.program(EVERYTHING).output().unwrap());
    let [template] = &databases(&foreign.admin, "datname LIKE 'pgt%'").await[..] else { panic!("one template") };
    foreign.admin.execute_all(&format!("COMMENT ON DATABASE {template} IS 'somebody''s'")).await.unwrap();
    let output = foreign.program(EVERYTHING).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let expected = format!("database {template} is not a template of pgfleet's tests; drop or rename it");
    assert!(!output.status.success() && text.contains(&expected), "{text}");
    assert_eq!(databases(&foreign.admin, "datname LIKE 'pgt%'").await, [template.as_str()]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let mut program = program(EVERYTHING);
    let output = program.env("PGFLEET_TEST_URL", "postgresql://tester:secret@127.0.0.1:1/postgres").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !text.contains("secret"), "{text}");
    assert!(text.contains("cannot connect to database postgres on 127.0.0.1:1 as tester"), "{text}");
}

#[tokio::test]
async fn the_newest_version_does_it_too() {
    let newest = TestServer::shared_version(18).await;
    for test in [EVERYTHING, "test_databases::a_pool_of_sqlx_is_connected"] {
        let url = newest.superuser_url("postgres");
        passed(&program(test).env("PGFLEET_TEST_URL", url).output().unwrap());
    }
}
