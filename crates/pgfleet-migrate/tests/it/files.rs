//! Files that are large, odd or wrong.

use crate::support::{Bench, shown};
use pgfleet_migrate::ErrorKind;

#[tokio::test]
async fn two_files_with_one_version_are_both_named() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.file("01_b.sql", "select 1;");
    let error = bench.set().unwrap_err();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Files);
    assert!(text.contains("1_a.sql") && text.contains("01_b.sql") && text.contains("hint: "), "{text}");
}

#[tokio::test]
async fn a_name_that_fits_no_layout_is_an_error_and_not_overlooked() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", "select 1;");
    bench.file("add-users.sql", "select 1;");
    let text = shown(&bench.set().unwrap_err());
    assert!(text.contains("add-users.sql") && text.contains("hint: "), "{text}");
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused_with_its_place() {
    let bench = Bench::new().await;
    bench.file("1_a.sql", b"select 1;\nselect '\xe9';\n");
    let error = bench.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Files);
    assert!(shown(&error).contains("1_a.sql:2") && shown(&error).contains("UTF-8"), "{}", shown(&error));
    bench.file("1_a.sql", "select 1;");
    bench.file("seeds/1_s.sql", b"select '\xe9';");
    assert!(shown(&bench.migrate().await.unwrap_err()).contains("1_s.sql:1"));
}

#[tokio::test]
async fn a_file_of_20_megabytes_applies_and_an_error_at_its_end_is_found() {
    let bench = Bench::new().await;
    let row = format!("insert into t values ('{}');\n", "ä".repeat(4000));
    let inserts = row.repeat(20 * 1024 * 1024 / row.len() + 1);
    bench.file("1_create.sql", "create table t (v text);");
    bench.file("2_large.sql", &inserts);
    bench.file("3_after.sql", "create table after (id int);");
    assert_eq!(bench.migrate().await.unwrap().applied.len(), 3);
    let count = inserts.lines().count();
    assert_eq!(bench.column("select count(*) from t").await, [count.to_string()]);
    let stored = bench.column("select octet_length(sql) from pgfleet.trip_migrations where version = '2'").await;
    assert_eq!(stored, [inserts.len().to_string()]);
    bench.file("4_bad.sql", format!("{}select nope;\n", row.repeat(500)));
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("4_bad.sql:501:8"), "{}", shown(&error));
}

/// Enough for several messages, each of which is cut at some migration.
#[tokio::test]
async fn a_run_that_does_not_fit_one_message_is_applied_in_order() {
    let bench = Bench::new().await;
    let filler = "x".repeat(600_000);
    for number in 1..=10 {
        let before = number - 1;
        let check = if before > 0 { format!("insert into t{before} values (1);") } else { String::new() };
        bench.file(&format!("{number}_m.sql"), format!("create table t{number} (id int);{check} -- {filler}"));
    }
    bench.file("11_bad.sql", "select 1/0;");
    let error = bench.migrate().await.unwrap_err();
    assert!(shown(&error).contains("11_bad"), "{}", shown(&error));
    assert_eq!(bench.versions().await.len(), 10);
}

/// The server cannot convert such a text and says so for a whole message, without a position.
#[tokio::test]
async fn a_character_that_the_database_cannot_hold_blames_its_own_file() {
    let bench = Bench::new().await;
    let name = format!("{}_latin", bench.database.name);
    bench.run(&format!("create database {name} encoding latin1 locale 'C' template template0")).await;
    let address = pgfleet_postgres::Address::parse(&bench.database.server().superuser_url(&name)).unwrap();
    let target = pgfleet_migrate::Target::new("trip", address);
    bench.file("1_a.sql", "create table \"größe\" (id int);");
    bench.file("2_b.sql", "create table b (id int);");
    bench.file("3_euro.sql", "select 1;\ninsert into b values (1); -- 5 €");
    bench.file("4_c.sql", "create table c (id int);");
    let path = bench.path();
    let error = pgfleet_migrate::run::migrate(&target, &path, &bench.options, &bench.events).await.unwrap_err();
    let text = shown(&error);
    assert_eq!(error.sql_state(), Some("22P05"), "{text}");
    assert!(text.contains("cannot apply 3_euro"), "{text}");
    let there = pgfleet_postgres::connect(&target.address, &pgfleet_postgres::Purpose::new("test")).await.unwrap();
    let rows = there.simple("select count(*) from pgfleet.trip_migrations").await.unwrap();
    assert_eq!(rows[0].get(0), Some("2"), "what stands before it is applied");
}
