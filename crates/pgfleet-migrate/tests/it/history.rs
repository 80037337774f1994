//! The history: what was edited, is missing, comes late or is unknown; where it is and what it holds.

use std::collections::BTreeMap;

use pgfleet_local::testing::TestServer;
use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::options::{OnAhead, OnChanged, OnOutOfOrder, Options, Who};
use pgfleet_migrate::{ErrorKind, Outcome, Seeds, Set, State, run};
use pgfleet_postgres::Address;

use crate::support::{Bench, shown};

#[tokio::test]
async fn an_edited_migration_is_refused_with_the_difference() {
    let mut bench = Bench::new().await;
    bench.file("01_create.sql", "create table t (\n  id int,\n  name text\n);");
    bench.migrate().await.unwrap();
    // The version is written in another way too, so that it is found by its number.
    std::fs::rename(bench.folder.path().join("01_create.sql"), bench.folder.path().join("1_create.sql")).unwrap();
    bench.file("1_create.sql", "create table t (\n  id int,\n  name varchar\n);");
    bench.file("2_next.sql", "create table u (id int);");
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Findings, "{text}");
    for words in ["1_create", "-  name text", "+  name varchar", "hint: put the file back"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(bench.versions().await, ["01"], "nothing was applied");
    bench.options.on_changed = OnChanged::Warn;
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.applied, ["2_next"]);
    assert!(report.notes.iter().any(|note| note.contains("1_create was edited")), "{:?}", report.notes);
}

#[tokio::test]
async fn an_edit_of_comments_or_line_ends_is_a_note() {
    let bench = Bench::new().await;
    bench.file("1_create.sql", "create table t (id int);\ninsert into t values (1);\n");
    bench.migrate().await.unwrap();
    bench.file("1_create.sql", "-- the table\r\nCREATE TABLE t (id int); -- here\r\ninsert into t values (1);\r\n");
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.outcome, Outcome::UpToDate);
    assert!(report.notes[0].contains("only comments or layout changed"), "{:?}", report.notes);
}

#[tokio::test]
async fn an_applied_migration_without_a_file_is_missing() {
    let mut bench = Bench::new().await;
    let first = bench.file("1_a.sql", "select 1;");
    bench.file("2_b.sql", "select 2;");
    bench.migrate().await.unwrap();
    std::fs::remove_file(first).unwrap();
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Findings);
    assert!(shown(&error).contains("has no file") && shown(&error).contains("1_a"), "{}", shown(&error));
    bench.options.on_missing = OnChanged::Warn;
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);
}

#[tokio::test]
async fn a_late_migration_is_refused_or_applied_as_chosen() {
    let mut bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.file("3_c.sql", "select 3;");
    bench.migrate().await.unwrap();
    bench.file("2_b.sql", "create table late (id int);");
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("older than 3") && shown(&error).contains("2_b"), "{}", shown(&error));
    bench.options.on_out_of_order = OnOutOfOrder::Apply;
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.applied, ["2_b"]);
    assert_eq!((report.from.as_deref(), report.to.as_deref()), (Some("3"), Some("3")));
}

#[tokio::test]
async fn a_database_ahead_of_the_files_runs_or_stops_as_chosen() {
    let mut bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    let newer = bench.file("2_b.sql", "select 2;");
    bench.migrate().await.unwrap();
    std::fs::remove_file(newer).unwrap();
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.outcome, Outcome::UpToDate);
    assert!(report.notes[0].contains("ahead of the files: 2_b"), "{:?}", report.notes);
    bench.options.on_ahead = OnAhead::Error;
    let error = bench.migrate().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Findings && shown(&error).contains("2_b"), "{}", shown(&error));
}

#[tokio::test]
async fn a_row_written_by_hand_counts_as_applied() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.migrate().await.unwrap();
    bench.file("2_b.sql", "select 1/0;");
    bench.run("insert into pgfleet.trip_migrations (version) values ('2')").await;
    let report = bench.migrate().await.unwrap();
    assert_eq!((report.outcome, report.to.as_deref()), (Outcome::UpToDate, Some("2")));
}

#[tokio::test]
async fn a_run_stops_at_the_version_it_is_told() {
    let mut bench = Bench::new().await;
    for version in 1..=3 {
        bench.file(&format!("{version}_m.sql"), "select 1;");
    }
    bench.options.to = Some("02".parse().unwrap());
    let report = bench.migrate().await.unwrap();
    assert_eq!((report.applied.len(), report.to.as_deref()), (2, Some("2")));
    bench.options.to = Some("7".parse().unwrap());
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Findings);
    assert!(shown(&error).contains("has no migration 7") && shown(&error).contains("the newest is 3"));
    assert_eq!(bench.versions().await, ["1", "2"]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let mut bench = Bench::new().await;
    bench.options.dry_run = true;
    bench.file("1_a.sql", "create table t (id int);");
    bench.file("seeds/1_s.sql", "insert into t values (1);");
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.outcome, Outcome::Pending);
    assert_eq!((report.pending, report.pending_seeds), (vec!["1_a".to_owned()], vec!["1_s".to_owned()]));
    assert_eq!(bench.column("select coalesce(to_regnamespace('pgfleet')::text, 'none')").await, ["none"]);
    bench.file("2_b.sql", "commit;");
    assert_eq!(bench.migrate().await.unwrap_err().kind(), ErrorKind::Files, "files are checked");
}

#[tokio::test]
async fn a_look_at_a_missing_database_does_not_make_it() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    let server = TestServer::shared().await;
    let name = server.empty_name().await;
    let mut target = bench.target();
    target.address = Address::parse(&server.superuser_url(&name)).unwrap();
    target.admin = Some(Address::parse(&server.superuser_url("postgres")).unwrap());
    let set = bench.set().unwrap();
    let look = run::looking(&bench.options);
    let report = run::migrate(&target, &set.clone().into(), &look, &bench.events).await.unwrap();
    assert_eq!((report.outcome, report.pending), (Outcome::Pending, vec!["1_a".to_owned()]));
    assert_eq!(report.entries[0].state, State::Pending);
    let there = format!("select count(*) from pg_database where datname = '{name}'");
    assert_eq!(bench.column(&there).await, ["0"]);
    // Without a role that may create it, a run says what to do.
    target.admin = None;
    let error = run::migrate(&target, &set.clone().into(), &bench.options, &bench.events).await.unwrap_err();
    assert!(shown(&error).contains("pgfleet provision"), "{}", shown(&error));
    let broken = Options { dry_run: true, ..bench.options.clone() };
    bench.file("2_b.sql", "commit;");
    let error = run::migrate(&target, &bench.path(), &broken, &bench.events).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Files, "a dry run checks the files there too");
}

#[tokio::test]
async fn a_history_can_be_at_a_place_of_the_users_choice() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "create table t (id int);");
    bench.file("2_b.sql", "-- pgfleet: no-transaction\ncreate index concurrently i on t (id);");
    bench.file("seeds/1_s.sql", "insert into t values (1);");
    let mut set = bench.set().unwrap();
    set.history = HistoryTable::at("trip", "Event streaming", "schema_version");
    let seeds = Seeds::read(&bench.folder.path().join("seeds"), BTreeMap::new()).unwrap();
    // The table alone, as a restore of one schema leaves it: the rest is made beside it.
    run::migrate(&bench.target(), &set.clone().into(), &bench.options, &bench.events).await.unwrap();
    bench.run("drop schema pgfleet cascade; delete from \"Event streaming\".schema_version where version = '2'").await;
    bench.run("drop index i").await;
    let report = run::migrate(&bench.target(), &set.clone().with_seeds(seeds).into(), &bench.options, &bench.events)
        .await
        .unwrap();
    assert_eq!((report.applied, report.seeded), (vec!["2_b".to_owned()], vec!["1_s".to_owned()]));
    let rows = bench.column("select version from \"Event streaming\".schema_version order by 1").await;
    assert_eq!(rows, ["1", "2"]);
}

#[tokio::test]
async fn a_set_without_a_name_begins_no_second_history() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.migrate().await.unwrap();
    let mut other = Set::read("default", bench.folder.path(), None, BTreeMap::new()).unwrap();
    other.named = false;
    let error = run::migrate(&bench.target(), &other.clone().into(), &bench.options, &bench.events).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Findings);
    assert!(shown(&error).contains("--set trip"), "{}", shown(&error));
    other.named = true;
    run::migrate(&bench.target(), &other.clone().into(), &bench.options, &bench.events).await.unwrap();
}

#[tokio::test]
async fn a_row_says_who_where_with_what_and_how_long() {
    let mut bench = Bench::new().await;
    bench.options.who = Who { user: "o'brien".to_owned(), host: "ci\\7".to_owned() };
    bench.file("1_a.up.sql", "select 'up\\';");
    bench.file("1_a.down.sql", "select 'it''s down';");
    bench.migrate().await.unwrap();
    let row = bench
        .column(
            "select concat_ws('|', version, description, checksum like 'v1:%', length(raw_hash), sql, down, applied_by, \
             os_user, host, tool like 'pgfleet %', run is not null, took_ms >= 0, applied_at <= now(), announced_at is null) \
             from pgfleet.trip_migrations",
        )
        .await;
    assert_eq!(row, ["1|a|t|64|select 'up\\';|select 'it''s down';|postgres|o'brien|ci\\7|t|t|t|t|t"]);
}

#[tokio::test]
async fn default_privileges_do_not_let_an_application_write_the_history() {
    let bench = Bench::new().await;
    let app = format!("{}_app", bench.database.name);
    bench
        .run(&format!(
            "create role {app}; alter default privileges grant select, insert, update, delete on tables to {app}"
        ))
        .await;
    bench.file("1_a.sql", "create table t (id int);");
    bench.file("seeds/1_s.sql", "insert into t values (1);");
    bench.migrate().await.unwrap();
    bench.file("2_b.sql", "select 1/0;");
    bench.migrate().await.unwrap_err();
    let may = |table: &str, right: &str| format!("select has_table_privilege('{app}', '{table}', '{right}')::text");
    for (table, right, expected) in [
        ("t", "insert", "true"),
        ("pgfleet.trip_migrations", "select", "true"),
        ("pgfleet.trip_migrations", "insert", "false"),
        ("pgfleet.trip_migrations", "update", "false"),
        ("pgfleet.trip_migrations", "delete", "false"),
        ("pgfleet.trip_seeds", "insert", "false"),
        ("pgfleet.attempts", "insert", "false"),
        ("pgfleet.attempts", "delete", "false"),
    ] {
        assert_eq!(bench.column(&may(table, right)).await, [expected], "{right} on {table}");
    }
}

#[tokio::test]
async fn tables_go_to_the_schema_of_the_service_even_when_it_is_not_there_yet() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "create table t (id int);");
    let mut target = bench.target();
    target.schema = Some("Trip service".to_owned());
    run::migrate(&target, &bench.path(), &bench.options, &bench.events).await.unwrap();
    assert_eq!(bench.column("select schemaname from pg_tables where tablename = 't'").await, ["Trip service"]);
}

#[tokio::test]
async fn a_look_says_what_would_stop_a_run() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    bench.file("1_a.sql", "create table t (id bigint);");
    let look = run::looking(&bench.options);
    let report = bench.migrate_with(&look).await.unwrap();
    assert_eq!(report.entries[0].state, State::Edited);
    assert!(report.blocked.as_deref().is_some_and(|why| why.contains("1_a")), "{:?}", report.blocked);
    bench.file("1_a.sql", "create table t (id int);");
    assert_eq!(bench.migrate_with(&look).await.unwrap().blocked, None);
}

#[tokio::test]
async fn a_look_shows_a_migration_that_stopped_in_the_middle() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "-- pgfleet: no-transaction\ncreate table t (id int);\nselect 1/0;");
    bench.migrate().await.unwrap_err();
    let report = bench.migrate_with(&run::looking(&bench.options)).await.unwrap();
    assert_eq!(report.entries[0].state, State::Interrupted);
}
