//! Which failures start the run again.

use std::time::Duration;

use pgfleet_migrate::{ErrorKind, Event, Outcome, run};
use pgfleet_postgres::Address;

use crate::support::{Bench, shown, until};

fn quick(bench: &mut Bench) {
    bench.options.max_tries = 3;
    bench.options.min_retry_wait = Duration::from_millis(1);
    bench.options.max_retry_wait = Duration::from_millis(1);
}

fn retries(bench: &Bench) -> usize {
    bench.events.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Retry { .. })).count()
}

/// An address of this database for a role that is made with the given options.
async fn as_role(bench: &Bench, options: &str) -> Address {
    let role = format!("{}_role", bench.database.name);
    bench.run(&format!("create role {role} login password 'right' {options}")).await;
    let url = bench.database.url();
    let host = &url[url.rfind('@').unwrap()..];
    Address::parse(&format!("postgres://{role}:right{host}")).unwrap()
}

#[tokio::test]
async fn what_can_pass_by_itself_starts_the_run_again() {
    let mut bench = Bench::new().await;
    quick(&mut bench);
    bench.options.lock_tries = 1;
    // Fails with a serialization error, each time a little later: a sequence survives a rollback.
    bench.run("create sequence tries").await;
    bench.file("1_first.sql", "create table t (id int);");
    bench.file(
        "2_flaky.sql",
        "do $$ begin if nextval('tries') < 3 then raise sqlstate '40001' using message = 'not yet'; end if; end $$;",
    );
    assert_eq!(bench.migrate().await.unwrap().applied, ["2_flaky"], "the last try had only this left");
    assert_eq!(retries(&bench), 2);
    assert_eq!(bench.versions().await, ["1", "2"]);
}

#[tokio::test]
async fn it_is_tried_so_many_times_in_all() {
    let mut bench = Bench::new().await;
    quick(&mut bench);
    bench.options.lock_tries = 2;
    bench.run("create sequence tries").await;
    bench.file("1_f.sql", "do $$ begin perform nextval('tries'); raise sqlstate '40P01' using message = 'no'; end $$;");
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.sql_state(), Some("40P01"), "{}", shown(&error));
    assert_eq!(bench.column("select last_value from tries").await, ["6"], "two tries in each of three runs");
}

#[tokio::test]
async fn an_error_in_the_sql_ends_the_run_at_once() {
    for text in ["selct 1;", "select nope;", "do $$ begin raise sqlstate '08001'; end $$;"] {
        let mut bench = Bench::new().await;
        quick(&mut bench);
        bench.file("1_bad.sql", text);
        let error = bench.migrate().await.unwrap_err();
        assert_eq!((error.kind(), retries(&bench)), (ErrorKind::Statement, 0), "{}", shown(&error));
        assert!(shown(&error).contains("1_bad.sql:1"), "{}", shown(&error));
        assert_eq!(bench.column("select outcome from pgfleet.attempts").await, ["failed"]);
    }
}

#[tokio::test]
async fn a_wrong_password_ends_the_run_at_once() {
    let mut bench = Bench::new().await;
    quick(&mut bench);
    bench.options.wait_attempts = 100;
    let mut target = bench.target();
    as_role(&bench, "").await;
    let url = bench.database.url();
    let host = &url[url.rfind('@').unwrap()..];
    target.address = Address::parse(&format!("postgres://{}_role:wrong{host}", bench.database.name)).unwrap();
    bench.file("1_a.sql", "select 1;");
    let error = run::migrate(&target, &bench.path(), &bench.options, &bench.events).await;
    let error = error.unwrap_err();
    assert_eq!(error.sql_state(), Some("28P01"), "{}", shown(&error));
    assert!(!shown(&error).contains("wrong"), "{}", shown(&error));
    assert!(bench.events.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_full_server_is_waited_for() {
    let mut bench = Bench::new().await;
    quick(&mut bench);
    bench.options.wait_attempts = 10_000;
    bench.options.wait_delay = Duration::from_millis(5);
    let mut target = bench.target();
    target.address = as_role(&bench, "connection limit 1").await;
    bench.run(&format!("grant create on database {0} to {0}_role", bench.database.name)).await;
    let only = pgfleet_postgres::connect(&target.address, &pgfleet_postgres::Purpose::new("test")).await.unwrap();
    bench.file("1_a.sql", "select 1;");
    let path = bench.path();
    let release = async {
        until("it waits", async || {
            bench.events.any(|event| matches!(event, Event::Waiting { reason, .. } if reason.contains("too many")))
        })
        .await;
        only.close().await;
    };
    let (report, ()) = tokio::join!(run::migrate(&target, &path, &bench.options, &bench.events), release);
    assert_eq!(report.unwrap().outcome, Outcome::Applied);
}

#[tokio::test]
async fn a_server_that_was_never_there_is_not_retried() {
    let mut bench = Bench::new().await;
    quick(&mut bench);
    let mut target = bench.target();
    target.address = Address::parse("postgres://postgres@127.0.0.1:1/x").unwrap();
    let error = run::migrate(&target, &bench.path(), &bench.options, &bench.events).await;
    assert!(error.unwrap_err().is_unreachable());
    assert_eq!(retries(&bench), 0);
}
