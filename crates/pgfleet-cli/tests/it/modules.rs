//! Modules in a solution: sets of their own in a service's database.

use crate::support::Solution;

/// A solution whose service `trip` has the module `identity`, in a schema of its own.
async fn with_module() -> Solution {
    let solution = Solution::new().await;
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    solution.manifest(&format!(
        "[services.{trip}]\nmodules = [\"identity\", \"audit\"]\n\n[services.{user}]\n\n\
         [modules.identity]\nschema = \"identity\"\n"
    ));
    solution.folder.file("modules/identity/migrations/1_users.up.sql", "create table users (id int primary key);\n");
    solution.folder.file("modules/identity/migrations/1_users.down.sql", "drop table users;\n");
    solution.folder.file(
        "modules/identity/migrations/2_drivers.sql",
        format!("-- pgfleet: requires {trip}@1\ncreate view drivers as select id from public.trips;\n"),
    );
    solution
        .folder
        .file("modules/identity/seeds/1_admin.sql", "insert into identity.users values (1) on conflict do nothing;\n");
    solution
}

#[tokio::test]
async fn a_module_is_migrated_with_the_service_and_in_its_order() {
    let solution = with_module().await;
    let ran = solution.pgfleet("migrate --json").exits(0);
    ran.json();
    let note = format!("module `audit` of service `{}` has no migrations", solution.name("trip"));
    let ran = ran.says(&note);
    let trip = &ran.json()[0];
    let applied: Vec<_> = trip["applied"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
    assert_eq!(applied, ["identity/1_users", "1_trips", "identity/2_drivers"]);
    assert_eq!(trip["sets"][0]["to"], "2");
    assert_eq!(trip["seeded"][0], "identity/1_admin");
    assert_eq!(solution.column("trip", "select id from identity.users").await, ["1"]);
    let versions = "select version from pgfleet.identity_migrations order by 1";
    assert_eq!(solution.column("trip", versions).await, ["1", "2"]);
    solution.pgfleet("status --check").exits(0);
    solution
        .pgfleet("status --service {}_trip")
        .exits(0)
        .prints("identity/1_users")
        .prints("identity/2_drivers")
        .prints("1_trips");
    // What the service may read it can also learn about its schema.
    let readable = "select count(*) from pg_roles r where rolname = '{}_trip_app' \
         and has_schema_privilege(r.oid, 'pgfleet', 'usage') \
         and has_table_privilege(r.oid, 'pgfleet.identity_migrations', 'select') \
         and has_table_privilege(r.oid, 'pgfleet.{}_trip_migrations', 'select') \
         and not has_table_privilege(r.oid, 'pgfleet.identity_migrations', 'insert')";
    assert_eq!(solution.column("trip", readable).await, ["1"]);
}

#[tokio::test]
async fn a_set_can_be_chosen() {
    let solution = with_module().await;
    let left_out = format!("it requires {}@1, which this run leaves out", solution.name("trip"));
    solution.pgfleet("migrate --set identity").exits(1).says(&left_out);
    solution.pgfleet("migrate --set identity --to 1").exits(0).says("applied 1");
    solution.pgfleet("migrate").exits(0);
    solution.pgfleet("migrate --set oauth").exits(2).says("there is no set oauth");
    let ran = solution.pgfleet("revert --service {}_trip --set identity --steps 2").exits(1);
    ran.says("cannot revert 2_drivers").says("has no down script");
    solution.pgfleet("migration forget 2 --service {}_trip --set identity").exits(0);
    solution.pgfleet("revert --service {}_trip --set identity --steps 1").exits(0).says("reverted 1");
    assert_eq!(solution.column("trip", "select to_regclass('identity.users')").await, ["NULL"]);
    assert_eq!(solution.column("trip", "select count(*) from trips").await, ["1"]);
}

#[tokio::test]
async fn a_circle_is_refused_before_anything_runs() {
    let solution = with_module().await;
    let trip = solution.name("trip");
    solution.folder.file(
        &format!("services/{trip}/migrations/1_trips.up.sql"),
        "-- pgfleet: requires identity@2\ncreate table trips (id int primary key);\n",
    );
    solution
        .pgfleet("migrate")
        .exits(1)
        .says("requirements go round in a circle")
        .says(&format!("identity/2_drivers requires {trip}@1"))
        .says("1_trips requires identity@2")
        .says("hint: take one of the requirements away");
    let databases = "select count(*) from pg_database where datname = '{}_trip' and datallowconn";
    let made = solution.column("postgres", databases).await;
    if made == ["1"] {
        assert_eq!(solution.column("trip", "select to_regclass('trips')").await, ["NULL"]);
    }
}

#[tokio::test]
async fn what_runs_apply_is_in_the_control_database() {
    let solution = with_module().await;
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    solution.pgfleet("migrate").exits(0);
    let applied = "select target || ' ' || set_name || ' ' || coalesce(from_version, '-') || ' ' || to_version || ' ' \
                   || array_to_string(versions, ',') from control.applied order by announced_at, target, set_name";
    let expected = [format!("{trip} identity - 2 1,2"), format!("{trip} {trip} - 1 1"), format!("{user} {user} - 1 1")];
    let mut found = solution.column("control", applied).await;
    found.sort();
    assert_eq!(found, expected);
    // Known by where it is, not by name.
    let same = "select count(*) from control.applied a where database_oid = (select oid from pg_database where datname = a.database)";
    assert_eq!(solution.column("control", same).await, ["3"]);
    solution.pgfleet("migrate").exits(0);
    assert_eq!(solution.column("control", applied).await.len(), 3);

    // A crash between the work and the telling: the next look tells it.
    solution.column("trip", &format!("update pgfleet.\"{trip}_migrations\" set announced_at = null")).await;
    solution.column("control", &format!("delete from control.applied where set_name = '{trip}'")).await;
    solution.pgfleet("migrate").exits(0).says("nothing to do");
    assert_eq!(solution.column("control", applied).await.len(), 3);

    // A control database that cannot be written keeps nobody from migrating.
    solution.column("control", "drop table control.applied").await;
    solution.folder.file(&format!("services/{trip}/migrations/2_more.sql"), "select 1;\n");
    solution.pgfleet("migrate").exits(0).says("applied 1").says("not announced yet");
    let due = format!("select count(*) from pgfleet.\"{trip}_migrations\" where announced_at is null");
    assert_eq!(solution.column("trip", &due).await, ["1"]);
}
