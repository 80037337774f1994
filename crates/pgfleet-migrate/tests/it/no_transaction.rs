//! Files without a transaction.

use crate::support::{Bench, shown};
use pgfleet_migrate::{ErrorKind, Outcome};

const HEAD: &str = "-- pgfleet: no-transaction\n";

async fn attempts(bench: &Bench) -> Vec<String> {
    bench.column("select concat_ws(' ', version, outcome, statement_number, sql_state) from pgfleet.attempts").await
}

#[tokio::test]
async fn an_index_is_built_concurrently() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int); insert into t select generate_series(1, 1000);");
    bench.file(
        "2_i.sql",
        format!(
            "{HEAD}set role pg_monitor; reset role; select pg_sleep(0.01);\ncreate index concurrently i on t (id);"
        ),
    );
    bench.file("3_u.sql", "create table u (id int);");
    assert_eq!(bench.migrate().await.unwrap().applied.len(), 3);
    assert_eq!(bench.column("select indisvalid from pg_index where indexrelid = 'i'::regclass").await, ["t"]);
    assert!(attempts(&bench).await.is_empty(), "the journal of a finished file is gone");
    let took =
        bench.column("select took_ms >= 10 and took_ms < 60000 from pgfleet.trip_migrations where version = '2'");
    assert_eq!(took.await, ["t"]);
}

#[tokio::test]
async fn a_role_that_the_file_takes_on_does_not_break_the_journal() {
    let bench = Bench::new().await;
    let role = format!("{}_owner", bench.database.name);
    bench.run(&format!("create role {role}; create schema s authorization {role}")).await;
    bench.file(
        "1_t.sql",
        format!("{HEAD}set role {role};\ncreate table s.t (id int);\ncreate index concurrently on s.t (id);"),
    );
    bench.file("2_u.sql", "create table u (id int);");
    bench.migrate().await.unwrap();
    let owners =
        bench.column("select tableowner from pg_tables where tablename in ('t', 'u') order by tablename").await;
    assert_eq!(owners, [role, "postgres".to_owned()]);
}

#[tokio::test]
async fn a_file_that_stopped_in_the_middle_is_not_run_again() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int);");
    bench.file(
        "2_i.sql",
        format!("{HEAD}create index concurrently a on t (id);\n\ncreate index concurrently b on t (nope);"),
    );
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Statement);
    for words in ["cannot apply 2_i", "1 of 2 statements are applied", "2_i.sql:4", "nope"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(attempts(&bench).await, ["2 interrupted 2 42703"]);
    let again = bench.migrate().await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Interrupted);
    let hint = "hint: `pgfleet migration resume 2 --service trip` goes on at that statement";
    assert!(shown(&again).contains(hint), "{}", shown(&again));
    bench.run("drop index a; delete from pgfleet.attempts where outcome = 'interrupted'").await;
    bench.file("2_i.sql", format!("{HEAD}create index concurrently a on t (id);"));
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_i"]);
}

#[tokio::test]
async fn a_first_statement_that_fails_leaves_nothing_behind() {
    let bench = Bench::new().await;
    bench.file("1_i.sql", format!("{HEAD}create index concurrently a on nope (id);"));
    bench.migrate().await.unwrap_err();
    assert_eq!(attempts(&bench).await, ["1 failed 1 42P01"]);
    bench.file("1_i.sql", format!("{HEAD}select 1;"));
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::Applied);
}

/// Otherwise `IF NOT EXISTS` would find it in the next run and report success over it.
#[tokio::test]
async fn an_invalid_index_left_by_the_first_statement_is_named_and_stops_the_next_run() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int); insert into t values (1), (1);");
    bench.file("2_i.sql", format!("{HEAD}create unique index concurrently if not exists a on t (id);"));
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.sql_state(), Some("23505"), "{text}");
    assert!(text.contains("the index a is left INVALID") && text.contains("migration resume 2"), "{text}");
    assert_eq!(bench.migrate().await.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[tokio::test]
async fn a_lock_time_out_counts_only_when_the_file_sets_one() {
    let mut bench = Bench::new().await;
    bench.options.lock_timeout = std::time::Duration::from_millis(1);
    bench.options.lock_tries = 1;
    bench.file("1_t.sql", "create table t (id int);");
    bench.migrate().await.unwrap();
    let blocker = bench.connect().await;
    blocker.execute_all("begin; lock table t").await.unwrap();
    bench.file("2_i.sql", format!("{HEAD}-- pgfleet: lock_timeout=20ms\ncreate index concurrently i on t (id);"));
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.sql_state(), Some("55P03"), "{}", shown(&error));
    bench.file("2_i.sql", format!("{HEAD}create index concurrently i on t (id);"));
    let release = async {
        crate::support::until("the build waits", async || {
            bench.column("select count(*) from pg_locks where not granted and relation = 't'::regclass").await == ["1"]
        })
        .await;
        blocker.execute_all("commit").await.unwrap();
    };
    let (report, ()) = tokio::join!(bench.migrate(), release);
    assert_eq!(report.unwrap().applied, ["2_i"]);
}

#[tokio::test]
async fn what_cannot_run_in_a_transaction_hints_at_the_annotation() {
    let bench = Bench::new().await;
    bench.file("1_t.sql", "create table t (id int);\ncreate index concurrently i on t (id);");
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.sql_state(), Some("25001"));
    assert!(shown(&error).contains("1_t.sql:2") && shown(&error).contains("`-- pgfleet: no-transaction`"));
}
