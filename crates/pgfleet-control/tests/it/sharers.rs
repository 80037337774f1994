//! Tenants that have their data in one database: each is seeded there, with its own properties, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_control::rollouts::{Ask, Begun, RolloutState};
use pgfleet_control::tenants::{Choices, Home, NewTenant};

use crate::fleet::work;
use crate::life::{TWO, column, create, migration, own, seed, town};
use crate::support::{Admin, Town};
use crate::tenants::{silent, string};

/// Rolls out what is to be done; says whether something was.
async fn roll_out(town: &Town) -> bool {
    let mut solution = town.open().await;
    let options = solution.options().clone();
    let begun = Box::pin(solution.begin_rollout(&Ask::default(), &options, &silent())).await.unwrap();
    if matches!(begun, Begun::Current(_)) {
        return false;
    }
    let ended = work(&Arc::new(solution), begun).await.unwrap().unwrap();
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Done, 0), "{ended:?}");
    true
}

fn with_email(new: NewTenant, email: &str) -> NewTenant {
    NewTenant { properties: BTreeMap::from([("admin_email".to_owned(), email.to_owned().into())]), ..new }
}

async fn rows(town: &Town, database: &str) -> Vec<String> {
    column(&town.superuser(database).await, "select name from trips.things order by name").await
}

#[tokio::test]
async fn each_tenant_of_a_database_is_seeded_once_with_its_own_properties() {
    let town = town(15, Admin::Superuser, TWO).await;
    let properties = "[seeds.properties]\nadmin_email = \"host\"\n";
    town.manifest(&format!("{TWO}{properties}"));
    seed(&town, "trip", "3_admin.sql", "insert into things (name) values (:'tenant' || ' ' || :'admin_email')");
    seed(&town, "trip", "4_all.sql", "insert into things (name) values ('for all')");
    let solution = town.open().await;
    let made = create(&solution, with_email(own("bolt"), "b@example.org")).await.unwrap();
    let bolt = made.tenant.databases[0].database.clone();
    // Two more come to it, of which one has no properties of its own, and one a name before the first.
    let shared = Choices { check: true, shared: true };
    let home = Home::Shared;
    create(&solution, with_email(NewTenant { home, ..own("acme") }, "a@example.org")).await.unwrap();
    solution.set_connection("acme", string("", format!("dbname={bolt}")), shared, &silent()).await.unwrap();
    solution.create_tenant("core", None, &[string("", format!("dbname={bolt}"))], shared, &silent()).await.unwrap();
    assert!(roll_out(&town).await, "they are not seeded there");
    let whole = ["acme", "acme a@example.org", "bolt", "bolt b@example.org", "core", "core host", "for all"];
    assert_eq!(rows(&town, &bolt).await, whole);
    assert!(!roll_out(&town).await);
    // Whoever does it, and whatever is migrated: nothing runs twice.
    migration(&town, "trip", "2_more.sql", "alter table things add column more int");
    assert!(roll_out(&town).await);
    let solution = town.open().await;
    let options = solution.options().clone();
    for tenant in ["acme", "bolt", "core"] {
        for report in solution.migrate_tenant(tenant, &options, 1, &silent()).await.unwrap() {
            let done = report.result.unwrap();
            assert!(done.seeded.is_empty(), "{tenant}: {done:?}");
        }
    }
    assert_eq!(rows(&town, &bolt).await, whole);
    // A seed that is new runs for each, by hand of one of them, too.
    seed(&town, "trip", "5_new.sql", "insert into things (name) values ('new ' || :'tenant')");
    let solution = town.open().await;
    let reports = solution.migrate_tenant("core", &options, 1, &silent()).await.unwrap();
    let mut seeded: Vec<String> = reports.into_iter().flat_map(|report| report.result.unwrap().seeded).collect();
    seeded.sort();
    assert_eq!(seeded.len(), 3, "{seeded:?}");
    let new = "select name from trips.things where name like 'new %' order by name";
    assert_eq!(column(&town.superuser(&bolt).await, new).await, ["new acme", "new bolt", "new core"]);
    // Always means each of them, each time.
    town.manifest(&format!("{TWO}{properties}[tenants]\nalways_seed = true\n"));
    assert!(roll_out(&town).await);
    assert_eq!(column(&town.superuser(&bolt).await, new).await.len(), 6);
}

#[tokio::test]
async fn a_look_counts_the_seeds_of_each_tenant_of_a_database() {
    let town = town(15, Admin::Superuser, TWO).await;
    seed(&town, "trip", "3_admin.sql", "insert into things (name) values ('admin of ' || :'tenant')");
    let solution = town.open().await;
    let made = create(&solution, own("bolt")).await.unwrap();
    let bolt = made.tenant.databases[0].database.clone();
    let shared = Choices { check: true, shared: true };
    for tenant in ["acme", "core"] {
        solution.create_tenant(tenant, None, &[string("", format!("dbname={bolt}"))], shared, &silent()).await.unwrap();
    }
    let look = async || {
        let solution = Arc::new(town.open().await);
        let options = solution.options().clone();
        solution.look_at_tenants(&Ask::default(), &options, &silent()).await.unwrap()
    };
    assert!(roll_out(&town).await);
    let looked = look().await;
    assert_eq!((looked.pending, looked.blocked), (0, 0), "{looked:?}");
    seed(&town, "trip", "5_new.sql", "insert into things (name) values ('new ' || :'tenant')");
    let looked = look().await;
    assert_eq!((looked.pending, looked.blocked), (3, 0), "{looked:?}");
    for tenant in ["acme", "bolt", "core"] {
        let of_it = |text: &&String| text.contains(&format!("/{tenant}: 0 pending, 1 to seed"));
        assert_eq!(looked.findings.iter().filter(of_it).count(), 1, "{looked:?}");
    }
    // A look changes nothing.
    let new = "select name from trips.things where name like 'new %' order by name";
    assert!(column(&town.superuser(&bolt).await, new).await.is_empty());
    assert!(roll_out(&town).await);
    assert_eq!(column(&town.superuser(&bolt).await, new).await, ["new acme", "new bolt", "new core"]);
    assert_eq!(look().await.pending, 0);
}

#[tokio::test]
async fn tenants_without_a_database_are_each_seeded_in_the_services_own() {
    let town = town(15, Admin::Superuser, TWO).await;
    let properties = "[seeds.properties]\nadmin_email = \"host\"\n";
    town.manifest(&format!("{TWO}{properties}"));
    seed(&town, "trip", "3_admin.sql", "insert into things (name) values (:'tenant' || ' ' || :'admin_email')");
    town.migrate().await;
    let solution = town.open().await;
    for (name, email) in [("acme", "a@example.org"), ("bolt", "b@example.org")] {
        create(&solution, with_email(NewTenant { home: Home::Shared, ..own(name) }, email)).await.unwrap();
    }
    let control = &solution.manifest.control;
    let catalogue =
        pgfleet_control::catalogue::Catalogue::open(&solution.server("main").admin, &control.database).await.unwrap();
    let options = solution.options().clone();
    let named: (&[String], &[String]) = (&[], &[]);
    let seeded = solution.seed_guests(&catalogue, named, &options, &silent()).await.unwrap();
    assert!(seeded.iter().all(|guest| guest.report.result.is_ok()), "{seeded:?}");
    let found = rows(&town, &town.service("trip")).await;
    assert_eq!(found, ["", " host", "acme", "acme a@example.org", "bolt", "bolt b@example.org"]);
    assert!(solution.seed_guests(&catalogue, named, &options, &silent()).await.unwrap().is_empty());
    let always = pgfleet_migrate::Options { always_seed: true, ..options };
    solution.seed_guests(&catalogue, named, &always, &silent()).await.unwrap();
    assert_eq!(rows(&town, &town.service("trip")).await.len(), 10, "each of the two once more");
}
