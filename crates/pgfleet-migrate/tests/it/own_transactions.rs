//! Files that begin and commit transactions of their own, or hold only what the server runs outside of one.

use crate::support::{Bench, shown};
use pgfleet_migrate::ErrorKind;
use pgfleet_migrate::repair::{Repair, repair};

/// A value that the last transaction uses and that only a commit makes usable, a table whose triggers wait for the
/// commit, and an index that no transaction can build.
const PARTS: &str = "create type mood as enum ('sad');\n\
    begin;\ncreate table t (id int primary key, up int references t deferrable initially deferred);\n\
    insert into t values (1, 1);\ncommit;\n\
    begin;\nalter table t add column mood mood;\ncommit;\n\
    alter type mood add value 'happy';\n\
    create index concurrently i on t (mood);\n\
    begin;\nupdate t set mood = 'happy';\nsavepoint s;\ninsert into t values (2, 3);\nrollback to s;\nend;\n";

#[tokio::test]
async fn each_transaction_of_a_file_is_one_of_its_own() {
    let bench = Bench::new().await;
    bench.file("1_parts.sql", PARTS);
    bench.file("2_next.sql", "create table next (id int);");
    assert_eq!(bench.migrate().await.unwrap().applied, ["1_parts", "2_next"]);
    assert_eq!(bench.column("select id || mood::text from t").await, ["1happy"]);
    assert_eq!(bench.column("select indisvalid from pg_index where indexrelid = 'i'::regclass").await, ["t"]);
    assert_eq!(bench.column("select count(*) from pgfleet.attempts").await, ["0"]);
    assert!(bench.migrate().await.unwrap().applied.is_empty());
}

#[tokio::test]
async fn a_transaction_that_fails_is_undone_alone_and_can_be_resumed() {
    let bench = Bench::new().await;
    bench.file(
        "1_parts.sql",
        "begin;\ncreate table a (id int);\ncommit;\nbegin;\ncreate table b (id int);\ninsert into more values (1);\ncommit;\n",
    );
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    for words in ["1 of 2 statements are applied", "1_parts.sql:6:13", "migration resume 1"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(bench.column("select to_regclass('a'), to_regclass('b')").await, ["a"]);
    let attempts = "select concat_ws(' ', outcome, statement_number, sql_state) from pgfleet.attempts";
    assert_eq!(bench.column(attempts).await, ["interrupted 2 42P01"]);
    assert_eq!(bench.migrate().await.unwrap_err().kind(), ErrorKind::Interrupted);
    bench.run("create table more (id int)").await;
    let version = "1".parse().unwrap();
    repair(&bench.target(), &bench.set().unwrap(), Repair::Resume, &version, &bench.options, &bench.events)
        .await
        .unwrap();
    assert_eq!(bench.column("select count(*) from b, more").await, ["0"]);
    assert!(bench.migrate().await.unwrap().applied.is_empty());
}

/// It is the runner's, and what stands before it is as atomic as any other file.
#[tokio::test]
async fn a_commit_at_the_end_changes_nothing() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "create table a (id int);\nbegin;\ncreate table b (id int);\nend;\ncommit;\n");
    bench.file("2_bad.sql", "create table c (id int);\ninsert into nope values (1);\ncommit;\n");
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("2_bad.sql:2:13"), "{}", shown(&error));
    assert_eq!(bench.column("select to_regclass('b') || coalesce(to_regclass('c')::text, '')").await, ["b"]);
}

#[tokio::test]
async fn a_commit_in_the_middle_is_taken_from_another_tools_file_only() {
    let text = "create type mood as enum ('sad');\nalter type mood add value 'happy';\ncommit;\n\
                create table t (mood mood default 'happy');\n";
    let bench = Bench::new().await;
    bench.file("1_parts.sql", format!("-- +goose Up\n-- +goose StatementBegin\n{text}-- +goose StatementEnd\n"));
    assert_eq!(bench.migrate().await.unwrap().applied, ["1_parts"]);
    let bench = Bench::new().await;
    bench.file("1_parts.sql", text);
    assert!(shown(&bench.migrate().await.unwrap_err()).contains("COMMIT inside of a migration"));
    bench.file("1_parts.sql", format!("-- pgfleet: no-transaction\n{text}"));
    assert_eq!(bench.migrate().await.unwrap().applied, ["1_parts"]);
}

#[tokio::test]
async fn a_file_that_is_an_index_needs_no_annotation() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int);");
    bench.file("2_i.up.sql", "create unique index concurrently if not exists i on t (id);\n");
    bench.file("2_i.down.sql", "drop index concurrently i;\n");
    assert_eq!(bench.migrate().await.unwrap().applied.len(), 2);
    bench.revert(pgfleet_migrate::revert::Goal::Steps(1)).await.unwrap();
    assert_eq!(bench.column("select count(*) from pg_class where relname = 'i'").await, ["0"]);
}
