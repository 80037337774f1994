//! `CREATE INDEX CONCURRENTLY` on tables without rows, as written and plainly.

use std::time::Duration;

use pgfleet_migrate::options::{Concurrently, Stop};
use pgfleet_migrate::repair::{Repair, repair};
use pgfleet_migrate::{ErrorKind, Event};
use pgfleet_postgres::Connection;

use crate::support::{Bench, shown, until};

const HEAD: &str = "-- pgfleet: no-transaction\n";

async fn plain() -> Bench {
    let mut bench = Bench::new().await;
    bench.options.concurrently = Concurrently::PlainWhenEmpty;
    bench
}

/// Keeps a transaction open that has seen the database and locks no table: what a worker does.
async fn old_snapshot(bench: &Bench) -> Connection {
    let worker = bench.connect().await;
    worker.execute_all("begin isolation level repeatable read; select 1").await.unwrap();
    worker
}

/// Waits until the run waits for another transaction.
async fn waits(bench: &Bench) {
    until("the build waits", async || {
        let waiting = "select 1 from pg_stat_activity where datname = current_database() \
                       and application_name like 'pgfleet migrate%' and wait_event_type = 'Lock'";
        !bench.column(waiting).await.is_empty()
    })
    .await;
}

fn noted(bench: &Bench, words: &str) -> bool {
    bench.events.any(|event| matches!(event, Event::Note(text) if text.contains(words)))
}

async fn is_valid(bench: &Bench, index: &str) -> bool {
    bench.column(&format!("select indisvalid from pg_index where indexrelid = '{index}'::regclass")).await == ["t"]
}

#[tokio::test]
async fn a_worker_that_always_has_a_transaction_open_holds_up_what_is_written_and_not_what_is_plain() {
    for concurrently in [Concurrently::AsWritten, Concurrently::PlainWhenEmpty] {
        let mut bench = Bench::new().await;
        bench.options.concurrently = concurrently;
        bench.file("1_t.sql", "create table t (id int);");
        bench.file("2_i.sql", format!("{HEAD}create unique index concurrently i on t (id);"));
        let worker = old_snapshot(&bench).await;
        if concurrently == Concurrently::AsWritten {
            let release = async {
                waits(&bench).await;
                worker.execute_all("commit").await.unwrap();
            };
            let (report, ()) = tokio::join!(bench.migrate(), release);
            assert_eq!(report.unwrap().applied.len(), 2);
        } else {
            assert_eq!(bench.migrate().await.unwrap().applied.len(), 2);
            // Still there.
            worker.execute_all("select 1; commit").await.unwrap();
        }
        assert!(is_valid(&bench, "i").await);
        let said = "2_i: statement 1 was run without CONCURRENTLY, since t has no row";
        assert_eq!(noted(&bench, said), concurrently == Concurrently::PlainWhenEmpty);
        assert!(bench.column("select outcome from pgfleet.attempts").await.is_empty(), "its journal is gone");
        let kept = bench.column("select sql like '%concurrently%' from pgfleet.trip_migrations where version = '2'");
        assert_eq!(kept.await, ["t"], "the history has what is written");
    }
}

#[tokio::test]
async fn one_row_makes_it_concurrent() {
    let bench = plain().await;
    bench.file("1_t.sql", "create table t (id int); insert into t values (1);");
    bench.file("2_i.sql", format!("{HEAD}create index concurrently i on t (id);"));
    let worker = old_snapshot(&bench).await;
    let release = async {
        waits(&bench).await;
        worker.execute_all("commit").await.unwrap();
    };
    let (report, ()) = tokio::join!(bench.migrate(), release);
    assert_eq!(report.unwrap().applied.len(), 2);
    assert!(is_valid(&bench, "i").await && !noted(&bench, "CONCURRENTLY"));
}

/// The time-out of the plain build must not be that of the statement as written, which waits for
/// as long as it takes.
#[tokio::test]
async fn a_table_in_use_is_waited_for_as_written() {
    let mut bench = plain().await;
    bench.options.lock_timeout = Duration::from_millis(20);
    bench.file("1_t.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    bench.file(
        "2_i.sql",
        format!(
            "{HEAD}set lock_timeout = '77s';\ncreate index concurrently i on t (id);\n\
             create table kept as select current_setting('lock_timeout') as lock_timeout;"
        ),
    );
    let writer = bench.connect().await;
    writer.execute_all("begin; insert into t values (1)").await.unwrap();
    let release = async {
        until("the plain build gave up", async || noted(&bench, "statement 2 is run as written, since t is in use"))
            .await;
        waits(&bench).await;
        writer.execute_all("commit").await.unwrap();
    };
    let (report, ()) = tokio::join!(bench.migrate(), release);
    assert_eq!(report.unwrap_or_else(|error| panic!("{}", shown(&error))).applied, ["2_i"]);
    assert!(is_valid(&bench, "i").await);
    assert_eq!(bench.column("select lock_timeout from kept").await, ["77s"]);
}

#[tokio::test]
async fn a_file_with_a_time_out_of_its_own_gives_it_to_both() {
    let mut bench = plain().await;
    bench.options.lock_timeout = Duration::from_mins(10);
    bench.file("1_t.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    bench.file("2_i.sql", format!("{HEAD}-- pgfleet: lock_timeout=20ms\ncreate index concurrently i on t (id);"));
    let writer = bench.connect().await;
    writer.execute_all("begin; insert into t values (1)").await.unwrap();
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.sql_state(), Some("55P03"), "{}", shown(&error));
    assert!(noted(&bench, "is run as written"));
}

#[tokio::test]
async fn an_error_of_a_plain_build_is_placed_and_recorded_like_any_other() {
    let bench = plain().await;
    bench.file("1_t.sql", "create table t (id int);");
    bench.file(
        "2_i.sql",
        format!("{HEAD}create index concurrently a on t (id);\n\ncreate index concurrently é on t (nope);\nselect 1;"),
    );
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Statement, "{text}");
    assert_eq!(error.sql_state(), Some("42703"), "{text}");
    for words in ["1 of 3 statements are applied", "at: 2_i.sql:4:1: create index concurrently é", "migration resume 2"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let attempts = bench.column("select concat_ws(' ', version, outcome, statement_number) from pgfleet.attempts");
    assert_eq!(attempts.await, ["2 interrupted 2"]);
    bench.file("3_x.sql", "select nope;");
    bench.file("2_i.sql", format!("{HEAD}create index concurrently on nope (id);"));
    bench.run("drop index a; delete from pgfleet.attempts").await;
    assert_eq!(bench.migrate().await.unwrap_err().sql_state(), Some("42P01"), "a table that is not there");
}

#[tokio::test]
async fn partitioned_tables_and_names_that_are_there_are_as_in_a_plain_statement() {
    let bench = plain().await;
    bench.file(
        "1_t.sql",
        "create schema \"S é\"; create table \"S é\".\"T\" (id int) partition by range (id); \
         create table \"S é\".one partition of \"S é\".\"T\" for values from (0) to (9); create index there on \"S é\".one ((id + 1));",
    );
    bench.file(
        "2_i.sql",
        format!(
            "{HEAD}create index concurrently if not exists i on \"S é\" . \"T\" using btree (id);\n\
             create index concurrently on only \"S é\".\"T\" (id);\n\
             create index concurrently if not exists there on \"S é\".one (id);"
        ),
    );
    bench.migrate().await.unwrap_or_else(|error| panic!("{}", shown(&error)));
    assert!(is_valid(&bench, "\"S é\".i").await);
    assert_eq!(bench.column("select count(*) from pg_index where indrelid = '\"S é\".one'::regclass").await, ["2"]);
    // The server's refusal, once a partition has a row.
    bench.run("insert into \"S é\".one values (1)").await;
    bench.file("3_j.sql", format!("{HEAD}create index concurrently j on \"S é\".\"T\" (id);"));
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("partitioned table"), "{}", shown(&error));
}

/// Otherwise `IF NOT EXISTS` would pass over it and report success.
#[tokio::test]
async fn an_invalid_index_that_is_in_the_way_is_named() {
    let bench = plain().await;
    bench.file("1_t.sql", "create table t (id int); insert into t values (1), (1);");
    bench.migrate().await.unwrap();
    let other = bench.connect().await;
    other.execute_all("create unique index concurrently i on t (id)").await.unwrap_err();
    other.execute_all("delete from t").await.unwrap();
    bench.file("2_i.sql", format!("{HEAD}create unique index concurrently if not exists i on t (id);"));
    let text = shown(&bench.migrate().await.unwrap_err());
    assert!(text.contains("the index i was there already and is INVALID"), "{text}");
}

/// Rows that the role may not see are rows.
#[tokio::test]
async fn what_the_role_cannot_look_at_is_built_as_written() {
    let bench = plain().await;
    let role = format!("{}_owner", bench.database.name);
    bench.run(&format!("create role {role}; create schema s authorization {role}")).await;
    bench.file(
        "1_t.sql",
        format!(
            "set role {role}; create table s.hidden (id int); create table s.closed (id int); \
             insert into s.hidden values (1); insert into s.closed values (1); \
             alter table s.hidden enable row level security; alter table s.hidden force row level security; \
             revoke all on s.closed from {role};"
        ),
    );
    bench.file(
        "2_i.sql",
        format!(
            "{HEAD}set role {role};\ncreate index concurrently h on s.hidden (id);\n\
             create index concurrently c on s.closed (id);"
        ),
    );
    bench.migrate().await.unwrap_or_else(|error| panic!("{}", shown(&error)));
    assert!(is_valid(&bench, "s.h").await && is_valid(&bench, "s.c").await);
    assert!(!noted(&bench, "CONCURRENTLY"));
}

#[tokio::test]
async fn a_plain_build_that_is_stopped_leaves_nothing_behind() {
    let mut bench = plain().await;
    bench.options.lock_timeout = Duration::from_mins(10);
    bench.file("1_t.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    bench.file("2_i.sql", format!("{HEAD}create index concurrently i on t (id);"));
    let writer = bench.connect().await;
    writer.execute_all("begin; insert into t values (1)").await.unwrap();
    let stop = async {
        waits(&bench).await;
        bench.options.stop.ask();
    };
    let (result, ()) = tokio::join!(bench.migrate(), stop);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Stopped);
    writer.execute_all("rollback").await.unwrap();
    bench.options.stop = Stop::default();
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_i"]);
}

/// Whether the lost build was committed cannot be known from here, plain or not.
#[tokio::test]
async fn a_plain_build_whose_connection_is_lost_is_resumed_like_any_other() {
    let mut bench = plain().await;
    bench.options.lock_timeout = Duration::from_mins(10);
    bench.file("1_t.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    bench.file("2_i.sql", format!("{HEAD}select 1;\ncreate index concurrently i on t (id);"));
    let writer = bench.connect().await;
    writer.execute_all("begin; insert into t values (1)").await.unwrap();
    let kill = async {
        waits(&bench).await;
        bench
            .run(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where datname = current_database() and application_name like 'pgfleet migrate%'",
            )
            .await;
    };
    let (result, ()) = tokio::join!(bench.migrate(), kill);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Connection);
    writer.execute_all("rollback").await.unwrap();
    assert_eq!(bench.migrate().await.unwrap_err().kind(), ErrorKind::Interrupted);
    let (set, version) = (bench.set().unwrap(), "2".parse().unwrap());
    let worker = old_snapshot(&bench).await;
    let resumed = repair(&bench.target(), &set, Repair::Resume, &version, &bench.options, &bench.events).await.unwrap();
    worker.execute_all("commit").await.unwrap();
    assert_eq!((resumed.statement, resumed.dropped.len()), (Some(2), 0));
    assert!(is_valid(&bench, "i").await && noted(&bench, "2_i: statement 2 was run without CONCURRENTLY"));
    assert_eq!(bench.versions().await, ["1", "2"]);
}
