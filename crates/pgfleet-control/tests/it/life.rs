//! The life of a tenant: its databases are made, seeded and opened, and taken up again after a death.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgfleet_control::roles::Login;
use pgfleet_control::tenants::{Done, Home, Keep, NewTenant, TenantState};
use pgfleet_control::{Error, Solution};
use pgfleet_postgres::{Connection, Purpose, connect};

use crate::support::{Admin, Town};
use crate::tenants::silent;

pub(crate) const TWO: &str = "[services.{}_trip]\ntenants = \"own\"\nschema = \"trips\"\n\
                   [services.{}_user]\ntenants = \"own\"\nschema = \"users\"\n";

pub(crate) async fn town(major: u32, admin: Admin, sections: &str) -> Town {
    let town = Town::new(major, admin).await;
    town.manifest(sections);
    for short in ["trip", "user"] {
        seed(&town, short, "2_who.sql", "insert into things (name) values (:'tenant');");
    }
    town.provision().await;
    town
}

pub(crate) fn seed(town: &Town, short: &str, name: &str, sql: &str) {
    let folder = town.folder.path().join("services").join(town.service(short)).join("seeds");
    std::fs::write(folder.join(name), sql).unwrap();
}

pub(crate) fn migration(town: &Town, short: &str, name: &str, sql: &str) {
    let folder = town.folder.path().join("services").join(town.service(short)).join("migrations");
    std::fs::write(folder.join(name), sql).unwrap();
}

/// A tenant in databases of its own for all services.
pub(crate) fn own(name: &str) -> NewTenant {
    NewTenant {
        name: name.to_owned(),
        display_name: None,
        properties: BTreeMap::new(),
        home: Home::Own { services: Vec::new(), server: None },
    }
}

pub(crate) async fn create(solution: &Solution, new: NewTenant) -> Result<Done, Error> {
    solution.create_tenants(&[new], 1, &silent(), &|_, _| ()).await?.pop().unwrap()
}

pub(crate) fn told(error: &Error) -> String {
    format!("{error} | {} | {}", error.causes().join(" | "), error.hint().unwrap_or_default())
}

/// Connects as a service's application where its string leads.
pub(crate) async fn as_app(solution: &Solution, service: &str, database: &str) -> Connection {
    let service = solution.services(&[service.to_owned()]).unwrap()[0];
    let address = solution.address(service, Login::App).unwrap().with_database(database);
    connect(&address, &Purpose::new("test")).await.unwrap()
}

pub(crate) async fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let rows = connection.simple(sql).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
}

/// Checks that a tenant is whole: one database, seeded once, active.
pub(crate) async fn is_whole(town: &Town, solution: &Solution, name: &str) {
    let tenant = solution.tenant(name).await.unwrap();
    assert_eq!((tenant.state, tenant.error), (TenantState::Active, None));
    assert_eq!(tenant.databases.len(), 1, "{:?}", tenant.databases);
    let database = &tenant.databases[0].database;
    assert_eq!((tenant.databases[0].state.as_str(), tenant.strings.len()), ("open", 1));
    for (short, schema) in [("trip", "trips"), ("user", "users")] {
        let session = as_app(solution, &town.service(short), database).await;
        assert_eq!(column(&session, &format!("select name from {schema}.things")).await, [name], "one set of seeds");
        session.close().await;
    }
    let postgres = town.superuser("postgres").await;
    let all = format!("select datname from pg_database where starts_with(datname, '{}')", town.anchor.name);
    let end = format!("_{}", name.replace('-', "_"));
    let named: Vec<String> = column(&postgres, &all).await.into_iter().filter(|other| other.ends_with(&end)).collect();
    assert_eq!(named, [database.as_str()]);
    let states: Vec<&str> = tenant.standings.iter().map(|standing| standing.state.word()).collect();
    assert_eq!(states, ["current", "current"]);
}

async fn made(major: u32, admin: Admin) {
    let town = town(major, admin, TWO).await;
    let solution = town.open().await;
    let done = create(&solution, own("acme-2")).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(done.changed);
    assert_eq!(done.tenant.databases[0].database, town.service("acme_2"));
    let string = &done.tenant.strings[0];
    assert_eq!((string.connection.as_str(), string.server.as_str()), ("", "main"));
    assert_eq!(string.readers, [town.service("trip"), town.service("user")]);
    assert_eq!(string.shown, format!("postgresql://127.0.0.1:{}/{}", town.server.port(), town.service("acme_2")));
    is_whole(&town, &town.open().await, "acme-2").await;
    let error = create(&solution, own("acme-2")).await.unwrap_err();
    assert!(told(&error).contains("there is a tenant acme-2 already"), "{}", told(&error));
    // Going on with what needs nothing changes nothing.
    assert!(!solution.go_on_with_tenant("acme-2", &silent()).await.unwrap().changed);
}

#[tokio::test]
async fn a_tenant_gets_a_database_of_its_own() {
    made(15, Admin::Superuser).await;
}

#[tokio::test]
async fn a_tenant_gets_a_database_without_a_superuser() {
    made(18, Admin::Creator).await;
}

/// Stops making tenants at points all over the way, the making of the template included, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_leaves_a_tenant_that_is_gone_on_with() {
    let town = town(15, Admin::Superuser, TWO).await;
    let mut whole = Duration::from_millis(1_500);
    for number in 0..20u32 {
        let name = format!("t-{number:02}");
        let solution = town.open().await;
        let began = Instant::now();
        let stopped = tokio::time::timeout(whole * (number % 10 + 1) / 10, create(&solution, own(&name))).await;
        drop(solution);
        let solution = town.open().await;
        match stopped {
            Ok(done) => drop(done.unwrap_or_else(|error| panic!("{}", told(&error)))),
            // By the same command, or by whoever goes on with what he finds.
            Err(_) if number % 2 == 0 => {
                // One that was stopped when all was done is there already.
                if let Err(error) = create(&solution, own(&name)).await {
                    assert!(told(&error).contains("there is a tenant"), "{name}: {}", told(&error));
                }
            }
            Err(_) => {
                // Nothing is there of one that was stopped before it was written down.
                if solution.tenant(&name).await.is_err() {
                    create(&solution, own(&name)).await.unwrap();
                }
                solution.go_on_with_tenant(&name, &silent()).await.unwrap();
            }
        }
        is_whole(&town, &solution, &name).await;
        if number == 0 {
            // With the template there it goes faster; stop where it still has something to do.
            let began = Instant::now();
            create(&solution, own("pace")).await.unwrap();
            whole = began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{name} took too long");
    }
}

#[tokio::test]
async fn many_are_made_at_a_time_and_one_failure_stops_none() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let mut names: Vec<String> = (0..9).map(|number| format!("t-{number}")).collect();
    names.insert(4, "Wrong".to_owned());
    let tenants: Vec<NewTenant> = names.iter().map(|name| own(name)).collect();
    let told = std::sync::Mutex::new(Vec::new());
    let each = |at: usize, done: &Result<Done, Error>| told.lock().unwrap().push((at, done.is_ok()));
    let made = solution.create_tenants(&tenants, 4, &silent(), &each).await.unwrap();
    let mut told = told.into_inner().unwrap();
    told.sort_unstable();
    assert_eq!(told, (0..10).map(|at| (at, at != 4)).collect::<Vec<_>>());
    assert!(made[4].as_ref().unwrap_err().to_string().contains("write wrong"));
    for (name, done) in names.iter().zip(&made).filter(|(name, _)| *name != "Wrong") {
        assert_eq!(done.as_ref().unwrap().tenant.name, *name);
        is_whole(&town, &solution, name).await;
    }
    assert_eq!(solution.templates().await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_several_at_once_one_makes_the_tenant() {
    let town = town(15, Admin::Superuser, TWO).await;
    let mut solutions = Vec::new();
    for _ in 0..4 {
        solutions.push(town.open().await);
    }
    let ended = futures_util::future::join_all(solutions.iter().map(|solution| create(solution, own("acme")))).await;
    assert_eq!(ended.iter().filter(|done| done.is_ok()).count(), 1);
    for error in ended.iter().filter_map(|done| done.as_ref().err()) {
        assert!(told(error).contains("there is a tenant acme already"), "{}", told(error));
    }
    is_whole(&town, &solutions[0], "acme").await;
}

#[tokio::test]
async fn a_seed_that_fails_leaves_a_tenant_that_says_why() {
    let town = town(15, Admin::Superuser, TWO).await;
    seed(&town, "user", "3_admin.sql", "insert into things (name) values (:'admin_email')");
    seed(&town, "trip", "3_secret.sql", "insert into things (name) values (:'admin_password')");
    town.manifest(&format!("{TWO}[seeds.properties]\nadmin_email = \"host@example.org\"\nadmin_password = \"x\"\n"));
    let solution = town.open().await;
    let with = |email: &str, password: &str| {
        let properties = [("admin_email", email), ("admin_password", password)];
        let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned().into()));
        NewTenant { properties: properties.collect(), ..own("acme") }
    };
    seed(&town, "user", "4_bad.sql", "insert into nothing values (1)");
    let error = create(&solution, with("a@acme.example", "s3cret")).await.unwrap_err();
    assert!(told(&error).contains("cannot migrate and seed"), "{}", told(&error));
    let tenant = solution.tenant("acme").await.unwrap();
    assert_eq!((tenant.state, tenant.attempts, tenant.strings.len()), (TenantState::Failed, 1, 0));
    assert!(tenant.error.unwrap().contains("relation \"nothing\" does not exist"));
    assert_eq!(tenant.properties, ["admin_email", "admin_password"]);
    // Another request is refused, the same one goes on.
    seed(&town, "user", "4_bad.sql", "select 1");
    let solution = town.open().await;
    for (other, what) in [
        (with("b@acme.example", "s3cret"), "another value of admin_email"),
        (with("a@acme.example", "other"), "another value of admin_password"),
        (NewTenant { display_name: Some("Acme".to_owned()), ..own("acme") }, "another display name"),
        (
            NewTenant { home: Home::Own { services: vec![town.service("trip")], server: None }, ..own("acme") },
            "databases for other services",
        ),
    ] {
        let error = create(&solution, other).await.unwrap_err();
        assert!(told(&error).contains(what), "{what}: {}", told(&error));
    }
    let tenant = create(&solution, with("a@acme.example", "s3cret")).await.unwrap().tenant;
    assert_eq!((tenant.state, tenant.error, tenant.attempts), (TenantState::Active, None, 1));
    let database = &tenant.databases[0].database;
    let user = as_app(&solution, &town.service("user"), database).await;
    assert_eq!(column(&user, "select name from users.things order by id").await, ["acme", "a@acme.example"]);
    let trip = as_app(&solution, &town.service("trip"), database).await;
    let names = column(&trip, "select name from trips.things order by id").await;
    assert!(names[1].starts_with("$argon2id$"), "{names:?}");
    // Nowhere in clear.
    let control = town.superuser(&town.service("control")).await;
    let stored = column(&control, "select t::text from control.tenant_properties t").await.join(" ");
    assert!(stored.contains("admin_email") && !stored.contains("acme.example"), "{stored}");
}

#[tokio::test]
async fn a_service_may_have_a_database_of_its_own_and_the_others_none() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let home = Home::Own { services: vec![trip.clone()], server: Some("main".to_owned()) };
    let tenant = create(&solution, NewTenant { home, ..own("acme") }).await.unwrap().tenant;
    assert_eq!(tenant.databases[0].database, format!("{trip}_acme"));
    assert_eq!(tenant.strings.iter().map(|string| string.connection.as_str()).collect::<Vec<_>>(), [trip.as_str()]);
    let home = |services: &str, server: &str| Home::Own {
        services: vec![services.to_owned()],
        server: Some(server.to_owned()),
    };
    let error = create(&solution, NewTenant { home: home(&trip, "db2"), ..own("b") }).await.unwrap_err();
    assert!(told(&error).contains("server `db2` holds no tenants' databases"), "{}", told(&error));
    assert!(solution.tenant("b").await.is_err(), "nothing is stored");
    // One database for each service.
    town.manifest(&format!("{TWO}[tenants]\ndatabases = \"per-service\"\n"));
    let solution = town.open().await;
    let tenant = create(&solution, own("globex")).await.unwrap().tenant;
    let names: Vec<&str> = tenant.databases.iter().map(|own| own.database.as_str()).collect();
    assert_eq!(names, [format!("{trip}_globex"), format!("{user}_globex")]);
    assert_eq!(solution.templates().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_database_of_somebody_else_is_left_alone() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let mine = town.database("acme", None).await;
    let error = create(&solution, own("acme")).await.unwrap_err();
    assert!(told(&error).contains(&format!("there is a database {mine}")), "{}", told(&error));
    assert_eq!(solution.tenant("acme").await.unwrap().state, TenantState::Failed);
    let removed = solution.delete_tenant("acme", Keep::Not).await.unwrap();
    assert!(removed.gone && removed.dropped.is_empty(), "{removed:?}");
    assert!(removed.left[0].contains("is not ours"), "{removed:?}");
    town.superuser(&mine).await.close().await;
    // A closed one that is not ours neither, though nobody marked it.
    let postgres = town.superuser("postgres").await;
    let role = format!("{}_stranger", town.anchor.name);
    postgres
        .execute_all(&format!(
            "create role {role}; alter database {mine} owner to {role}; alter database {mine} allow_connections false"
        ))
        .await
        .unwrap();
    assert!(create(&solution, own("acme")).await.is_err());
    assert!(solution.delete_tenant("acme", Keep::Not).await.unwrap().gone);
    assert_eq!(column(&postgres, &format!("select datname from pg_database where datname = '{mine}'")).await, [mine]);
}

#[tokio::test]
async fn a_tenant_that_is_made_while_files_change_is_never_old() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    create(&solution, own("first")).await.unwrap();
    // Somebody else brings the template to new files after ours were read.
    let plans = solution.plans(&[], &silent()).await.unwrap();
    drop(plans);
    migration(&town, "trip", "2_more.sql", "alter table things add column more int");
    let other = town.open().await;
    create(&other, own("second")).await.unwrap();
    let tenant = solution.tenant("first").await.unwrap();
    let behind: Vec<&str> = tenant.standings.iter().map(|standing| standing.state.word()).collect();
    assert_eq!(behind, ["behind", "current"], "what is remembered of other files counts as behind");
    let options = solution.options().clone();
    let reports = solution.migrate_tenant("first", &options, 4, &silent()).await.unwrap();
    assert_eq!(reports.iter().map(|report| report.state().word()).collect::<Vec<_>>(), ["current", "current"]);
    let applied: Vec<usize> = reports.iter().map(|report| report.result.as_ref().unwrap().applied.len()).collect();
    assert_eq!(applied, [1, 0]);
    is_whole(&town, &solution, "first").await;
    is_whole(&town, &solution, "second").await;
}
