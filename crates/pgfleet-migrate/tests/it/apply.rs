//! Applying: order, transactions, what fails and where.

use crate::support::{Bench, shown};
use pgfleet_migrate::{ErrorKind, Outcome};

#[tokio::test]
async fn applies_in_order_and_then_finds_nothing_to_do() {
    let bench = Bench::new().await;
    bench.file("1_create.sql", "create table t (id int primary key);");
    bench.file("02_add.sql", "alter table t add column name text not null default 'x'");
    bench.file("10_fill.sql", "insert into t values (1); -- no line break at the end");
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.outcome, Outcome::Applied);
    assert_eq!(report.applied, ["1_create", "02_add", "10_fill"]);
    assert_eq!(report.to.as_deref(), Some("10"));
    let again = bench.migrate().await.unwrap();
    assert_eq!((again.outcome, again.applied.len()), (Outcome::UpToDate, 0));
    assert_eq!(bench.column("select name from t").await, ["x"]);
    let took = bench.column("select (took_ms > 0 and took_ms < 60000)::text from pgfleet.trip_migrations").await;
    assert_eq!(took, ["true", "true", "true"]);
}

#[tokio::test]
async fn an_error_names_file_line_and_column() {
    errors_are_placed(None).await;
}

async fn bench_on(major: Option<u32>) -> Bench {
    match major {
        Some(major) => Bench::new_on(major).await,
        None => Bench::new().await,
    }
}

/// Each way to fail, with the line, the column and the server's words.
pub(crate) async fn errors_are_placed(major: Option<u32>) {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("42601", "create table a (id int);\nselect 1;\nselct 2;\nselect 3;", "bad.sql:3:1: selct 2;", "syntax error"),
        ("42703", "create table b (id int);\nselect 1,\n       nope from b;", "bad.sql:3:8", "column \"nope\""),
        ("42P07", "select 1;\n\ncreate table first (id int);", "bad.sql:3:0", "already exists"),
        (
            "22012",
            "select 1;\n-- a comment; with a semicolon\nselect 1 / 0;\nselect 2;",
            "bad.sql:3",
            "division by zero",
        ),
        (
            "23505",
            "insert into first values (1);\ninsert into first values (2);\n  insert into first\n values (1);\nselect 4;\nselect 5;",
            "bad.sql:3:3",
            "duplicate key",
        ),
        ("22012", "select 1;\ndo $$\nbegin\n  perform 1;\n  perform 1/0;\nend\n$$;", "bad.sql:5", "division by zero"),
        ("42883", "do $$begin\n perform nope(1);\nend$$", "bad.sql:2", "nope"),
        (
            "42601",
            "create function f() returns int language plpgsql as $f$\nbegin\n  retrun 1;\nend $f$;",
            "bad.sql:3:3",
            "retrun",
        ),
        ("42703", "create function g() returns int language sql as $$\n  select größe\n$$;", "bad.sql:2:10", "größe"),
        (
            "22012",
            "create function h() returns int language plpgsql as $$begin return 1/0; end$$;\nselect 'ä';\nselect h();",
            "bad.sql:3",
            "division",
        ),
    ];
    for (state, text, place, words) in cases {
        let bench = bench_on(major).await;
        bench.file("1_first.sql", "create table first (id int primary key);");
        bench.file("2_bad.sql", text);
        bench.file("3_after.sql", "create table after (id int);");
        let error = bench.migrate().await.unwrap_err();
        let shown = shown(&error);
        assert_eq!(error.sql_state(), Some(*state), "{shown}");
        assert!(shown.contains("cannot apply 2_bad to trip"), "{shown}");
        assert!(shown.contains(&place.replace(":0", ":")) && shown.contains(words), "{state} wanted {place}: {shown}");
        assert_eq!(bench.versions().await, ["1"], "what stands before it is applied, it and the rest are not");
        let attempts = bench.column("select version || ' ' || sql_state || ' ' || outcome from pgfleet.attempts").await;
        assert_eq!(attempts, [format!("2 {state} failed")]);
    }
}

#[tokio::test]
async fn a_failure_at_commit_is_not_skipped_over() {
    let bench = Bench::new().await;
    bench.file(
        "1_tables.sql",
        "create table p (id int primary key); create table c (p int references p deferrable initially deferred);",
    );
    bench.file("2_orphan.sql", "insert into c values (7);");
    bench.file("3_after.sql", "create table after (id int);");
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.sql_state(), Some("23503"), "{}", shown(&error));
    assert_eq!(bench.versions().await, ["1"]);
}

#[tokio::test]
async fn settings_and_roles_that_a_file_leaves_behind_are_reset() {
    let bench = Bench::new().await;
    bench.file(
        "1_leaves.sql",
        "create schema other; set search_path = other; set role pg_monitor; set statement_timeout = 1;",
    );
    bench.file("2_next.sql", "create table here (id int);");
    bench.migrate().await.unwrap();
    assert_eq!(
        bench.column("select schemaname || ' ' || tableowner from pg_tables where tablename = 'here'").await,
        ["public postgres"]
    );
}

#[tokio::test]
async fn refused_statements_are_named_before_anything_runs() {
    for (text, words) in [
        ("create table x (id int);\ncommit;\ncreate table y (id int);", "2_bad.sql:2:1"),
        ("create table x (id int);\ncopy x from stdin;\n1\n\\.\n", "2_bad.sql:2"),
        ("\\i other.sql\n", "2_bad.sql:1"),
        ("select 'open\n", "2_bad.sql:1:8"),
        ("/* open", "2_bad.sql:1:1"),
        ("select $$ open", "2_bad.sql:1:8"),
        ("discard all;", "2_bad.sql:1"),
        ("set session authorization postgres;", "2_bad.sql:1"),
        ("insert into t values (:'nope');", "2_bad.sql:1:23"),
    ] {
        let bench = Bench::new().await;
        bench.file("1_first.sql", "create table first (id int);");
        bench.file("2_bad.sql", text);
        let error = bench.migrate().await.unwrap_err();
        let shown = shown(&error);
        assert_eq!(error.kind(), ErrorKind::Files, "{shown}");
        assert!(shown.contains(words) && shown.contains("hint: "), "{shown}");
        assert_eq!(bench.column("select to_regclass('first')::text").await, ["NULL"], "nothing was applied");
    }
}

#[tokio::test]
async fn odd_but_valid_files_apply() {
    let bench = Bench::new().await;
    bench.file("1_empty.sql", "");
    bench.file("2_comment.sql", "-- nothing yet");
    bench.file("3_crlf_bom.sql", "\u{feff}create table a (id int);\r\ninsert into a values (1);\r\n");
    bench.file("4_own_transaction.sql", "begin;\ncreate table b (id int);\ncommit;\n");
    bench.file(
        "5_dollar.sql",
        "create function f() returns text language sql as $x$ select ';$$' $x$;;\n/* a /* b; */ c */ select 1",
    );
    bench.file(
        "6_atomic.sql",
        "create function g() returns int begin atomic select 1; select case when true then 2 end; end;",
    );
    bench.file("7_dump.sql", "\\restrict abc\nselect pg_catalog.set_config('search_path', '', false);\ncreate table public.d (id int);\n\\unrestrict abc\n");
    bench.file("8_placeholder.sql", "create table e as select :'region'::text as r, 'a:b'::text as :\"region\";");
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.applied.len(), 8);
    assert_eq!(bench.column("select r from e").await, ["eu"]);
}

#[tokio::test]
async fn a_lock_time_out_is_tried_again_and_the_blocker_named() {
    let mut bench = Bench::new().await;
    bench.options.lock_timeout = std::time::Duration::from_millis(50);
    bench.file("1_first.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    bench.file("2_alter.sql", "alter table t add column x int;");
    bench.file("3_more.sql", "create table u (id int);");
    let blocker = bench.connect().await;
    blocker.execute_all("begin; lock table t").await.unwrap();
    let release = async {
        loop {
            let blocked = bench.events.0.lock().unwrap().iter().any(
                |event| matches!(event, pgfleet_migrate::Event::LockTimeout { blockers, .. } if blockers.iter().any(|b| b.application == "test")),
            );
            if blocked {
                return blocker.execute_all("commit").await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let (report, ()) = tokio::join!(bench.migrate(), release);
    assert_eq!(report.unwrap().applied, ["2_alter", "3_more"]);
}

#[tokio::test]
async fn a_file_that_the_server_cannot_read_is_blamed_and_no_other() {
    unreadable_files_are_placed(None).await;
}

/// What is unfinished is noticed only in the text that follows the file in the message.
pub(crate) async fn unreadable_files_are_placed(major: Option<u32>) {
    for (text, place) in [
        ("alter table first add", "2_bad.sql:1:22"),
        ("select 1;\n\nselect 1 +\n-- the rest\n", "2_bad.sql:4"),
        ("select (1 +)", "2_bad.sql:1:12"),
    ] {
        for after in [true, false] {
            let bench = bench_on(major).await;
            bench.file("1_first.sql", "create table first (id int);");
            bench.file("2_bad.sql", text);
            if after {
                bench.file("3_after.sql", "create table after (id int);");
            }
            let error = bench.migrate().await.unwrap_err();
            let shown = shown(&error);
            assert!(shown.contains("cannot apply 2_bad") && shown.contains(place), "wanted {place}: {shown}");
            assert_eq!(bench.versions().await, ["1"]);
        }
    }
}

#[tokio::test]
async fn a_unit_that_fails_before_an_unreadable_one_is_the_one_that_is_named() {
    let bench = Bench::new().await;
    bench.file("1_first.sql", "create table first (id int);");
    bench.file("2_fails.sql", "select 1/0;");
    bench.file("3_unreadable.sql", "selct 1;");
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("cannot apply 2_fails"), "{}", shown(&error));
    assert_eq!(bench.versions().await, ["1"]);
}

#[tokio::test]
async fn a_column_of_the_files_own_is_not_taken_for_a_step() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 7 as pgfleet_step; select 99 as \"pgfleet_step.s\";");
    bench.file("2_b.sql", "select 'x' as pgfleet_step; select 1/0;");
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("cannot apply 2_b"), "{}", shown(&error));
    assert_eq!(bench.versions().await, ["1"]);
}

#[tokio::test]
async fn a_file_can_choose_its_isolation_level() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "create table t (level text);");
    let insert = "insert into t values (current_setting('transaction_isolation'));";
    bench.file("2_b.sql", format!("-- why\nset transaction isolation level serializable;\n{insert}"));
    bench.file("3_c.sql", format!("begin; set local transaction isolation level repeatable read; {insert} commit;"));
    bench.file("4_d.sql", format!("set transaction_isolation = 'serializable';\n{insert}"));
    bench.file("5_e.sql", insert);
    bench.migrate().await.unwrap();
    let levels = bench.column("select level from t").await;
    assert_eq!(levels, ["serializable", "repeatable read", "serializable", "read committed"]);
    bench.file("6_f.sql", "set transaction isolation level serializable;\nselect 1;\nselect 1/0;");
    assert!(shown(&bench.migrate().await.unwrap_err()).contains("6_f.sql:3"));
}

#[tokio::test]
async fn an_error_in_our_own_record_does_not_blame_the_file() {
    let bench = Bench::new().await;
    bench.file("1_first.sql", "select 1;");
    bench.migrate().await.unwrap();
    for text in ["drop table pgfleet.trip_migrations;", "set transaction_read_only = on;", "-- nothing\n\n"] {
        bench.file("2_bad.sql", text);
        if text.starts_with("--") {
            bench.run("alter table pgfleet.trip_migrations add check (version <> '2')").await;
        }
        let error = bench.migrate().await.unwrap_err();
        assert!(shown(&error).contains("recording or committing it failed"), "{}", shown(&error));
        assert_eq!(bench.versions().await, ["1"]);
    }
}

/// The server keeps its answers back until there are enough of them.
#[tokio::test]
async fn what_runs_is_told_while_it_runs() {
    let bench = Bench::new().await;
    for number in 1..=9 {
        bench.file(&format!("{number}_m.sql"), "select 1;");
    }
    let holder = bench.connect().await;
    holder.execute_all("begin; select pg_advisory_xact_lock(5)").await.unwrap();
    bench.file("5_m.sql", "select pg_advisory_lock(5);");
    let told = |label: &str| {
        bench.events.any(|event| matches!(event, pgfleet_migrate::Event::Started { label: l } if l == label))
    };
    let release = async {
        crate::support::until("the fifth is told", async || told("5_m")).await;
        assert!(!told("6_m"));
        holder.execute_all("commit").await.unwrap();
    };
    let (report, ()) = tokio::join!(bench.migrate(), release);
    assert_eq!(report.unwrap().applied.len(), 9);
    assert!(told("9_m"));
}
