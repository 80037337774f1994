//! Mending what stopped in the middle, and what the history says.

use crate::support::{Bench, shown, until};
use pgfleet_migrate::plan::State;
use pgfleet_migrate::repair::{Repair, Repaired, repair};
use pgfleet_migrate::revert::Goal;
use pgfleet_migrate::{Error, ErrorKind, Outcome, run};

const HEAD: &str = "-- pgfleet: no-transaction\n";

async fn mend(bench: &Bench, action: Repair, version: &str) -> Result<Repaired, Error> {
    let version = version.parse().unwrap();
    repair(&bench.target(), &bench.set()?, action, &version, &bench.options, &bench.events).await
}

/// Mends in vain and returns everything that is said about it.
async fn refused(bench: &Bench, action: Repair, version: &str) -> String {
    let error = mend(bench, action, version).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Findings, "{}", shown(&error));
    shown(&error)
}

/// What was done and what failed, in order.
async fn attempts(bench: &Bench) -> Vec<String> {
    let sql = "select concat_ws(' ', action, version, outcome, statement_number) from pgfleet.attempts order by id";
    bench.column(sql).await
}

/// `2_i` stopped at its second statement, since a column is missing.
async fn stopped() -> Bench {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int);");
    bench.file(
        "2_i.sql",
        format!("{HEAD}insert into t values (1);\ncreate index concurrently i on t (more);\ninsert into t values (2);"),
    );
    bench.file("3_u.sql", "create table u (id int);");
    assert_eq!(bench.migrate().await.unwrap_err().sql_state(), Some("42703"));
    bench
}

#[tokio::test]
async fn a_file_goes_on_at_the_statement_that_failed() {
    let bench = stopped().await;
    bench.run("alter table t add column more int").await;
    let repaired = mend(&bench, Repair::Resume, "2").await.unwrap();
    assert_eq!((repaired.label.as_str(), repaired.statement), ("2_i", Some(2)));
    assert_eq!(bench.column("select id from t order by 1").await, ["1", "2"], "the first one did not run again");
    assert_eq!(bench.column("select indisvalid from pg_index where indexrelid = 'i'::regclass").await, ["t"]);
    assert_eq!(bench.versions().await, ["1", "2"], "what is pending behind it is left to a run");
    assert_eq!(attempts(&bench).await, ["resume 2 done"]);
    assert_eq!(bench.migrate().await.unwrap().applied, ["3_u"]);
    assert!(refused(&bench, Repair::Resume, "2").await.contains("it did not stop in the middle"));
}

#[tokio::test]
async fn what_fails_again_stays_where_it_stopped() {
    let bench = stopped().await;
    for _ in 0..2 {
        let error = mend(&bench, Repair::Resume, "2").await.unwrap_err();
        let text = shown(&error);
        assert_eq!(error.sql_state(), Some("42703"), "{text}");
        assert!(text.contains("1 of 3 statements are applied") && text.contains("2_i.sql:3"), "{text}");
        assert!(text.contains("hint: `pgfleet migration resume 2 --service trip`"), "{text}");
    }
    assert_eq!(attempts(&bench).await, ["apply 2 interrupted 2"]);
    bench.run("alter table t add column more int").await;
    mend(&bench, Repair::Resume, "2").await.unwrap();
    assert_eq!(bench.column("select count(*) from t").await, ["2"]);
}

#[tokio::test]
async fn a_file_goes_on_at_the_statement_in_which_the_connection_was_lost() {
    let bench = Bench::new().await;
    bench.file(
        "1_t.sql",
        format!(
            "{HEAD}create table t (id int);\ninsert into t values (1);\n\
             insert into t select 2 from pg_sleep(1);\ninsert into t values (3);"
        ),
    );
    let kill = async {
        let sleeping = "from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
        until("it sleeps", async || bench.column(&format!("select count(*) {sleeping}")).await == ["1"]).await;
        bench.run(&format!("select pg_terminate_backend(pid) {sleeping}")).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(), kill);
    assert!(result.unwrap_err().is_retryable());
    assert_eq!(attempts(&bench).await, ["apply 1 interrupted 3"], "as for a statement that failed");
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(shown(&error).contains("stopped at statement 3"), "{}", shown(&error));
    mend(&bench, Repair::Resume, "1").await.unwrap();
    assert_eq!(bench.column("select id from t order by 1").await, ["1", "2", "3"]);
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);
}

/// A crash between the last statement and the record.
#[tokio::test]
async fn a_file_of_which_everything_ran_is_only_recorded() {
    let bench = stopped().await;
    bench.run("update pgfleet.attempts set statement_number = 4, sql_state = null").await;
    mend(&bench, Repair::Resume, "2").await.unwrap();
    assert_eq!(bench.column("select id from t").await, ["1"]);
    assert_eq!(bench.versions().await, ["1", "2"]);
}

#[tokio::test]
async fn an_invalid_index_that_the_first_try_left_is_dropped_and_no_other() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int); create table o (id int);");
    bench.migrate().await.unwrap();
    bench.run("insert into t values (1), (1); insert into o values (1), (1)").await;
    let connection = bench.connect().await;
    connection.execute_all("create unique index concurrently before on t (id)").await.unwrap_err();
    bench.file(
        "2_i.sql",
        format!("{HEAD}select 1;\ncreate unique index concurrently if not exists \"The I\" on public.t (id);"),
    );
    let text = shown(&bench.migrate().await.unwrap_err());
    assert!(text.contains("the index \"The I\" is left INVALID"), "{text}");
    connection.execute_all("create unique index concurrently behind on o (id)").await.unwrap_err();
    let error = mend(&bench, Repair::Resume, "2").await.unwrap_err();
    assert_eq!(error.sql_state(), Some("23505"), "it was dropped and built again: {}", shown(&error));
    bench.run("truncate t").await;
    let repaired = mend(&bench, Repair::Resume, "2").await.unwrap();
    assert_eq!(repaired.dropped, ["\"The I\""]);
    let valid = "select indisvalid from pg_index where indexrelid = '\"The I\"'::regclass";
    assert_eq!(bench.column(valid).await, ["t"]);
    let others = "select indexrelid::regclass from pg_index where not indisvalid order by 1::oid";
    assert_eq!(bench.column(others).await, ["before", "behind"]);
}

#[tokio::test]
async fn an_index_without_a_name_and_one_that_is_built_again_are_dropped_too() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int); create unique index u on t (id);");
    bench.file("2_i.sql", format!("{HEAD}create unique index concurrently on t ((id / 0));"));
    bench.file("3_u.sql", format!("{HEAD}reindex table concurrently t;"));
    let options = pgfleet_migrate::Options { to: Some("1".parse().unwrap()), ..bench.options.clone() };
    bench.migrate_with(&options).await.unwrap();
    bench.run("insert into t values (1)").await;
    assert_eq!(bench.migrate().await.unwrap_err().sql_state(), Some("22012"));
    let invalid = "select count(*) from pg_index where not indisvalid";
    assert_eq!(bench.column(invalid).await, ["1"]);
    bench.run("delete from t").await;
    assert_eq!(mend(&bench, Repair::Resume, "2").await.unwrap().dropped, ["t_expr_idx"]);
    assert_eq!(bench.column(invalid).await, ["0"]);
    // A snapshot that is older holds the rebuild up until it is ended.
    let blocker = bench.connect().await;
    blocker.execute_all("begin isolation level repeatable read; select count(*) from t").await.unwrap();
    let cancel = async {
        let waiting = "from pg_stat_activity where query like 'reindex table%' and wait_event_type = 'Lock' \
                       and datname = current_database()";
        until("it waits", async || bench.column(&format!("select count(*) {waiting}")).await == ["1"]).await;
        bench.run(&format!("select pg_cancel_backend(pid) {waiting}")).await;
        blocker.execute_all("commit").await.unwrap();
    };
    let (result, ()) = tokio::join!(bench.migrate(), cancel);
    assert_eq!(result.unwrap_err().sql_state(), Some("57014"));
    let dropped = mend(&bench, Repair::Resume, "3").await.unwrap().dropped;
    assert!(!dropped.is_empty() && dropped.iter().all(|name| name.contains("_ccnew")), "{dropped:?}");
    assert_eq!(bench.column(invalid).await, ["0"]);
}

#[tokio::test]
async fn an_invalid_index_of_another_is_not_taken_for_the_one_to_be_made() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    bench.run("insert into t values (1), (1)").await;
    let connection = bench.connect().await;
    connection.execute_all("create unique index concurrently i on t (id)").await.unwrap_err();
    bench.run("truncate t").await;
    bench.file("2_i.sql", format!("{HEAD}create unique index concurrently if not exists i on t (id);"));
    let text = shown(&bench.migrate().await.unwrap_err());
    assert!(text.contains("the index i was there already and is INVALID"), "{text}");
    assert!(text.contains("hint: drop it, then go on: DROP INDEX CONCURRENTLY i"), "{text}");
    assert_eq!(bench.versions().await, ["1"]);
    connection.execute_all("drop index concurrently i").await.unwrap();
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_i"]);
}

#[tokio::test]
async fn what_the_file_chose_for_its_session_holds_for_the_rest_of_it() {
    let bench = Bench::new().await;
    let role = format!("{}_owner", bench.database.name);
    bench.run(&format!("create role {role}; create schema s authorization {role}")).await;
    bench.file(
        "1_t.sql",
        format!("{HEAD}set role {role};\nset search_path = s;\ncreate table t as select 1 / count(*) from public.x;"),
    );
    bench.migrate().await.unwrap_err();
    bench.run(&format!("create table x as select 1; grant select on x to {role}")).await;
    mend(&bench, Repair::Resume, "1").await.unwrap();
    assert_eq!(bench.column("select tableowner from pg_tables where schemaname = 's'").await, [role]);
}

#[tokio::test]
async fn a_file_that_was_edited_since_is_not_gone_on_with() {
    let bench = stopped().await;
    bench.run("alter table t add column more int").await;
    bench.file("2_i.sql", format!("{HEAD}create index concurrently i on t (more);\ninsert into t values (2);"));
    let text = refused(&bench, Repair::Resume, "2").await;
    assert!(text.contains("cannot resume 2_i in trip") && text.contains("edited after it stopped"), "{text}");
    assert!(text.contains("pgfleet migration reset 2"), "{text}");
    std::fs::remove_file(bench.folder.path().join("2_i.sql")).unwrap();
    assert!(refused(&bench, Repair::Resume, "2").await.contains("it has no file"));
    assert_eq!(attempts(&bench).await, ["apply 2 interrupted 2"]);
    // A comment changes nothing.
    bench.file(
        "2_i.sql",
        format!(
            "{HEAD}-- More.\ninsert into t values (1); create index concurrently i on t (more);\n\
             insert into t values (2);"
        ),
    );
    mend(&bench, Repair::Resume, "2").await.unwrap();
    assert_eq!(bench.column("select id from t order by 1").await, ["1", "2"]);
}

#[tokio::test]
async fn a_way_back_goes_on_too() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int); create index i on t (id);");
    bench.file("1_t.down.sql", format!("{HEAD}drop index concurrently i;\ndrop table t;"));
    bench.migrate().await.unwrap();
    bench.run("create view v as select * from t").await;
    bench.revert(Goal::Steps(1)).await.unwrap_err();
    bench.run("drop view v").await;
    mend(&bench, Repair::Resume, "1").await.unwrap();
    assert_eq!(bench.versions().await.len(), 0);
    assert_eq!(bench.column("select to_regclass('t')").await, ["NULL"]);
    assert_eq!(attempts(&bench).await, ["revert 1 done", "resume 1 done"]);
}

#[tokio::test]
async fn a_file_that_is_reset_begins_again_and_what_it_left_is_named() {
    let bench = Bench::new().await;
    bench.file("2_i.sql", format!("{HEAD}insert into t values (1);\ncreate unique index concurrently i on t (id);"));
    bench.file("1_t.sql", "create table t (id int); insert into t values (1);");
    bench.migrate().await.unwrap_err();
    assert!(refused(&bench, Repair::Reset, "1").await.contains("it did not stop in the middle"));
    let repaired = mend(&bench, Repair::Reset, "2").await.unwrap();
    assert_eq!((repaired.statement, repaired.left), (Some(2), vec!["i".to_owned()]));
    assert_eq!(attempts(&bench).await, ["reset 2 done"]);
    let message = bench.column("select message from pgfleet.attempts").await;
    assert!(message[0].starts_with("had stopped at statement 2: could not create unique index"), "{message:?}");
    bench.run("drop index i; truncate t").await;
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_i"]);
    assert!(refused(&bench, Repair::Reset, "2").await.contains("it did not stop in the middle"));
}

#[tokio::test]
async fn a_migration_is_marked_as_applied_without_running() {
    let bench = Bench::new().await;
    bench.file("01_t.up.sql", "create table t (id int);");
    bench.file("01_t.down.sql", "drop table t;");
    let text = refused(&bench, Repair::MarkApplied, "7").await;
    assert!(text.contains("cannot mark 7 as applied in trip") && text.contains("it has no file"), "{text}");
    bench.run("create table t (id int)").await;
    mend(&bench, Repair::MarkApplied, "1").await.unwrap();
    assert_eq!(attempts(&bench).await, ["mark-applied 01 done"]);
    let report = bench.migrate().await.unwrap();
    assert_eq!((report.outcome, report.to.as_deref()), (Outcome::UpToDate, Some("01")));
    assert!(refused(&bench, Repair::MarkApplied, "1").await.contains("it is applied since 2"));
    bench.revert(Goal::Steps(1)).await.unwrap();
    assert_eq!(bench.column("select to_regclass('t')").await, ["NULL"]);
}

#[tokio::test]
async fn what_was_finished_by_hand_is_marked_as_applied() {
    let bench = stopped().await;
    mend(&bench, Repair::MarkApplied, "2").await.unwrap();
    assert_eq!(attempts(&bench).await, ["mark-applied 2 done"]);
    assert_eq!(bench.migrate().await.unwrap().applied, ["3_u"]);
}

#[tokio::test]
async fn a_forgotten_migration_is_pending_again_and_nothing_was_undone() {
    let bench = Bench::new().await;
    assert!(refused(&bench, Repair::Forget, "1").await.contains("it is not applied"));
    assert_eq!(bench.column("select to_regnamespace('pgfleet')").await, ["NULL"], "a refusal makes nothing");
    bench.file("1_t.up.sql", "create table if not exists t (id int);");
    bench.file("1_t.down.sql", "drop table t;");
    let second = bench.file("2_u.sql", "create table u (id int);");
    bench.migrate().await.unwrap();
    std::fs::remove_file(second).unwrap();
    let repaired = mend(&bench, Repair::Forget, "02").await.unwrap();
    assert_eq!((repaired.version.as_str(), repaired.label.as_str()), ("2", "2_u"), "also without its file");
    mend(&bench, Repair::Forget, "1").await.unwrap();
    assert_eq!(attempts(&bench).await, ["forget 2 done", "forget 1 done"]);
    assert_eq!(bench.column("select count(*) from t, u").await, ["0"], "both tables are there");
    assert_eq!(bench.migrate().await.unwrap().applied, ["1_t"]);
}

#[tokio::test]
async fn an_edited_file_is_accepted_with_its_way_back() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int);");
    bench.file("1_t.down.sql", "drop table t;");
    bench.migrate().await.unwrap();
    assert!(refused(&bench, Repair::Accept, "1").await.contains("the file is what was applied"));
    bench.file("1_t.up.sql", "create table t (id bigint);");
    bench.file("1_t.down.sql", "drop table if exists t;");
    assert_eq!(bench.migrate().await.unwrap_err().kind(), ErrorKind::Findings);
    let looked = run::looking(&bench.options);
    let dry = pgfleet_migrate::Options { dry_run: true, ..bench.options.clone() };
    let version = "1".parse().unwrap();
    let set = bench.set().unwrap();
    let only = repair(&bench.target(), &set, Repair::Accept, &version, &dry, &bench.events).await.unwrap();
    assert_eq!(bench.migrate_with(&looked).await.unwrap().entries[0].state, State::Edited, "a dry run changes nothing");
    let repaired = mend(&bench, Repair::Accept, "1").await.unwrap();
    assert_eq!(repaired.difference, only.difference);
    let shown = repaired.difference.unwrap();
    for words in ["-create table t (id int);", "+create table t (id bigint);", "way back: ", "+drop table if exists t;"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);
    assert_eq!(
        bench.column("select sql || down from pgfleet.trip_migrations").await,
        ["create table t (id bigint);drop table if exists t;"]
    );
    assert_eq!(attempts(&bench).await, ["accept 1 done"]);
    // A row that was written by hand holds nothing to compare with.
    bench.run("update pgfleet.trip_migrations set checksum = null, raw_hash = null, sql = null, down = null").await;
    mend(&bench, Repair::Accept, "1").await.unwrap();
    assert!(refused(&bench, Repair::Accept, "1").await.contains("the file is what was applied"));
    assert!(refused(&bench, Repair::Accept, "2").await.contains("it is not applied"));
}

#[tokio::test]
async fn nothing_is_mended_beside_a_run_that_holds_the_lock() {
    let mut bench = stopped().await;
    bench.options.lock_wait = Some(std::time::Duration::ZERO);
    bench.file("2_i.sql", "select pg_sleep(60);");
    bench.run("delete from pgfleet.attempts").await;
    let sleeping = "from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    let beside = async {
        until("it sleeps", async || bench.column(&format!("select count(*) {sleeping}")).await == ["1"]).await;
        for action in [Repair::Resume, Repair::Reset, Repair::MarkApplied, Repair::Forget, Repair::Accept] {
            assert_eq!(mend(&bench, action, "1").await.unwrap_err().kind(), ErrorKind::Locked, "{action:?}");
        }
        bench.run(&format!("select pg_terminate_backend(pid) {sleeping}")).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(), beside);
    assert!(result.is_err());
}

#[tokio::test]
async fn a_table_of_failures_from_before_gets_its_columns() {
    let bench = stopped().await;
    bench.run("alter table pgfleet.attempts drop column checksum, drop column invalid_indexes").await;
    let text = refused(&bench, Repair::Resume, "2").await;
    assert!(text.contains("it is not recorded what the file said") && text.contains("migration reset 2"), "{text}");
    mend(&bench, Repair::Reset, "2").await.unwrap();
    bench.run("truncate t; alter table t add column more int").await;
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_i", "3_u"]);
}
