//! Seeds: when they run, run again, and what a failing one leaves.

use crate::support::{Bench, shown};
use pgfleet_migrate::{ErrorKind, Outcome};

#[tokio::test]
async fn seeds_run_after_the_migrations_and_are_recorded() {
    let bench = Bench::new().await;
    bench.file("seeds/2_more.sql", "insert into t values (2);");
    bench.file("seeds/1_first.sql", "insert into t values (1);");
    bench.file("1_create.sql", "create table t (id int primary key);");
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.seeded, ["1_first", "2_more"]);
    assert_eq!(bench.column("select name from pgfleet.trip_seeds order by name").await, ["1_first", "2_more"]);
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);
    assert_eq!(bench.column("select count(*) from t").await, ["2"]);
}

#[tokio::test]
async fn a_seed_runs_again_when_it_or_a_property_it_uses_changes() {
    let mut bench = Bench::new().await;
    bench.properties.insert("email".to_owned(), "a@b".to_owned());
    bench.properties.insert("other".to_owned(), "1".to_owned());
    bench.file("1_create.sql", "create table log (line text);");
    bench.file("seeds/1_mail.sql", "insert into log values ('mail ' || :'email');");
    bench.file("seeds/2_plain.sql", "insert into log values ('plain');");
    bench.migrate().await.unwrap();
    bench.properties.insert("other".to_owned(), "2".to_owned());
    bench.file("seeds/2_plain.sql", "-- a comment\ninsert into log values ('plain');");
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);
    bench.properties.insert("email".to_owned(), "it's".to_owned());
    assert_eq!(bench.migrate().await.unwrap().seeded, ["1_mail"]);
    bench.file("seeds/2_plain.sql", "insert into log values ('edited');");
    assert_eq!(bench.migrate().await.unwrap().seeded, ["2_plain"]);
    assert_eq!(bench.column("select line from log").await, ["mail a@b", "plain", "mail it's", "edited"]);
    assert_eq!(bench.column("select count(*) from pgfleet.trip_seeds").await, ["2"]);
}

#[tokio::test]
async fn an_unknown_property_is_named_before_anything_runs() {
    let mut bench = Bench::new().await;
    bench.properties.insert("admin_email".to_owned(), "secret".to_owned());
    bench.file("1_create.sql", "create table t (id text);");
    bench.file("seeds/1_s.sql", "insert into t\nvalues (:'admin_mail');");
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Files, "{text}");
    for words in ["admin_mail", "1_s.sql:2:9", "these have a value: admin_email"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(bench.column("select to_regclass('t')::text").await, ["NULL"]);
}

#[tokio::test]
async fn a_failing_seed_leaves_the_migrations_and_no_secret_in_the_attempts() {
    let mut bench = Bench::new().await;
    bench.properties.insert("password".to_owned(), "hunter2".to_owned());
    bench.file("1_create.sql", "create table t (id int);");
    bench.file("seeds/1_good.sql", "insert into t values (1);");
    bench.file("seeds/2_bad.sql", "select 1;\nselect :'password', 1/0;");
    bench.file("seeds/3_after.sql", "insert into t values (3);");
    let error = bench.migrate().await.unwrap_err();
    let text = shown(&error);
    assert!(text.contains("cannot seed trip with 2_bad") && text.contains("2_bad.sql:2"), "{text}");
    assert_eq!(bench.versions().await, ["1"]);
    assert_eq!(bench.column("select id from t").await, ["1"]);
    let attempt =
        bench.column("select concat_ws('|', action, version, outcome, statement) from pgfleet.attempts").await;
    assert_eq!(attempt, ["seed|2_bad|failed|select :'password', 1/0"]);
    assert!(!format!("{:?}", error.failure()).contains("hunter2"));
}

#[tokio::test]
async fn seeds_do_not_run_when_the_run_stops_below_the_newest_version() {
    let mut bench = Bench::new().await;
    bench.file("1_create.sql", "create table t (id int);");
    bench.file("2_fill.sql", "alter table t add name text;");
    bench.file("seeds/1_s.sql", "insert into t values (1, 'x');");
    bench.options.to = Some("1".parse().unwrap());
    let report = bench.migrate().await.unwrap();
    assert_eq!((report.applied.len(), report.seeded.len()), (1, 0));
    bench.options.to = None;
    assert_eq!(bench.migrate().await.unwrap().seeded, ["1_s"]);
}
