//! Repeatable migrations.

use crate::support::{Bench, shown};
use pgfleet_migrate::Outcome;
use pgfleet_migrate::revert::Goal;

#[tokio::test]
async fn a_repeatable_comes_last_and_again_when_it_changes() {
    let bench = Bench::new().await;
    bench.file("R__names.sql", "create or replace view names as select 'first' || count(*) as name from t;");
    bench.file("1_create.sql", "create table t (id int);");
    assert_eq!(bench.migrate().await.unwrap().applied, ["1_create", "R__names"]);
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);

    bench.file("R__names.sql", "-- why\ncreate or replace view names as\n  select 'first' || count(*) as name from t;");
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate, "a comment is no change");

    bench.file("R__names.sql", "create or replace view names as select 'second' || count(*) as name from t;");
    bench.file("2_fill.sql", "insert into t values (1);");
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.applied, ["2_fill", "R__names"]);
    assert_eq!(report.to.as_deref(), Some("2"));
    assert_eq!(bench.column("select name from names").await, ["second1"]);
    assert_eq!(bench.versions().await, ["1", "2", "R__names"]);
    let text = bench.column("select sql like '%second%' from pgfleet.trip_migrations where version ^@ 'R__'").await;
    assert_eq!(text, ["t"], "the row is that of the last run");
}

#[tokio::test]
async fn a_failing_repeatable_keeps_its_old_row() {
    let bench = Bench::new().await;
    bench.file("R__f.sql", "select 1;");
    bench.migrate().await.unwrap();
    bench.file("R__f.sql", "select 1;\nselect nope;");
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("cannot apply R__f to trip") && shown(&error).contains("R__f.sql:2:8"));
    assert_eq!(bench.column("select sql from pgfleet.trip_migrations").await, ["select 1;"]);
}

#[tokio::test]
async fn a_repeatable_that_a_way_back_destroyed_is_applied_again() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int);");
    bench.file("1_t.down.sql", "drop table t;");
    bench.file("2_u.up.sql", "create table u (id int);");
    bench.file("2_u.down.sql", "drop table u cascade;");
    bench.file("R__both.sql", "create or replace view both_of_them as select t.id from t join u on true;");
    bench.migrate().await.unwrap();
    bench.revert(Goal::Steps(1)).await.unwrap();
    assert_eq!(bench.versions().await, ["1"], "nobody knows which repeatable went with the table");
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.applied, ["2_u", "R__both"]);
    assert_eq!(bench.column("select count(*) from both_of_them").await, ["0"]);
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);
}

#[tokio::test]
async fn a_way_back_that_fails_leaves_the_repeatables_as_they_are() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int);");
    bench.file("1_t.down.sql", "drop table t cascade;\nselect 1/0;");
    bench.file("R__names.sql", "create or replace view names as select id from t;");
    bench.migrate().await.unwrap();
    bench.revert(Goal::Steps(1)).await.unwrap_err();
    assert_eq!(bench.versions().await, ["1", "R__names"]);
    assert_eq!(bench.migrate().await.unwrap().outcome, Outcome::UpToDate);
}
