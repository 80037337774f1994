//! Several sets in one database: order, requirements, histories.

use std::path::PathBuf;

use pgfleet_migrate::revert::{Goal, revert};
use pgfleet_migrate::{Error, Options, Outcome, Report, Seeds, Set, SetPath, State, run};

use crate::support::{Bench, shown};

/// A set of files that are in memory.
fn set(name: &str, files: &[(&str, &str)]) -> Set {
    let files = files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect();
    Set::from_files(name, &PathBuf::from(name), files, None).unwrap()
}

fn seeded(set: Set, files: &[(&str, &str)]) -> Set {
    let folder = PathBuf::from(&set.name).join("seeds");
    let seeds = Seeds::from_files(&folder, files.iter().copied(), std::collections::BTreeMap::new());
    set.with_seeds(seeds)
}

async fn migrate(bench: &Bench, path: &SetPath) -> Result<Report, Error> {
    migrate_with(bench, path, &bench.options).await
}

async fn migrate_with(bench: &Bench, path: &SetPath, options: &Options) -> Result<Report, Error> {
    run::migrate(&bench.target(), path, options, &bench.events).await
}

const APPLIED: &str = "select set || '/' || version from (\
     select 'identity' as set, version, applied_at from pgfleet.identity_migrations union all \
     select 'trip', version, applied_at from pgfleet.trip_migrations) a order by applied_at";

#[tokio::test]
async fn modules_come_first_each_with_its_own_history() {
    let bench = Bench::new().await;
    let identity = seeded(
        set("identity", &[("1_users.sql", "create table users (id int);"), ("2_b.sql", "select 1;")]),
        &[("1_admin.sql", "insert into users values (1);")],
    );
    let trip = seeded(
        set("trip", &[("1_trips.sql", "create table trips (u int); insert into trips select count(*) from users;")]),
        &[("1_first.sql", "insert into trips select count(*) from users;")],
    );
    let path = SetPath::new(vec![identity], trip).unwrap();
    let report = migrate(&bench, &path).await.unwrap();
    assert_eq!(report.applied, ["identity/1_users", "identity/2_b", "1_trips"]);
    assert_eq!(report.seeded, ["identity/1_admin", "1_first"]);
    assert_eq!((report.set.as_str(), report.to.as_deref()), ("trip", Some("1")));
    let versions: Vec<_> = report.sets.iter().map(|set| (set.set.as_str(), set.to.as_deref())).collect();
    assert_eq!(versions, [("identity", Some("2")), ("trip", Some("1"))]);
    assert_eq!(bench.column("select u from trips order by u").await, ["0", "1"]);
    assert_eq!(bench.column(APPLIED).await, ["identity/1", "identity/2", "trip/1"]);
    let again = migrate(&bench, &path).await.unwrap();
    assert_eq!((again.outcome, again.applied.len()), (Outcome::UpToDate, 0));
}

#[tokio::test]
async fn what_is_required_comes_first() {
    let bench = Bench::new().await;
    // The module's second migration builds on a table of the service.
    let identity = set(
        "identity",
        &[
            ("1_users.sql", "create table users (id int);"),
            ("2_drivers.sql", "-- pgfleet: requires trip@2\ncreate view drivers as select * from trips;"),
        ],
    );
    let trip = set(
        "trip",
        &[
            ("1_a.sql", "-- pgfleet: requires identity@1\ncreate table a as select * from users;"),
            ("2_trips.sql", "create table trips (id int);"),
            ("3_c.sql", "-- pgfleet: requires identity@2\ncreate view c as select * from drivers;"),
        ],
    );
    let path = SetPath::new(vec![identity], trip).unwrap();
    let report = migrate(&bench, &path).await.unwrap();
    let order = ["identity/1_users", "1_a", "2_trips", "identity/2_drivers", "3_c"];
    assert_eq!(report.applied, order);
    assert_eq!(bench.column(APPLIED).await, ["identity/1", "trip/1", "trip/2", "identity/2", "trip/3"]);
}

#[tokio::test]
async fn what_is_applied_already_counts_as_there() {
    let bench = Bench::new().await;
    let identity = || set("identity", &[("1_users.sql", "create table users (id int);")]);
    let before = SetPath::new(vec![identity()], set("trip", &[("1_a.sql", "select 1;")])).unwrap();
    migrate(&bench, &before).await.unwrap();
    let after = set(
        "trip",
        &[
            ("1_a.sql", "select 1;"),
            ("2_b.sql", "-- pgfleet: requires identity@1\n-- pgfleet: requires trip@1\nselect 2;"),
        ],
    );
    let report = migrate(&bench, &SetPath::new(vec![identity()], after).unwrap()).await.unwrap();
    assert_eq!(report.applied, ["2_b"]);
}

#[test]
fn circles_are_refused_and_shown() {
    let identity = set("identity", &[("1_a.sql", "-- pgfleet: requires trip@1\nselect 1;")]);
    let trip = set("trip", &[("1_b.sql", "-- pgfleet: requires identity@1\nselect 1;")]);
    let text = shown(&SetPath::new(vec![identity], trip).unwrap_err());
    assert_eq!(
        text,
        "cannot bring identity/1_a into an order with the other sets of trip\n\
         cause: requirements go round in a circle\n\
         cause: identity/1_a requires trip@1\n\
         cause: 1_b requires identity@1\n\
         at: 1_a.sql:1:1: -- pgfleet: requires trip@1\n\
         hint: take one of the requirements away\n"
    );
}

#[test]
fn what_nothing_can_fulfil_is_refused() {
    let with = |requires: &str| {
        let trip = set("trip", &[("1_a.sql", &format!("-- pgfleet: requires {requires}\nselect 1;"))]);
        shown(&SetPath::new(vec![set("identity", &[("1_x.sql", "select 1;")])], trip).unwrap_err())
    };
    assert!(with("oauth@1").contains("it requires oauth@1, which is not in this path"), "{}", with("oauth@1"));
    assert!(with("identity@2").contains("identity has no such migration"), "{}", with("identity@2"));
    // Of its own set only what comes before can be there.
    assert!(with("trip@1").contains("go round in a circle"), "{}", with("trip@1"));
}

#[test]
fn two_sets_cannot_share_a_name_or_a_history() {
    let one = || set("identity", &[("1_x.sql", "select 1;")]);
    let text = shown(&SetPath::new(vec![one()], one()).unwrap_err());
    assert!(text.contains("two sets of the path are called identity"), "{text}");
    let mut other = set("trip", &[]);
    other.history = one().history;
    let text = shown(&SetPath::new(vec![one()], other).unwrap_err());
    assert!(text.contains("identity has the same history"), "{text}");
}

#[tokio::test]
async fn a_bound_speaks_of_one_set_and_says_what_it_leaves_out() {
    let bench = Bench::new().await;
    let path = || {
        let identity = set(
            "identity",
            &[("1_users.sql", "create table users (id int);"), ("2_b.sql", "-- pgfleet: requires trip@2\nselect 1;")],
        );
        let trip = set("trip", &[("1_a.sql", "select 1;"), ("2_b.sql", "select 2;")]);
        SetPath::new(vec![identity], trip).unwrap()
    };
    let to = Options { to: Some("1".parse().unwrap()), ..bench.options.clone() };
    let text = shown(&migrate_with(&bench, &path(), &to).await.unwrap_err());
    assert!(text.contains("cannot apply identity/2_b to trip"), "{text}");
    assert!(text.contains("it requires trip@2, which this run leaves out"), "{text}");
    let only = Options { set: Some("identity".to_owned()), to: Some("1".parse().unwrap()), ..bench.options.clone() };
    assert_eq!(migrate_with(&bench, &path(), &only).await.unwrap().applied, ["identity/1_users"]);
    let own = Options { set: Some("trip".to_owned()), ..bench.options.clone() };
    assert_eq!(migrate_with(&bench, &path(), &own).await.unwrap().applied, ["1_a", "2_b"]);
    assert_eq!(migrate(&bench, &path()).await.unwrap().applied, ["identity/2_b"]);
    let unknown = Options { set: Some("oauth".to_owned()), ..bench.options.clone() };
    let text = shown(&migrate_with(&bench, &path(), &unknown).await.unwrap_err());
    assert!(text.contains("its path has no set oauth") && text.contains("identity, trip"), "{text}");
}

#[tokio::test]
async fn a_failure_in_one_set_leaves_those_before_it() {
    let bench = Bench::new().await;
    let identity = set("identity", &[("1_users.sql", "create table users (id int);"), ("2_b.sql", "select 1/0;")]);
    let path = SetPath::new(vec![identity], set("trip", &[("1_a.sql", "select 1;")])).unwrap();
    let text = shown(&migrate(&bench, &path).await.unwrap_err());
    assert!(text.starts_with("cannot apply identity/2_b to trip\n"), "{text}");
    assert_eq!(bench.column("select set_name || version from pgfleet.attempts").await, ["identity2"]);
    let look = run::looking(&bench.options);
    let report = migrate_with(&bench, &path, &look).await.unwrap();
    let states: Vec<_> = report.entries.iter().map(|entry| (entry.label(), entry.state)).collect();
    assert_eq!(
        states,
        [
            ("identity/1_users".to_owned(), State::Applied),
            ("identity/2_b".to_owned(), State::Pending),
            ("1_a".to_owned(), State::Pending),
        ]
    );
}

#[tokio::test]
async fn a_set_can_have_a_schema_of_its_own() {
    let bench = Bench::new().await;
    let mut identity = set(
        "identity",
        &[
            ("1_users.sql", "create table users (id int);"),
            ("2_index.sql", "-- pgfleet: no-transaction\ncreate index concurrently users_id on users (id);"),
            ("3_serializable.sql", "set transaction isolation level serializable; create table roles (id int);"),
        ],
    );
    identity.schema = Some("Identity X".to_owned());
    let path = SetPath::new(vec![identity], set("trip", &[("1_users.sql", "create table users (id text);")])).unwrap();
    migrate(&bench, &path).await.unwrap();
    let tables = bench
        .column("select schemaname || '.' || tablename from pg_tables where tablename in ('users', 'roles') order by 1")
        .await;
    assert_eq!(tables, ["Identity X.roles", "Identity X.users", "public.users"]);
    assert_eq!(bench.column("select schemaname from pg_indexes where indexname = 'users_id'").await, ["Identity X"]);
}

#[tokio::test]
async fn what_another_set_requires_is_not_taken_back() {
    let bench = Bench::new().await;
    let identity = set(
        "identity",
        &[("1_users.up.sql", "create table users (id int);"), ("1_users.down.sql", "drop table users;")],
    );
    let trip = set(
        "trip",
        &[
            ("1_a.up.sql", "-- pgfleet: requires identity@1\ncreate view a as select * from users;"),
            ("1_a.down.sql", "drop view a;"),
        ],
    );
    let path = SetPath::new(vec![identity], trip).unwrap();
    migrate(&bench, &path).await.unwrap();
    let of_identity = Options { set: Some("identity".to_owned()), ..bench.options.clone() };
    let back = async |options: &Options| revert(&bench.target(), &path, &Goal::Steps(1), options, &bench.events).await;
    let text = shown(&back(&of_identity).await.unwrap_err());
    assert!(text.contains("trip/1_a is applied and requires it; nothing was reverted"), "{text}");
    assert_eq!(back(&bench.options).await.unwrap().applied, ["1_a"]);
    assert_eq!(back(&of_identity).await.unwrap().applied, ["identity/1_users"]);
}
