//! How tenants leave and come back, and what is found and mended behind everybody's back.

use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::tenants::{Choices, Finding, Keep, Kind, Mending, TenantState};
use pgfleet_postgres::{Purpose, connect, quote_ident};

use crate::life::{TWO, as_app, column, create, is_whole, migration, own, told, town};
use crate::support::{Admin, Town};
use crate::tenants::{silent, string};

/// Whether anybody can connect, and what the comment says; empty when there is no such database.
pub(crate) async fn door(town: &Town, database: &str) -> Vec<String> {
    let postgres = town.superuser("postgres").await;
    let sql = format!("select datallowconn::text from pg_database where datname = '{database}'");
    column(&postgres, &sql).await
}

async fn audit(town: &Town, tenant: &str) -> Vec<String> {
    let control = town.superuser(&town.service("control")).await;
    let sql = format!("select action from control.audit where subject = '{tenant}' order by id");
    column(&control, &sql).await
}

async fn leave_and_come_back(major: u32, admin: Admin) {
    let town = town(major, admin, TWO).await;
    let solution = town.open().await;
    let acme = create(&solution, own("acme")).await.unwrap().tenant.databases[0].database.clone();
    let service = solution.services(&[town.service("trip")]).unwrap()[0].clone();
    let address = solution.address(&service, pgfleet_control::roles::Login::App).unwrap().with_database(&acme);
    let session = connect(&address, &Purpose::new("test")).await.unwrap();
    session.execute_all("insert into trips.things (name) values ('mine')").await.unwrap();
    let removed = solution.delete_tenant("acme", Keep::AsConfigured).await.unwrap();
    assert_eq!((removed.closed.len(), removed.gone), (1, false), "{removed:?}");
    assert!(removed.drop_after.is_some());
    assert_eq!(door(&town, &acme).await, ["false"]);
    assert!(session.simple("select 1").await.is_err(), "the sessions are ended");
    let tenant = solution.tenant("acme").await.unwrap();
    assert_eq!((tenant.state, tenant.databases[0].state.as_str()), (TenantState::Quarantined, "closed"));
    let error = create(&solution, own("acme")).await.unwrap_err();
    assert!(told(&error).contains("pgfleet tenant restore acme"), "{}", told(&error));
    assert!(solution.drop_due_databases().await.unwrap().is_empty(), "not before its time");
    // It was away while the files changed.
    migration(&town, "trip", "2_more.sql", "alter table things add column more int");
    let solution = town.open().await;
    let done = solution.restore_tenant("acme", &silent()).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(done.tenant.state, TenantState::Active);
    assert!(!solution.restore_tenant("acme", &silent()).await.unwrap().changed);
    let session = as_app(&solution, &town.service("trip"), &acme).await;
    let names = column(&session, "select name from trips.things where more is null order by id").await;
    assert_eq!(names, ["acme", "mine"], "nothing was lost, and it is at head");
    session.close().await;
    // For good.
    solution.delete_tenant("acme", Keep::For(Duration::from_hours(1))).await.unwrap();
    let removed = solution.delete_tenant("acme", Keep::Not).await.unwrap();
    assert_eq!((removed.dropped.len(), removed.gone), (1, true), "{removed:?}");
    assert!(door(&town, &acme).await.is_empty());
    assert!(solution.tenant("acme").await.is_err());
    create(&solution, own("acme")).await.unwrap();
    is_whole(&town, &solution, "acme").await;
    let said = audit(&town, "acme").await;
    assert_eq!(
        said,
        [
            "tenant create",
            "tenant active",
            "tenant delete",
            "tenant active",
            "tenant delete",
            "tenant drop",
            "tenant gone",
            "tenant create",
            "tenant active"
        ]
    );
}

#[tokio::test]
async fn a_tenant_leaves_and_comes_back() {
    Box::pin(leave_and_come_back(15, Admin::Superuser)).await;
}

#[tokio::test]
async fn a_tenant_leaves_and_comes_back_without_a_superuser() {
    Box::pin(leave_and_come_back(18, Admin::Creator)).await;
}

#[tokio::test]
async fn what_is_due_is_dropped_and_nothing_else() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let mut databases = Vec::new();
    for name in ["acme", "bolt", "core"] {
        databases.push(create(&solution, own(name)).await.unwrap().tenant.databases[0].database.clone());
    }
    solution.enable_tenant("acme", false).await.unwrap();
    for name in ["acme", "bolt"] {
        solution.delete_tenant(name, Keep::For(Duration::ZERO)).await.unwrap();
    }
    // Somebody has put another database in the place of one.
    let postgres = town.superuser("postgres").await;
    postgres.execute_all(&format!("drop database {}", databases[1])).await.unwrap();
    postgres.execute_all(&format!("create database {}", databases[1])).await.unwrap();
    let dropped = solution.drop_due_databases().await.unwrap();
    assert_eq!(dropped.len(), 2);
    let errors: Vec<bool> = dropped.iter().map(|dropped| dropped.error.is_some()).collect();
    assert_eq!(errors, [false, true], "{dropped:?}");
    assert!(dropped[1].error.as_ref().unwrap().contains("another database has taken its name"));
    assert!(door(&town, &databases[0]).await.is_empty());
    assert_eq!(door(&town, &databases[1]).await, ["true"]);
    assert_eq!(door(&town, &databases[2]).await, ["true"]);
    let names: Vec<String> = solution.tenants().await.unwrap().into_iter().map(|tenant| tenant.name).collect();
    assert_eq!(names, ["bolt", "core"]);
}

#[tokio::test]
async fn a_disabled_tenant_comes_back_disabled() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    create(&solution, own("acme")).await.unwrap();
    solution.enable_tenant("acme", false).await.unwrap();
    solution.delete_tenant("acme", Keep::AsConfigured).await.unwrap();
    let done = solution.restore_tenant("acme", &silent()).await.unwrap();
    assert_eq!(done.tenant.state, TenantState::Disabled);
}

#[tokio::test]
async fn what_was_given_or_is_shared_is_not_closed() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let acme = create(&solution, own("acme")).await.unwrap().tenant.databases[0].database.clone();
    let shared = Choices { check: true, shared: true };
    let theirs = [string("", format!("dbname={acme}"))];
    solution.create_tenant("bolt", None, &theirs, shared, &silent()).await.unwrap();
    let given = town.database("given", None).await;
    let mine = [string("", format!("dbname={given}"))];
    solution.create_tenant("core", None, &mine, Choices::default(), &silent()).await.unwrap();
    let removed = solution.delete_tenant("acme", Keep::Not).await.unwrap();
    assert!(removed.gone && removed.left[0].contains("is tenant bolt's, too"), "{removed:?}");
    assert_eq!(door(&town, &acme).await, ["true"]);
    let removed = solution.delete_tenant("core", Keep::Not).await.unwrap();
    assert!(removed.gone && removed.left[0].contains("was given by a string"), "{removed:?}");
    assert_eq!(door(&town, &given).await, ["true"]);
    // The other has it now, alone.
    assert_eq!(solution.tenant("bolt").await.unwrap().databases[0].database, acme);
    // A new one of the old name gets another database.
    let tenant = create(&solution, own("acme")).await.unwrap().tenant;
    assert_ne!(tenant.databases[0].database, acme);
    solution.delete_tenant("bolt", Keep::Not).await.unwrap();
    assert!(door(&town, &acme).await.is_empty());
}

async fn mend(solution: &Solution, how: Mending) -> Vec<Finding> {
    solution.mend_tenants(how, &silent()).await.unwrap()
}

fn of_kind(findings: &[Finding], kind: Kind) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.kind == kind).collect()
}

#[tokio::test]
async fn what_is_wrong_is_found_and_mended() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let postgres = town.superuser("postgres").await;
    let control = town.superuser(&town.service("control")).await;
    let mut databases = Vec::new();
    for name in ["acme", "bolt", "core", "dent", "even"] {
        databases.push(create(&solution, own(name)).await.unwrap().tenant.databases[0].database.clone());
    }
    let looking = Mending { dry_run: true, ..Mending::default() };
    assert!(mend(&solution, looking).await.is_empty(), "{:?}", mend(&solution, looking).await);
    // A half-made one; one whose database is gone; one that was renamed; one that nobody knows; one closed by hand.
    control.execute_all("update control.tenants set state = 'failed', error = 'x' where name = 'acme'").await.unwrap();
    postgres.execute_all(&format!("drop database {} with (force)", databases[1])).await.unwrap();
    postgres.execute_all(&format!("alter database {0} rename to {0}_x", databases[2])).await.unwrap();
    for table in ["tenant_databases where tenant", "targets where tenant", "tenants where name"] {
        control.execute_all(&format!("delete from control.{table} = 'dent'")).await.unwrap();
    }
    postgres.execute_all(&format!("alter database {} allow_connections false", databases[4])).await.unwrap();
    // Left of a template, and roles of a service that is gone.
    let template = solution.templates().await.unwrap()[0].database.clone();
    postgres.execute_all(&format!("create database {template}_next")).await.unwrap();
    let shape = [town.service("trip"), town.service("user")].join("+");
    let mark = format!("pgfleet: solution {}, template of {shape}", town.anchor.name);
    postgres.execute_all(&format!("comment on database {template}_next is '{mark}'")).await.unwrap();
    let role = format!("{}_old_owner", town.anchor.name);
    let comment = format!("pgfleet: solution {0}, service {0}_old", town.anchor.name);
    postgres.execute_all(&format!("create role {role}; comment on role {role} is '{comment}'")).await.unwrap();
    let own_it = format!("create table public.theirs (); alter table public.theirs owner to {role}");
    town.superuser(&databases[0]).await.execute_all(&own_it).await.unwrap();

    let found = mend(&solution, looking).await;
    let kinds: Vec<(Kind, &str)> = found.iter().map(|finding| (finding.kind, finding.subject.as_str())).collect();
    let (old, left) = (format!("{}_old", town.anchor.name), format!("{template}_next"));
    assert_eq!(
        kinds,
        [
            (Kind::HalfMade, "acme"),
            (Kind::MissingDatabase, databases[1].as_str()),
            (Kind::MissingDatabase, databases[2].as_str()),
            (Kind::ClosedDatabase, databases[4].as_str()),
            (Kind::DatabaseWithoutTenant, databases[3].as_str()),
            (Kind::RoleWithoutService, old.as_str()),
            (Kind::TemplateLeft, left.as_str()),
        ]
    );
    assert!(found.iter().all(|finding| finding.done.is_none() && finding.error.is_none()), "{found:?}");
    let mended = mend(&solution, Mending::default()).await;
    assert_eq!(of_kind(&mended, Kind::HalfMade)[0].done.as_deref(), Some("it is active now"));
    assert_eq!(of_kind(&mended, Kind::TemplateLeft)[0].done.as_deref(), Some("it is dropped"));
    // What may lose something is not touched; what is to be done can be pasted.
    assert_eq!(door(&town, &databases[3]).await, ["true"]);
    postgres.execute_all(&of_kind(&mended, Kind::MissingDatabase)[1].statements[0]).await.unwrap();
    postgres.execute_all(&of_kind(&mended, Kind::ClosedDatabase)[0].statements[0]).await.unwrap();
    let statements = &of_kind(&mended, Kind::RoleWithoutService)[0].statements;
    assert_eq!(statements[0], format!("\\connect {}", quote_ident(&databases[0])));
    town.superuser(&databases[0]).await.execute_all(&statements[1]).await.unwrap();
    postgres.execute_all(&statements[2]).await.unwrap();
    let closing = mend(&solution, Mending { close: true, make: true, ..Mending::default() }).await;
    assert_eq!(of_kind(&closing, Kind::DatabaseWithoutTenant)[0].done.as_deref(), Some("it is closed now"));
    assert_eq!(door(&town, &databases[3]).await, ["false"]);
    assert!(of_kind(&closing, Kind::MissingDatabase)[0].done.as_ref().unwrap().contains("made again"), "{closing:?}");
    is_whole(&town, &solution, "bolt").await;
    let dropping = mend(&solution, Mending { drop: true, ..Mending::default() }).await;
    assert_eq!(dropping.len(), 1, "{dropping:?}");
    assert!(door(&town, &databases[3]).await.is_empty());
    assert!(mend(&solution, looking).await.is_empty());
}
