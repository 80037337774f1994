//! Histories that people write: rows of theirs in ours, and tables that they made.

use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::repair::{Repair, Repaired, repair};
use pgfleet_migrate::revert::{self, Goal};
use pgfleet_migrate::{Error, Options, Outcome, Report, Set, State, run};

use crate::support::{Bench, shown};

/// What a guide tells its readers to type.
const BY_HAND: &str =
    "INSERT INTO event_streaming.schema_version (version, description) VALUES (3, 'Retention Policies')";

/// The files of the guide, and one that came later.
async fn streaming() -> Bench {
    let bench = Bench::new().await;
    bench.file("001_InitialSchema.up.sql", "create table events (id bigint);");
    bench.file("001_InitialSchema.down.sql", "drop table events;");
    bench.file("003_RetentionPolicies.up.sql", "create table retention_policies (id bigint);");
    bench.file("003_RetentionPolicies.down.sql", "drop table retention_policies;");
    bench.file("004_StreamConfiguration.up.sql", "create table stream_configurations (id bigint);");
    bench.file("004_StreamConfiguration.down.sql", "drop table stream_configurations;");
    bench
}

fn set(bench: &Bench) -> Set {
    let mut set = bench.set().unwrap();
    set.history = HistoryTable::at("event_streaming", "event_streaming", "schema_version");
    set
}

async fn migrate_with(bench: &Bench, options: &Options) -> Result<Report, Error> {
    run::migrate(&bench.target(), &set(bench).into(), options, &bench.events).await
}

async fn migrate(bench: &Bench) -> Report {
    migrate_with(bench, &bench.options).await.unwrap_or_else(|error| panic!("{}", shown(&error)))
}

async fn mend(bench: &Bench, action: Repair, version: &str) -> Repaired {
    let version = version.parse().unwrap();
    repair(&bench.target(), &set(bench), action, &version, &bench.options, &bench.events)
        .await
        .unwrap_or_else(|error| panic!("{}", shown(&error)))
}

async fn versions(bench: &Bench) -> Vec<String> {
    bench.column("select version::text from event_streaming.schema_version order by version::text").await
}

#[tokio::test]
async fn a_row_that_the_guide_tells_to_insert_is_taken() {
    let bench = streaming().await;
    let first = Options { to: Some("1".parse().unwrap()), ..bench.options.clone() };
    migrate_with(&bench, &first).await.unwrap();
    bench.run(BY_HAND).await;
    let report = migrate(&bench).await;
    assert_eq!(report.applied, ["004_StreamConfiguration"]);
    assert_eq!(versions(&bench).await, ["001", "004", "3"]);
    assert_eq!(bench.column("select to_regclass('retention_policies')").await, ["NULL"], "it was not run");
    let looked = migrate_with(&bench, &run::looking(&bench.options)).await.unwrap();
    let row = looked.entries.iter().find(|entry| entry.description.contains("Retention")).unwrap();
    assert_eq!(row.state, State::Applied);
    assert_eq!(migrate(&bench).await.outcome, Outcome::UpToDate);
}

/// Tables as people make them: the version a number or a text, with and without the rest.
const TABLES: [&str; 4] = [
    "version integer primary key, description varchar(255) not null, applied_at timestamptz not null default now()",
    "version bigint primary key, description text, applied_at timestamp not null default now()",
    "version varchar(50) primary key, description varchar(200), applied_at timestamptz default now()",
    "version integer primary key, description text not null",
];

#[tokio::test]
async fn a_table_that_somebody_made_is_taken_as_it_is() {
    for table in TABLES {
        let bench = streaming().await;
        bench
            .run(&format!(
                "create schema event_streaming; create table event_streaming.schema_version ({table}); \
                 create table events (id bigint); \
                 insert into event_streaming.schema_version (version, description) values (1, 'Initial'); {BY_HAND}"
            ))
            .await;
        let shape = "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum) \
                     from pg_attribute where attrelid = 'event_streaming.schema_version'::regclass and attnum > 0";
        let before = bench.column(shape).await;

        // Looking changes nothing.
        let looked = migrate_with(&bench, &run::looking(&bench.options)).await;
        let looked = looked.unwrap_or_else(|error| panic!("{table}: {}", shown(&error)));
        assert_eq!(looked.pending, ["004_StreamConfiguration"], "{table}");
        let dry = Options { dry_run: true, ..bench.options.clone() };
        assert_eq!(migrate_with(&bench, &dry).await.unwrap().outcome, Outcome::Pending);
        assert_eq!(bench.column(shape).await, before, "{table}");

        let report = migrate(&bench).await;
        assert_eq!((report.applied.len(), report.from.as_deref()), (1, Some("3")), "{table}");
        let after = bench.column(shape).await;
        assert!(after[0].starts_with(&before[0]), "what was there is as it was: {after:?}");
        let kept = "select count(*) from event_streaming.schema_version where checksum is null and applied_by is null \
                    and run is null and took_ms is null";
        assert_eq!(bench.column(kept).await, ["2"], "nobody knows who wrote the old rows: {table}");
        let ours = "select applied_by || ' ' || (checksum like 'v1:%') || ' ' || (applied_at <= clock_timestamp()) || \
                    ' ' || description from event_streaming.schema_version where version::text in ('4', '004')";
        assert_eq!(bench.column(ours).await, ["postgres true true StreamConfiguration"], "{table}");

        // What is mended and reverted finds its rows, whatever the type of the version.
        assert_eq!(migrate(&bench).await.outcome, Outcome::UpToDate, "{table}");
        bench.file("001_InitialSchema.up.sql", "create table events (id bigint, at timestamptz);");
        mend(&bench, Repair::Accept, "1").await;
        let accepted = "select sql from event_streaming.schema_version where version::text in ('1', '001')";
        assert!(bench.column(accepted).await[0].contains("at timestamptz"), "{table}");
        mend(&bench, Repair::Forget, "3").await;
        mend(&bench, Repair::MarkApplied, "3").await;
        mend(&bench, Repair::Forget, "3").await;
        bench.run(BY_HAND).await;
        std::fs::remove_file(bench.folder.path().join("004_StreamConfiguration.up.sql")).unwrap();
        std::fs::remove_file(bench.folder.path().join("004_StreamConfiguration.down.sql")).unwrap();
        let reverted =
            revert::revert(&bench.target(), &set(&bench).into(), &Goal::Steps(1), &bench.options, &bench.events).await;
        let reverted = reverted.unwrap_or_else(|error| panic!("{table}: {}", shown(&error)));
        assert_eq!(reverted.applied.len(), 1, "the way back is the recorded one: {table}");
        assert_eq!(bench.column("select to_regclass('stream_configurations')").await, ["NULL"], "{table}");
        assert_eq!(versions(&bench).await, ["1", "3"], "{table}");
    }
}

#[tokio::test]
async fn a_table_of_somebody_elses_that_cannot_be_added_to_is_said() {
    let bench = streaming().await;
    let role = format!("{}_migrator", bench.database.name);
    bench
        .run(&format!(
            "create role {role} login password 'x'; create schema event_streaming; grant all on schema event_streaming, \
             public to {role}; create table event_streaming.schema_version (version integer primary key, description \
             text); grant all on event_streaming.schema_version to {role}; grant create on database {} to {role}",
            bench.database.name
        ))
        .await;
    let mut target = bench.target();
    target.address = target.address.with_user(&role, Some("x".to_owned().into()));
    let error = run::migrate(&target, &set(&bench).into(), &bench.options, &bench.events).await.unwrap_err();
    let text = shown(&error);
    assert!(
        text.contains("cannot make the history") && text.contains("must be owner of table schema_version"),
        "{text}"
    );
    assert_eq!(bench.column("select to_regclass('events')").await, ["NULL"]);
    // The column names are what is missing; the version cannot be.
    bench.run("drop table event_streaming.schema_version; create table event_streaming.schema_version (id int)").await;
    let error = migrate_with(&bench, &bench.options).await.unwrap_err();
    assert!(shown(&error).contains("version does not exist"), "{}", shown(&error));
}
