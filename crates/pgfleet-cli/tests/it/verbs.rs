//! The other verbs: going back, seeding, making files, asking.

use std::path::Path;

use crate::support::{Bare, Folder, Solution, files_below};

#[tokio::test]
async fn going_back_by_steps_and_to_a_version_and_up_again() {
    let bare = Bare::new().await;
    for number in 1..=4 {
        bare.file(&format!("{number}_t.up.sql"), format!("create table t{number} (id int);"));
        bare.file(&format!("{number}_t.down.sql"), format!("drop table t{number};"));
    }
    bare.migrate(&[]).exits(0);
    let url = bare.database.url();
    let revert = |more: &[&str]| {
        let mut arguments = vec!["revert", "--url", &url, "--dir", "m"];
        arguments.extend(more);
        bare.folder.run(&arguments)
    };
    revert(&["--steps", "1", "--dry-run"]).exits(0).says("would revert 1").prints("4_t");
    assert_eq!(bare.tables().await.len(), 4);
    revert(&["--steps", "1"]).exits(0).says("reverted 1, now at 3");
    revert(&["--to", "1"]).exits(0).says("reverted 2, now at 1");
    assert_eq!(bare.tables().await, ["t1"]);
    bare.migrate(&[]).exits(0).says("applied 3, now at 4");
    revert(&["--to", "0"]).exits(0).says("now at nothing applied");
    assert!(bare.tables().await.is_empty());
    revert(&["--steps", "1"]).exits(0).says("nothing to revert");
    bare.migrate(&[]).exits(0).says("applied 4");
    assert_eq!(bare.tables().await.len(), 4);
}

#[tokio::test]
async fn a_migration_without_a_way_back_is_not_reverted() {
    let bare = Bare::new().await;
    bare.file("1_a.up.sql", "create table a (id int);");
    bare.file("1_a.down.sql", "drop table a;");
    bare.file("2_b.sql", "create table b (id int);");
    bare.migrate(&[]).exits(0);
    let url = bare.database.url();
    bare.folder.run(&["revert", "--url", &url, "--dir", "m", "--to", "0"]).exits(1).says("2_b").says("hint: ");
    assert_eq!(bare.tables().await, ["a", "b"], "nothing is undone before everything can be");
}

#[tokio::test]
async fn a_service_goes_back_and_up_again() {
    let solution = Solution::new().await;
    solution.pgfleet("migrate").exits(0);
    solution.pgfleet("revert --service {}_trip --to 0").exits(0).says("reverted 1");
    assert_eq!(solution.column("trip", "select to_regclass('trips')").await, ["NULL"]);
    assert_eq!(solution.column("user", "select count(*) from users").await, ["0"], "the other one is left alone");
    solution.pgfleet("migrate").exits(0).says("applied 1");
    solution.pgfleet("status --check").exits(0);
    // Elsewhere than on a developer's machine somebody has to agree.
    solution.folder.file("pgfleet.staging.toml", "");
    let key = std::fs::read_to_string(solution.folder.path().join(".pgfleet/key")).unwrap();
    let mut command =
        solution.folder.command(&["revert", "--service", &solution.name("trip"), "--to", "0", "--env", "staging"]);
    command.env("PGFLEET_KEY", key.trim());
    crate::support::Ran::of(command).exits(2).says("hint: answer with --yes");
    assert_eq!(solution.column("trip", "select count(*) from pgfleet.\"{}_trip_migrations\"").await, ["1"]);
}

#[tokio::test]
async fn seeds_run_when_they_are_new_or_changed() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    solution.pgfleet("provision").exits(0);
    solution.pgfleet("seed").exits(1).says("1 migrations are pending").says("hint: pgfleet migrate");
    solution.pgfleet("migrate").exits(0).says("seeded 1");
    solution.pgfleet("seed").exits(0).says("nothing to do");
    let seed = format!("services/{trip}/seeds/1_trips.sql");
    solution.folder.file(&seed, "insert into trips values (1), (:'second') on conflict do nothing;\n");
    solution.pgfleet("seed --property second=2").exits(0).says("seeded 1");
    assert_eq!(solution.column("trip", "select id from trips order by 1").await, ["1", "2"]);
    solution.pgfleet("seed --property nonsense").exits(2).says("NAME=VALUE");
    solution.pgfleet("seed --property tenant=acme").exits(2).says("--property tenant: pgfleet sets it itself");
    solution.folder.file(&seed, "insert into trips values (3), (3);\n");
    let ran = solution.pgfleet("seed --property second=2").exits(1);
    ran.says(&format!("at {seed}:1:1")).says("23505");
    assert_eq!(solution.column("trip", "select count(*) from trips").await, ["2"]);
}

#[tokio::test]
async fn a_new_migration_is_named_newest_and_runs() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    let call = ["migration", "new", "Add rating, to trips!", "--service", &trip];
    let first = solution.folder.run(&call).exits(0);
    let second = solution.folder.run(&call).exits(0);
    let files: Vec<&str> = first.out.lines().chain(second.out.lines()).collect();
    assert_eq!(files.len(), 4);
    assert!(files[0].starts_with(&format!("services/{trip}/migrations/2")), "{}", files[0]);
    assert!(files[0].ends_with("_add_rating__to_trips.up.sql"), "{}", files[0]);
    assert!(files[1].ends_with(".down.sql") && files[0] < files[2], "the second is newer: {files:?}");
    assert!(files.iter().all(|file| solution.folder.path().join(file).is_file()));
    solution.pgfleet("migrate").exits(0).says("applied 3");
    solution.folder.run(&["migration", "new", "!!", "--service", &trip]).exits(2);
}

#[test]
fn init_writes_a_solution_that_can_be_read_and_overwrites_nothing() {
    let folder = Folder::new();
    folder.pgfleet("init").exits(0).says("next: pgfleet migration new");
    folder.pgfleet("config show services").exits(0).prints("services.app.database");
    folder.run(&["migration", "new", "things", "--service", "app"]).exits(0);
    folder.pgfleet("init").exits(0);
    let manifest = folder.path().join("pgfleet.toml");
    std::fs::write(&manifest, "# mine\n").unwrap();
    let before = files_below(&folder.path());
    folder.pgfleet("init").exits(3).says("pgfleet.toml is there already").says("hint: name another folder");
    folder.pgfleet("init --template masar").exits(3).says("pgfleet.toml is there already");
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), "# mine\n");
    assert_eq!(files_below(&folder.path()), before, "nothing was written beside it");
    folder.pgfleet("init --template masar shop").exits(0).says("next: cd shop && pgfleet up");
    let shop = folder.path().join("shop");
    assert!(shop.join("services/trip/migrations").is_dir());
    folder.pgfleet("config show --manifest shop solution.name").exits(0).prints("masar");
    // The programs of the example's services cannot be built elsewhere, so nothing of them is there and nothing runs them.
    let program = |path: &Path| {
        path.extension() != Some("sql".as_ref()) && !path.ends_with("README.md") && !path.ends_with("pgfleet.toml")
    };
    let others: Vec<_> = files_below(&shop).into_iter().filter(|path| program(path)).collect();
    assert!(others.is_empty(), "{others:?}");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/masar");
    let shown =
        |manifest: &Path| folder.pgfleet(&format!("config show --manifest {}", manifest.display())).exits(0).out;
    assert!(!shown(&shop).contains("cargo run"));
    assert!(shown(&example).contains("cargo run -q -p masar-trip"));
}

#[test]
fn completions_are_a_script() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        folder.pgfleet(&format!("completions {shell}")).exits(0).prints("pgfleet").prints("provision");
    }
    let script = folder.pgfleet("completions bash").exits(0).out;
    folder.file("script", script);
    let status = std::process::Command::new("bash").arg("-n").arg(folder.path().join("script")).status().unwrap();
    assert!(status.success());
}

#[test]
fn every_setting_says_where_it_comes_from() {
    let mut folder = Folder::new();
    folder.file(
        "pgfleet.toml",
        "[solution]\nname = \"s\"\n\n[servers.main]\nurl = \"postgres://boss:topsecretword@db/postgres\"\n\n[services.trip]\n\n[migrations]\nlock_tries = 7\n",
    );
    folder.file("pgfleet.test.toml", "[migrations]\nmax_tries = 9\n");
    folder.set("PGFLEET_MIGRATIONS__LOCK_TIMEOUT", "3s");
    let ran = folder.pgfleet("config show --origin --env test").exits(0);
    let row = |key: &str| {
        let line = ran.out.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("migrations.lock_tries"), "7 pgfleet.toml:10");
    assert_eq!(row("migrations.max_tries"), "9 pgfleet.test.toml:2");
    assert_eq!(row("migrations.durability"), "run default");
    assert!(
        row("migrations.lock_timeout").starts_with("3s ")
            && row("migrations.lock_timeout").contains("PGFLEET_MIGRATIONS__LOCK_TIMEOUT")
    );
    assert!(!ran.out.contains("topsecretword") && ran.out.contains("postgres://boss:***@db/postgres"), "{}", ran.out);
}

#[tokio::test]
async fn an_empty_tables_index_is_built_plainly_when_the_flag_or_the_manifest_says_so() {
    let bare = Bare::new().await;
    let (table, index) =
        ("create table t (id int);", "-- pgfleet: no-transaction\ncreate index concurrently on t (id);");
    let said = "statement 1 was run without CONCURRENTLY, since t has no row";
    bare.file("1_t.sql", table);
    bare.file("2_i.sql", index);
    bare.migrate(&[]).exits(0).says_nothing_of("CONCURRENTLY");
    bare.file("3_j.sql", index);
    bare.migrate(&["--concurrently", "plain-when-empty"]).exits(0).says(said);
    bare.migrate(&["--concurrently", "perhaps"]).exits(2).says("plain-when-empty");

    let mut solution = Solution::new().await;
    let folder = format!("services/{}/migrations", solution.name("user"));
    solution.folder.file(&format!("{folder}/2_t.sql"), table);
    solution.folder.file(&format!("{folder}/3_i.sql"), index);
    solution.folder.set("PGFLEET_MIGRATIONS__CONCURRENTLY", "plain-when-empty");
    solution.pgfleet("migrate").exits(0).says(&format!("3_i: {said}"));
    solution.folder.file(&format!("{folder}/4_j.sql"), index);
    solution.pgfleet("migrate --concurrently as-written").exits(0).says_nothing_of("CONCURRENTLY");
}

#[tokio::test]
async fn psql_opens_the_services_database_as_the_role() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    solution.folder.run(&["psql", &trip, "--", "-c", "select 1"]).exits(3).says("hint: make it: pgfleet provision");
    solution.pgfleet("migrate").exits(0);
    let ask = |role: &str, sql: &str| {
        solution.folder.run(&["psql", &trip, "--role", role, "--", "-Atv", "ON_ERROR_STOP=1", "-c", sql])
    };
    let who = "select session_user || ' ' || current_database()";
    for role in ["app", "readonly", "migrator"] {
        assert_eq!(ask(role, who).exits(0).out.trim_end(), format!("{trip}_{role} {trip}"));
    }
    ask("app", "insert into trips values (5)").exits(0);
    assert_eq!(ask("readonly", "select count(*) from trips").exits(0).out, "2\n");
    assert_ne!(ask("readonly", "insert into trips values (6)").code, Some(0));
    assert_ne!(ask("app", "create table mine (id int)").code, Some(0));
}
