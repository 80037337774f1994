//! The layouts of other tools, applied as they are.

use crate::support::{Bench, shown};
use pgfleet_migrate::revert::Goal;

/// Applies two migrations, checks that the second one's function works, and goes back one.
async fn applies(files: &[(&str, &str)], labels: [&str; 2]) {
    let bench = Bench::new().await;
    for (name, text) in files {
        bench.file(name, text);
    }
    let report = bench.migrate().await.unwrap();
    assert_eq!(report.applied, labels);
    assert_eq!(bench.column("select f() || count(*) from users").await, ["a;b0"]);
    bench.revert(Goal::Steps(1)).await.unwrap();
    assert_eq!(bench.column("select count(*) from pg_proc where proname = 'f'").await, ["0"]);
    assert_eq!(bench.migrate().await.unwrap().applied, [labels[1]]);
}

const CREATE: &str = "create table users (id int);\n";
const F: &str = "create function f() returns text language plpgsql as $$\nbegin return 'a;b'; end $$;\n";
const DROP: &str = "drop function f();\n";

#[tokio::test]
async fn a_folder_of_sqlx_applies() {
    applies(
        &[
            ("20260101000000_create users.up.sql", CREATE),
            ("20260101000000_create users.down.sql", "drop table users;"),
            ("20260102000000_f.up.sql", F),
            ("20260102000000_f.down.sql", DROP),
        ],
        ["20260101000000_create_users", "20260102000000_f"],
    )
    .await;
}

#[tokio::test]
async fn a_folder_of_golang_migrate_applies() {
    applies(
        &[("000001_users.up.sql", CREATE), ("000010_f.up.sql", F), ("000010_f.down.sql", DROP)],
        ["000001_users", "000010_f"],
    )
    .await;
}

#[tokio::test]
async fn a_folder_of_goose_applies() {
    let f = format!("-- +goose Up\n-- +goose StatementBegin\n{F}-- +goose StatementEnd\n-- +goose Down\n{DROP}");
    applies(
        &[("00001_users.sql", &format!("-- +goose Up\n{CREATE}")), ("00002_f.sql", &f)],
        ["00001_users", "00002_f"],
    )
    .await;
}

#[tokio::test]
async fn a_folder_of_dbmate_applies() {
    let f = format!("-- migrate:up\n{F}\n-- migrate:down\n{DROP}");
    applies(
        &[("20260101000000_users.sql", &format!("-- migrate:up\n{CREATE}")), ("20260102000000_f.sql", &f)],
        ["20260101000000_users", "20260102000000_f"],
    )
    .await;
}

#[tokio::test]
async fn a_folder_of_diesel_applies() {
    applies(
        &[
            ("2026-01-01-000000-0000_users/up.sql", CREATE),
            ("2026-01-01-000000-0000_users/down.sql", "drop table users;"),
            ("2026-01-02-000000-0000_f/up.sql", F),
            ("2026-01-02-000000-0000_f/down.sql", DROP),
        ],
        ["202601010000000000_users", "202601020000000000_f"],
    )
    .await;
}

#[tokio::test]
async fn a_folder_of_flyway_applies_with_its_placeholders_and_order() {
    let bench = Bench::new().await;
    bench.file("V1_10__add_region.sql", "insert into users values ('${region}');");
    bench.file("V1_9__users.sql", "create table users (region text);");
    bench.file("R__view.sql", "create or replace view v as select region from users;");
    bench.file("U1_10__add_region.sql", "delete from users;");
    assert_eq!(bench.migrate().await.unwrap().applied, ["1.9_users", "1.10_add_region", "R__view"]);
    assert_eq!(bench.column("select region from v").await, ["eu"]);
    assert_eq!(bench.revert(Goal::Steps(1)).await.unwrap().to.as_deref(), Some("1.9"));
    assert_eq!(bench.column("select count(*) from v").await, ["0"]);
}

#[tokio::test]
async fn an_error_in_a_section_names_the_line_of_the_file() {
    for (text, place) in [
        ("-- +goose Up\nselect 1;\nselect nope;\n-- +goose Down\n", "1_x.sql:3:8: select nope;"),
        ("-- a comment\n\n-- migrate:up\nselect 1;\n\nselct 2;\n-- migrate:down\n", "1_x.sql:6:1: selct 2;"),
        ("-- +goose Up\ncommit;\n", "1_x.sql:2:1"),
        ("-- +goose NO TRANSACTION\n-- +goose Up\nselect 1;\nselect nope;\n", "1_x.sql:4:8"),
    ] {
        let bench = Bench::new().await;
        bench.file("1_x.sql", text);
        let shown = shown(&bench.migrate().await.unwrap_err());
        assert!(shown.contains(place), "wanted {place}: {shown}");
    }
}

/// As text, where `…-7-…` is behind `…-16-…`, and the newer form with four digits more stands among the older one.
#[tokio::test]
async fn versions_of_diesel_are_ordered_as_text() {
    let bench = Bench::new().await;
    let step = |dir: &str, from: u8| {
        bench.file(&format!("{dir}/up.sql"), format!("alter table t rename column c{from} to c{};", from + 1));
        bench.file(&format!("{dir}/down.sql"), format!("alter table t rename column c{} to c{from};", from + 1));
    };
    bench.file("00000000000000_setup/up.sql", "create table t (c1 int);");
    step("2020-12-16-000000_a", 1);
    step("2020-12-7-190800_b", 2);
    step("2025-09-19-132648-0000_d", 4);
    step("2023-05-23-1715-c", 3);
    step("2025-10-01-000000_e", 5);
    assert_eq!(bench.migrate().await.unwrap().applied.len(), 6);
    assert_eq!(
        bench.column("select attname from pg_attribute where attrelid = 't'::regclass and attnum > 0").await,
        ["c6"]
    );
    assert!(bench.migrate().await.unwrap().applied.is_empty());
    bench.revert(Goal::Steps(2)).await.unwrap();
    assert_eq!(bench.versions().await.last().map(String::as_str), Some("202305231715"));
    assert_eq!(bench.migrate().await.unwrap().applied, ["202509191326480000_d", "20251001000000_e"]);
}
