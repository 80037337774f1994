//! The life of a tenant: its databases are made, seeded and opened, and taken up again after a death.

use std::collections::BTreeMap;

use pgfleet_control::roles::Login;
use pgfleet_control::tenants::{Done, Home, NewTenant, TenantState};
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
    let named = format!("select datname from pg_database where datname like '%{}%'", name.replace('-', "\\_"));
    let named: Vec<String> = column(&postgres, &named).await;
    let ours: Vec<&String> = named.iter().filter(|database| database.starts_with(&town.anchor.name)).collect();
    assert_eq!(ours, [database]);
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
