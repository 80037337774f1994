//! What goes to which stream, as what, with which exit code; and that no secret is in it.

use std::process::Stdio;

use crate::support::{Bare, Folder, Solution};

#[tokio::test]
async fn check_exits_with_5_when_something_is_pending_and_changes_nothing() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    bare.migrate(&["--check"]).exits(5).says("1 pending");
    assert!(bare.tables().await.is_empty() && bare.versions().await.is_empty());
    bare.migrate(&[]).exits(0);
    bare.migrate(&["--check"]).exits(0).says("nothing to do, at 1");
}

#[tokio::test]
async fn a_dry_run_prints_sql_that_can_be_run_and_changes_nothing() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);\n");
    bare.file("2_b.sql", "create table b (id int); -- the second\n");
    let ran = bare.migrate(&["--dry-run"]).exits(0);
    let name = &bare.database.name;
    assert_eq!(
        ran.out,
        format!("-- {name}: 1_a\ncreate table a (id int);\n-- {name}: 2_b\ncreate table b (id int); -- the second\n")
    );
    assert!(bare.tables().await.is_empty() && bare.versions().await.is_empty());
    bare.column(&ran.out).await;
    assert_eq!(bare.tables().await, ["a", "b"]);
}

#[tokio::test]
async fn to_stops_at_a_version() {
    let bare = Bare::new().await;
    for number in 1..=3 {
        bare.file(&format!("{number}_t.sql"), format!("create table t{number} (id int);"));
    }
    bare.migrate(&["--to", "2"]).exits(0).says("applied 2, now at 2");
    assert_eq!(bare.versions().await, ["1", "2"]);
    bare.migrate(&["--to", "banana"]).exits(2).says("error: ").says("hint: ");
    bare.migrate(&["--to", "9"]).exits(1).says("main has no migration 9").says("hint: the newest is 3");
    bare.migrate(&["--to", "1"]).exits(0).says("nothing to do, at 2");
    bare.migrate(&[]).exits(0).says("now at 3");
}

#[tokio::test]
async fn json_is_one_document_also_when_it_fails() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    let done = bare.migrate(&["--json"]).exits(0).json();
    assert_eq!((&done["outcome"], &done["to"]), (&"applied".into(), &"1".into()));
    bare.file("2_b.sql", "select nope;");
    let failed = bare.migrate(&["--json"]).exits(1).says("error: cannot apply 2_b").json();
    assert_eq!((&failed["outcome"], &failed["sql_state"]), (&"failed".into(), &"42703".into()));
    assert!(failed["place"].as_str().unwrap().ends_with("m/2_b.sql:1:8"), "{failed}");
}

#[tokio::test]
async fn every_reading_command_of_a_solution_has_one_json_document_and_no_secret() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    let mut outputs = Vec::new();
    let mut json = |line: &str, code: i32| {
        let ran = solution.pgfleet(&format!("{line} --json -vv")).exits(code);
        let value = ran.json();
        outputs.push((line.to_owned(), format!("{}{}", ran.out, ran.err)));
        value
    };
    let all = |value: &serde_json::Value, key: &str| -> usize {
        value.as_array().unwrap().iter().map(|server| server[key].as_array().unwrap().len()).sum()
    };
    assert!(all(&json("provision --dry-run", 0), "statements") > 10);
    assert_eq!(all(&json("provision", 0), "created"), 2);
    assert_eq!(json("migrate --check", 5)[0]["state"], "behind");
    let migrated = json("migrate", 0);
    assert_eq!(migrated[0]["service"], trip.as_str());
    assert_eq!((&migrated[0]["to"], &migrated[0]["state"]), (&"1".into(), &"current".into()));
    assert_eq!(json("status", 0).as_array().unwrap().len(), 2);
    assert_eq!(json("seed", 0)[0]["outcome"], "up-to-date");
    assert_eq!(json("isolation verify", 0)["findings"].as_array().unwrap().len(), 0);
    let settings = json("config show", 0);
    assert!(settings.as_array().unwrap().iter().any(|row| row["path"] == "servers.main.url"), "{settings}");
    let up = json("up", 0);
    assert!(up[0]["connection"].as_str().unwrap().contains("passfile="), "{up}");
    assert_eq!(json("down", 0).as_array().unwrap().len(), 0);
    assert_eq!(json("migration new x --service {}_trip", 0)["written"].as_array().unwrap().len(), 2);
    assert_eq!(json("revert --service {}_trip --steps 1", 0)[0]["to"], serde_json::Value::Null);
    for line in ["status", "provision", "migrate", "up", "isolation verify --all"] {
        let ran = solution.pgfleet(line);
        outputs.push((line.to_owned(), format!("{}{}", ran.out, ran.err)));
    }

    // The state folder holds the passwords of the roles; the URL holds the administrator's.
    let passfile = std::fs::read_to_string(solution.folder.path().join(".pgfleet/pgpass")).unwrap();
    let mut secrets: Vec<String> =
        passfile.lines().filter_map(|line| line.rsplit(':').next()).map(str::to_owned).collect();
    assert!(secrets.len() >= 6, "{}", secrets.len());
    secrets.push(solution.server.password().to_owned());
    secrets.push(std::fs::read_to_string(solution.folder.path().join(".pgfleet/key")).unwrap().trim().to_owned());
    for (line, text) in &outputs {
        for secret in &secrets {
            assert!(secret.len() >= 16 && !text.contains(secret.as_str()), "`{line}` shows a secret:\n{text}");
        }
        assert!(!text.contains("SCRAM-SHA-256$"), "`{line}` shows a verifier:\n{text}");
    }
}

#[tokio::test]
async fn one_failing_service_stops_no_other_and_both_are_told() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    solution
        .folder
        .file(&format!("services/{trip}/migrations/2_bad.sql"), "create table half (id int);\nselect nope;\n");
    let ran = solution.pgfleet("migrate").exits(1);
    ran.says(&format!("error: cannot apply 2_bad to {trip}"))
        .says(&format!("  caused by: at services/{trip}/migrations/2_bad.sql:2:8\n"))
        .says("2 databases: 1 changed, 0 up to date, 0 pending, 1 failed");
    assert_eq!(solution.column("user", "select count(*) from users").await, ["0"]);
    assert_eq!(solution.column("trip", "select to_regclass('half')").await, ["NULL"]);
    let documents = solution.pgfleet("migrate --json").exits(1).json();
    let find = |name: &str| documents.as_array().unwrap().iter().find(|d| d["service"] == solution.name(name)).unwrap();
    assert_eq!(find("trip")["state"], "failed");
    assert_eq!(find("user")["state"], "current");
    solution.pgfleet("status --check").exits(5);
}

#[test]
fn mistakes_of_usage_exit_with_2() {
    let folder = Folder::new();
    for line in [
        "",
        "migrat",
        "migrate --nope",
        "revert --service x",
        "revert --service x --steps 1 --to 2",
        "revert --service x --steps 0",
        "migrate --check --dry-run",
        "migrate --concurrency 0",
        "migrate --service a --url postgres://h/d --dir m",
        "psql x --role superuser",
        "status --quiet --verbose",
        "init --template nope",
        "completions tcl",
    ] {
        let ran = folder.pgfleet(line).exits(2);
        assert_eq!(ran.out, "", "{line}");
        assert!(ran.err.contains("Usage:") || ran.err.contains("For more information"), "{line}: {}", ran.err);
    }
    folder.pgfleet("migrat").exits(2).says("migrate");
    folder.file("pgfleet.toml", "[solution]\nname = \"s\"\n[servers.main]\nurl = \"local\"\n[services.trip]\n");
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let folder = Folder::new();
    folder.pgfleet("--help").exits(0).prints("Start here:").prints("Exit codes: 0 done").prints("130 interrupted");
    for command in ["init", "up", "down", "provision", "migrate", "status", "revert", "seed", "psql", "completions"] {
        folder.pgfleet(&format!("{command} --help")).exits(0).prints("Example").prints(&format!("pgfleet {command}"));
    }
    for command in ["migration new", "isolation verify", "config show"] {
        folder.pgfleet(&format!("{command} --help")).exits(0).prints("Example").prints(&format!("pgfleet {command}"));
    }
    // What is a command's own stands apart from what every command takes.
    let help = folder.pgfleet("migrate --help").exits(0).out;
    let (own, common) = help.split_once("Options of every command:").unwrap();
    assert!(own.contains("--dry-run") && !own.contains("--manifest"), "{help}");
    assert!(common.contains("--manifest") && !common.contains("--dry-run"), "{help}");
    for line in help.lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
    folder.pgfleet("--version").exits(0).prints("pgfleet 0.");
}

#[tokio::test]
async fn a_reader_that_goes_away_does_not_stop_a_migration() {
    let bare = Bare::new().await;
    for number in 1..=20 {
        bare.file(&format!("{number}_t.sql"), format!("create table t{number} (id int);"));
    }
    let mut command = bare.folder.command(&bare.arguments(&["--json"]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(bare.versions().await.len(), 20);
}
