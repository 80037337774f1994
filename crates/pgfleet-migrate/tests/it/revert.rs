//! Going back.

use crate::support::{Bench, shown};
use pgfleet_migrate::revert::Goal;
use pgfleet_migrate::{ErrorKind, Options, Outcome};

async fn three() -> Bench {
    let bench = Bench::new().await;
    for version in 1..=3 {
        bench.file(&format!("{version}_t.up.sql"), format!("create table t{version} (id int);"));
        bench.file(&format!("{version}_t.down.sql"), format!("drop table t{version};"));
    }
    bench.migrate().await.unwrap();
    bench
}

async fn tables(bench: &Bench) -> Vec<String> {
    bench.column("select tablename from pg_tables where schemaname = 'public' order by 1").await
}

#[tokio::test]
async fn migrations_go_down_newest_first_and_up_again() {
    let bench = three().await;
    let report = bench.revert(Goal::Steps(2)).await.unwrap();
    assert_eq!(report.applied, ["3_t", "2_t"]);
    assert_eq!((report.from.as_deref(), report.to.as_deref()), (Some("3"), Some("1")));
    assert_eq!(tables(&bench).await, ["t1"]);
    let done = bench.column("select concat_ws(' ', action, outcome, version) from pgfleet.attempts order by id").await;
    assert_eq!(done, ["revert done 3", "revert done 2"]);
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_t", "3_t"]);
}

#[tokio::test]
async fn a_migration_without_a_way_back_stops_before_anything_is_reverted() {
    let bench = three().await;
    bench.file("4_x.sql", "select 1;");
    bench.file("5_y.up.sql", "select 1;");
    bench.file("5_y.down.sql", "select 1;");
    bench.migrate().await.unwrap();
    let error = bench.revert(Goal::Steps(3)).await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Findings);
    assert!(text.contains("cannot revert 4_x in trip") && text.contains("4_x.down.sql"), "{text}");
    assert_eq!(bench.versions().await.len(), 5);
}

#[tokio::test]
async fn the_recorded_text_goes_back_when_the_file_is_gone() {
    let bench = three().await;
    for name in ["3_t.up.sql", "3_t.down.sql"] {
        std::fs::remove_file(bench.folder.path().join(name)).unwrap();
    }
    assert_eq!(bench.revert(Goal::Steps(1)).await.unwrap().applied, ["3_t"]);
    assert_eq!(tables(&bench).await, ["t1", "t2"]);
}

#[tokio::test]
async fn a_version_can_be_named_and_stays() {
    let bench = three().await;
    let report = bench.revert(Goal::To(Some("01".parse().unwrap()))).await.unwrap();
    assert_eq!((report.applied.len(), report.to.as_deref()), (2, Some("1")));
    let error = bench.revert(Goal::To(Some("3".parse().unwrap()))).await.unwrap_err();
    assert!(shown(&error).contains("3 is not applied"), "{}", shown(&error));
    bench.revert(Goal::To(None)).await.unwrap();
    assert!(tables(&bench).await.is_empty());
}

#[tokio::test]
async fn more_steps_than_applied_revert_everything_and_then_nothing() {
    let bench = three().await;
    assert_eq!(bench.revert(Goal::Steps(99)).await.unwrap().applied.len(), 3);
    let report = bench.revert(Goal::Steps(1)).await.unwrap();
    assert_eq!((report.outcome, report.applied.len()), (Outcome::UpToDate, 0));
}

#[tokio::test]
async fn a_dry_run_of_a_revert_only_says_what_it_would_do() {
    let mut bench = three().await;
    bench.options.dry_run = true;
    // It needs no lock either.
    let other = bench.connect().await;
    assert!(pgfleet_postgres::lock::try_lock(&other, pgfleet_postgres::lock::LockKey::Migrate).await.unwrap());
    let report = bench.revert(Goal::Steps(1)).await.unwrap();
    assert_eq!((report.outcome, report.pending), (Outcome::Pending, vec!["3_t".to_owned()]));
    assert_eq!(tables(&bench).await.len(), 3);
    bench.options.dry_run = false;
    bench.options.lock_wait = Some(std::time::Duration::ZERO);
    assert_eq!(bench.revert(Goal::Steps(1)).await.unwrap_err().kind(), ErrorKind::Locked);
}

#[tokio::test]
async fn a_failing_way_back_keeps_what_it_did_not_reach() {
    let bench = three().await;
    bench.file("2_t.down.sql", "drop table t2;\nselect 1/0;");
    let error = bench.revert(Goal::Steps(3)).await.unwrap_err();
    let text = shown(&error);
    assert!(text.contains("cannot revert 2_t in trip") && text.contains("2_t.down.sql:2"), "{text}");
    assert_eq!(tables(&bench).await, ["t1", "t2"]);
    assert_eq!(bench.versions().await, ["1", "2"]);
}

#[tokio::test]
async fn a_way_back_without_a_transaction_that_stopped_is_not_run_again() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int); create index i on t (id);");
    bench.file("1_t.down.sql", "-- pgfleet: no-transaction\ndrop index concurrently i;\nselect 1/0;");
    bench.migrate().await.unwrap();
    let error = bench.revert(Goal::Steps(1)).await.unwrap_err();
    assert!(shown(&error).contains("1 of 2 statements"), "{}", shown(&error));
    let error = bench.revert(Goal::Steps(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{}", shown(&error));
    bench.file("1_t.down.sql", "-- pgfleet: no-transaction\ndrop table t;");
    bench.run("delete from pgfleet.attempts where outcome = 'interrupted'").await;
    bench.revert(Goal::Steps(1)).await.unwrap();
    assert_eq!(bench.versions().await.len(), 0);
}

#[tokio::test]
async fn what_a_way_back_took_from_the_seeds_comes_again_with_the_way_up() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int primary key);");
    bench.file("1_t.down.sql", "drop table t;");
    bench.file("seeds/1_rows.sql", "insert into t values (1) on conflict do nothing;");
    bench.migrate().await.unwrap();
    bench.revert(Goal::Steps(1)).await.unwrap();
    let report = bench.migrate().await.unwrap();
    assert_eq!((report.applied, report.seeded), (vec!["1_t".to_owned()], vec!["1_rows".to_owned()]));
    assert_eq!(bench.column("select count(*) from t").await, ["1"]);
}

#[tokio::test]
async fn a_way_back_that_holds_nothing_but_a_comment_is_none() {
    let bench = Bench::new().await;
    bench.file("1_t.up.sql", "create table t (id int);");
    bench.file("1_t.down.sql", "-- The way back\n");
    bench.file("2_nothing.up.sql", "");
    bench.file("2_nothing.down.sql", "");
    bench.migrate().await.unwrap();
    let error = bench.revert(Goal::Steps(2)).await.unwrap_err();
    assert!(shown(&error).contains("holds no statement; nothing was reverted"), "{}", shown(&error));
    assert_eq!(bench.versions().await, ["1", "2"]);
    bench.revert(Goal::Steps(1)).await.unwrap();
}

#[tokio::test]
async fn what_a_run_applied_is_known_as_its_own_however_often_it_was_cut_off() {
    let bench = three().await;
    let run = "0198f7a1-0000-7000-8000-000000000001";
    let options = Options { run: Some(run.to_owned()), ..bench.options.clone() };
    bench.file("4_x.up.sql", "create table x (id int);");
    bench.file("4_x.down.sql", "drop table x;");
    bench.file("5_y.up.sql", "select no_such_function();");
    bench.migrate_with(&options).await.unwrap_err();
    bench.file("5_y.up.sql", "create table y (id int);");
    bench.file("5_y.down.sql", "drop table y;");
    bench.file("R__view.sql", "create or replace view v as select 1 as one;");
    let report = bench.migrate_with(&options).await.unwrap();
    assert_eq!(report.applied, ["4_x", "5_y", "R__view"], "also what the first try applied");
    assert_eq!((report.from.as_deref(), report.to.as_deref()), (Some("3"), Some("5")));
    // As for a process that died before it could say so.
    let report = bench.migrate_with(&options).await.unwrap();
    assert_eq!((report.outcome, report.applied.len()), (Outcome::UpToDate, 3));
    assert_eq!((report.from.as_deref(), report.to.as_deref()), (Some("3"), Some("5")));
    // The files say something else by now; what was recorded counts.
    bench.file("4_x.down.sql", "select no_such_function();");
    let report = bench.revert(Goal::Run(run.to_owned())).await.unwrap();
    assert_eq!(report.applied, ["5_y", "4_x"]);
    assert_eq!(tables(&bench).await, ["t1", "t2", "t3"]);
    let report = bench.revert(Goal::Run(run.to_owned())).await.unwrap();
    assert_eq!((report.outcome, report.applied.len()), (Outcome::UpToDate, 0));
}

#[tokio::test]
async fn a_run_with_another_on_top_is_not_taken_back() {
    let bench = three().await;
    let run = "0198f7a1-0000-7000-8000-000000000002";
    let options = Options { run: Some(run.to_owned()), ..bench.options.clone() };
    for (version, options) in [(4, &options), (5, &bench.options)] {
        bench.file(&format!("{version}_x.up.sql"), "select 1;");
        bench.file(&format!("{version}_x.down.sql"), "select 1;");
        bench.migrate_with(options).await.unwrap();
    }
    let error = bench.revert(Goal::Run(run.to_owned())).await.unwrap_err();
    let text = shown(&error);
    assert!(text.contains("cannot revert 4_x in trip") && text.contains("5_x was applied on top of it"), "{text}");
    assert_eq!(bench.versions().await.len(), 5);
}
