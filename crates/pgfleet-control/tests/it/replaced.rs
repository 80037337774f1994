//! What becomes of a tenant's database when the tenant is given another string.

use pgfleet_control::Solution;
use pgfleet_control::tenants::{Choices, Done, Keep, Kind, Mending, TenantState};
use pgfleet_postgres::{Purpose, connect};

use crate::leaving::door;
use crate::life::{TWO, as_app, column, create, is_whole, own, town};
use crate::support::Admin;
use crate::tenants::{silent, string};

const UNSEEN: Choices = Choices { check: false, shared: false };

/// Gives the tenant acme a string.
async fn give(solution: &Solution, connection: &str, database: &str, choices: Choices) -> Done {
    let text = string(connection, format!("dbname={database}"));
    solution.set_connection("acme", text, choices, &silent()).await.unwrap_or_else(|error| panic!("{error:?}"))
}

/// State of each database that was made for a tenant, and whether it is to be dropped.
async fn states(solution: &Solution, tenant: &str) -> Vec<(String, String, bool)> {
    let tenant = solution.tenant(tenant).await.unwrap();
    tenant.databases.into_iter().map(|own| (own.database, own.state, own.drop_after.is_some())).collect()
}

async fn acme(solution: &Solution) -> String {
    create(solution, own("acme")).await.unwrap().tenant.databases[0].database.clone()
}

async fn replaced_and_back(major: u32, admin: Admin) {
    let town = town(major, admin, TWO).await;
    let solution = town.open().await;
    let acme = acme(&solution).await;
    let session = as_app(&solution, &town.service("trip"), &acme).await;
    session.execute_all("insert into trips.things (name) values ('mine')").await.unwrap();
    let given = town.database("given", None).await;
    let done = give(&solution, "", &given, Choices::default()).await;
    assert!(done.changed);
    let note = done.notes.iter().find(|note| note.contains("is closed")).unwrap_or_else(|| panic!("{:?}", done.notes));
    assert!(note.contains(&acme) && note.contains("pgfleet tenant restore acme"), "{note}");
    assert_eq!(door(&town, &acme).await, ["false"]);
    assert!(session.simple("select 1").await.is_err(), "the sessions are ended");
    assert_eq!(states(&solution, "acme").await, [(acme.clone(), "closed".to_owned(), true)]);
    assert_eq!(solution.tenant("acme").await.unwrap().state, TenantState::Active);
    assert!(solution.drop_due_databases().await.unwrap().is_empty(), "not before its time");
    let looking = Mending { dry_run: true, ..Mending::default() };
    assert!(solution.mend_tenants(looking, &silent()).await.unwrap().is_empty());
    // A string for what is closed says how it comes back, and so it does, with what was in it.
    let text = string("", format!("dbname={acme}"));
    let error = solution.set_connection("acme", text, Choices::default(), &silent()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("pgfleet tenant restore acme"), "{error:?}");
    let done = solution.restore_tenant("acme", &silent()).await.unwrap();
    assert!(done.changed && done.notes[0].contains(&format!("leads to {acme} on main again")), "{:?}", done.notes);
    assert_eq!(done.tenant.strings[0].physical.as_ref().unwrap().database, acme);
    assert_eq!(states(&solution, "acme").await, [(acme.clone(), "open".to_owned(), false)]);
    let session = as_app(&solution, &town.service("trip"), &acme).await;
    assert_eq!(column(&session, "select name from trips.things order by id").await, ["acme", "mine"]);
    assert!(!solution.restore_tenant("acme", &silent()).await.unwrap().changed);
    // What was given stays as it is.
    assert_eq!(door(&town, &given).await, ["true"]);
    // When its time has come it is dropped, and the tenant stays.
    give(&solution, "", &given, Choices::default()).await;
    let control = town.superuser(&town.service("control")).await;
    control.execute_all("update control.tenant_databases set drop_after = now()").await.unwrap();
    let dropped = solution.drop_due_databases().await.unwrap();
    assert_eq!((dropped.len(), dropped[0].error.as_deref()), (1, None), "{dropped:?}");
    assert!(door(&town, &acme).await.is_empty());
    let tenant = solution.tenant("acme").await.unwrap();
    assert_eq!((tenant.state, tenant.databases.len(), tenant.strings.len()), (TenantState::Active, 0, 1));
}

#[tokio::test]
async fn a_database_that_another_string_replaced_is_closed_and_comes_back() {
    Box::pin(replaced_and_back(15, Admin::Superuser)).await;
}

#[tokio::test]
async fn a_database_is_replaced_and_comes_back_without_a_superuser() {
    Box::pin(replaced_and_back(18, Admin::Creator)).await;
}

#[tokio::test]
async fn a_database_that_somebody_uses_stays_open() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let acme = acme(&solution).await;
    let given = town.database("given", None).await;
    let trip = town.service("trip");
    // The other service's data is there still.
    give(&solution, &trip, &given, Choices::default()).await;
    assert_eq!(
        (door(&town, &acme).await, states(&solution, "acme").await[0].1.as_str()),
        (vec!["true".to_owned()], "open")
    );
    // A string that nobody looked at may lead there.
    let done = give(&solution, "", &acme, UNSEEN).await;
    assert!(done.notes.iter().any(|note| note.contains("stays open")), "{:?}", done.notes);
    assert_eq!(door(&town, &acme).await, ["true"]);
    assert!(solution.mend_tenants(Mending::default(), &silent()).await.unwrap().is_empty());
    // Another tenant's leads there: it is the other's then.
    let shared = Choices { check: true, shared: true };
    solution.create_tenant("bolt", None, &[string("", format!("dbname={acme}"))], shared, &silent()).await.unwrap();
    let done = give(&solution, "", &given, Choices::default()).await;
    assert!(done.notes.iter().any(|note| note.contains("is tenant bolt's now")), "{:?}", done.notes);
    assert_eq!(door(&town, &acme).await, ["true"]);
    assert!(states(&solution, "acme").await.is_empty());
    assert_eq!(states(&solution, "bolt").await, [(acme.clone(), "open".to_owned(), false)]);
    // When the last string is taken away nobody uses it any more.
    let done = solution.unset_connection("bolt", "").await.unwrap();
    assert!(done.notes[0].contains("is closed"), "{:?}", done.notes);
    assert_eq!(door(&town, &acme).await, ["false"]);
}

#[tokio::test]
async fn what_a_process_left_that_died_in_between_is_closed() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let acme = acme(&solution).await;
    let given = town.database("given", None).await;
    give(&solution, "", &given, Choices::default()).await;
    let postgres = town.superuser("postgres").await;
    let open = format!("alter database {acme} allow_connections true");
    // As after the transaction and before the server was told.
    postgres.execute_all(&open).await.unwrap();
    let looking = Mending { dry_run: true, ..Mending::default() };
    let kinds = async |how| {
        let found = solution.mend_tenants(how, &silent()).await.unwrap();
        found.into_iter().map(|finding| (finding.kind, finding.subject, finding.done.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(kinds(looking).await, [(Kind::HalfClosed, acme.clone(), false)]);
    assert_eq!(kinds(Mending::default()).await, [(Kind::HalfClosed, acme.clone(), true)]);
    assert_eq!(door(&town, &acme).await, ["false"]);
    // As versions left it that forgot it.
    postgres.execute_all(&open).await.unwrap();
    let control = town.superuser(&town.service("control")).await;
    let forgotten = "update control.tenant_databases set state = 'open', closed_at = null, drop_after = null";
    control.execute_all(forgotten).await.unwrap();
    assert_eq!(kinds(Mending::default()).await, [(Kind::UnledDatabase, acme.clone(), false)]);
    assert_eq!(door(&town, &acme).await, ["true"], "nobody has decided");
    assert_eq!(kinds(Mending { close: true, ..Mending::default() }).await, [(Kind::UnledDatabase, acme.clone(), true)]);
    assert_eq!(states(&solution, "acme").await, [(acme.clone(), "closed".to_owned(), true)]);
    // Somebody died while leading the tenant back.
    control.execute_all("update control.tenant_databases set drop_after = null").await.unwrap();
    postgres.execute_all(&open).await.unwrap();
    assert_eq!(kinds(Mending::default()).await, [(Kind::HalfRestored, "acme".to_owned(), false)]);
    solution.restore_tenant("acme", &silent()).await.unwrap();
    is_whole(&town, &solution, "acme").await;
    assert!(kinds(looking).await.is_empty());
}

#[tokio::test]
async fn a_replaced_database_does_not_come_back_with_a_deleted_tenant() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let acme = acme(&solution).await;
    let given = town.database("given", None).await;
    give(&solution, "", &given, Choices::default()).await;
    solution.delete_tenant("acme", Keep::AsConfigured).await.unwrap();
    let done = solution.restore_tenant("acme", &silent()).await.unwrap();
    assert_eq!(done.tenant.strings[0].physical.as_ref().unwrap().database, given);
    assert_eq!(states(&solution, "acme").await, [(acme.clone(), "closed".to_owned(), true)]);
    assert_eq!(door(&town, &acme).await, ["false"]);
    let address =
        solution.address(solution.services(&[town.service("trip")]).unwrap()[0], pgfleet_control::roles::Login::App);
    assert!(connect(&address.unwrap().with_database(&acme), &Purpose::new("test")).await.is_err());
}
