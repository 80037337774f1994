//! Tenants: names, strings that are tried before they are stored, databases that are one.

use std::sync::Arc;

use pgfleet_control::tenants::{Choices, Done, NewString, TenantState};
use pgfleet_control::{Error, ErrorKind, Solution};
use pgfleet_migrate::Observer;
use pgfleet_migrate::event::Silent;

use crate::support::{Admin, Town};

const TWO: &str = "[services.{}_trip]\ntenants = \"own\"\n[services.{}_user]\ntenants = \"own\"\nschema = \"users\"\n\
                   [connections]\nRides = \"{}_trip\"\n";

pub(crate) fn silent() -> Arc<dyn Observer> {
    Arc::new(Silent)
}

/// Makes a string from `name=text`, or the default from text alone.
pub(crate) fn string(connection: &str, text: impl Into<String>) -> NewString {
    NewString { connection: connection.to_owned(), text: text.into().into() }
}

pub(crate) async fn create(solution: &Solution, name: &str, strings: &[NewString]) -> Result<Done, Error> {
    solution.create_tenant(name, None, strings, Choices::default(), &silent()).await
}

async fn town() -> Town {
    let town = Town::new(15, Admin::Superuser).await;
    town.manifest(TWO);
    town.provision().await;
    town
}

fn message(error: &Error) -> String {
    format!("{error} | {} | {}", error.causes().join(" | "), error.hint().unwrap_or_default())
}

#[tokio::test]
async fn a_tenant_is_made_listed_and_shown() {
    let town = town().await;
    let solution = town.open().await;
    assert!(solution.tenants().await.unwrap().is_empty());
    let acme = town.database("acme", None).await;
    let trip = town.service("trip");
    let done = create(&solution, "acme", &[string("", format!("dbname={acme}"))]).await.unwrap();
    assert!(done.changed);
    assert_eq!(done.tenant.state, TenantState::Active);
    let made = &done.tenant.strings[0];
    assert_eq!(made.shown, format!("postgresql://127.0.0.1:{}/{acme}", town.server.port()), "no role, no password");
    assert_eq!(made.physical.as_ref().unwrap().database, acme);
    assert_eq!(made.readers, [trip.clone(), town.service("user")]);
    // Nothing is applied there, and it says so.
    assert!(done.notes.iter().any(|note| note.contains("is behind: has nothing, needs")), "{:?}", done.notes);
    create(&solution, "globex", &[]).await.unwrap();
    let all = town.open().await.tenants().await.unwrap();
    assert_eq!(all.iter().map(|tenant| tenant.name.as_str()).collect::<Vec<_>>(), ["acme", "globex"]);
    let error = create(&solution, "acme", &[]).await.unwrap_err();
    assert!(
        message(&error).contains("there is a tenant acme already | | see it: pgfleet tenant show acme")
            || message(&error).contains("there is a tenant acme already"),
        "{}",
        message(&error)
    );
    let error = create(&solution, "Acme", &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("write acme")), (ErrorKind::Configuration, true));
    let error = solution.tenant("acmee").await.unwrap_err();
    assert_eq!(error.hint(), Some("did you mean `acme`?"));
    let control = town.superuser(&town.service("control")).await;
    let audit = control.simple("select subject from control.audit where action = 'tenant create' order by id").await;
    assert_eq!(audit.unwrap().iter().map(|row| row.get(0).unwrap()).collect::<Vec<_>>(), ["acme", "globex"]);
}

#[tokio::test]
async fn a_string_is_tried_before_it_is_stored() {
    let town = town().await;
    town.migrate().await;
    let solution = town.open().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let port = town.server.port();
    for (given, why) in [
        (string("", format!("dbname={trip}_nowhere")), "does not exist"),
        (string("", format!("dbname={trip}")), "the host database of service"),
        (string(&user, format!("dbname={trip}")), "the host database of service"),
        (string("", format!("dbname={}", town.service("control"))), "the control database"),
        (string("", "postgresql://127.0.0.1:1/acme"), "cannot connect"),
        (string("", format!("postgresql://nobody:x@127.0.0.1:{port}/postgres")), "must be able to log in"),
        (string("", "postgresql://[/"), "cannot be used"),
        (string("Ridez", "dbname=x"), "did you mean `Rides`"),
    ] {
        let error = create(&solution, "acme", &[given]).await.unwrap_err();
        assert!(message(&error).contains(why), "{why}: {}", message(&error));
        assert!(solution.tenants().await.unwrap().is_empty(), "{why}: nothing is stored");
    }
    // Not a role that may enter: the statement is named.
    let closed = town.database("closed", None).await;
    let postgres = town.superuser("postgres").await;
    postgres.execute_all(&format!("revoke connect on database {closed} from public")).await.unwrap();
    let error = create(&solution, "acme", &[string(&trip, format!("dbname={closed}"))]).await.unwrap_err();
    let hint = error.hint().unwrap();
    postgres.execute_all(hint.strip_prefix("as the database's owner: ").unwrap()).await.unwrap();
    create(&solution, "acme", &[string(&trip, format!("dbname={closed}"))]).await.unwrap();
    // Its own host database is where it would live without a string.
    create(&solution, "home", &[string(&trip, format!("dbname={trip}"))]).await.unwrap();
    let unseen = Choices { check: false, shared: false };
    let done = solution
        .create_tenant("later", None, &[string("", "postgresql://db.example.org/later")], unseen, &silent())
        .await
        .unwrap();
    assert_eq!(done.tenant.strings[0].shown, "postgresql://db.example.org:5432/later");
    assert_eq!(done.tenant.strings[0].physical, None);
}

#[tokio::test]
async fn a_database_that_is_where_it_should_be_gives_no_note() {
    let town = town().await;
    town.migrate().await;
    let trip = town.service("trip");
    let copy = town.database("copy", Some(&trip)).await;
    let solution = town.open().await;
    let done = create(&solution, "acme", &[string(&trip, format!("dbname={copy}"))]).await.unwrap();
    assert_eq!(done.notes, Vec::<String>::new());
    let file = town.folder.path().join("services").join(&trip).join("migrations/2_more.sql");
    std::fs::write(file, "create table more (id int)").unwrap();
    let done = solution
        .set_connection("acme", string(&trip, format!("dbname={copy}")), Choices::default(), &silent())
        .await
        .unwrap();
    assert!(!done.changed, "it is the same string");
    assert!(done.notes[0].contains("/acme is behind: has 1, needs 2_more (1 pending)"), "{:?}", done.notes);
}

#[tokio::test]
async fn two_strings_that_mean_one_database_are_one() {
    let town = town().await;
    let solution = town.open().await;
    let acme = town.database("acme", None).await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    create(&solution, "acme", &[string("", format!("dbname={acme}"))]).await.unwrap();
    // Another text, the same place.
    let other = format!("postgresql://localhost:{}/{acme}?connect_timeout=7", town.server.port());
    let error = create(&solution, "globex", &[string(&trip, &other)]).await.unwrap_err();
    assert!(message(&error).contains("is tenant acme's already (its default string)"), "{}", message(&error));
    assert!(message(&error).contains("--shared"));
    let shared = Choices { check: true, shared: true };
    solution.create_tenant("globex", None, &[string(&trip, &other)], shared, &silent()).await.unwrap();
    let done = solution.set_connection("acme", string(&user, &other), shared, &silent()).await.unwrap();
    let default = done.tenant.strings.iter().find(|string| string.connection.is_empty()).unwrap();
    let same: Vec<(&str, &str)> =
        default.same_as.iter().map(|same| (same.tenant.as_str(), same.connection.as_str())).collect();
    assert_eq!(same, [("acme", user.as_str()), ("globex", trip.as_str())]);
    let done = solution.unset_connection("acme", &user).await.unwrap();
    assert_eq!((done.changed, done.tenant.strings.len()), (true, 1));
    assert!(!solution.unset_connection("acme", &user).await.unwrap().changed);
}

#[tokio::test]
async fn of_two_at_once_one_wins() {
    let town = town().await;
    let acme = town.database("acme", None).await;
    let mut solutions = Vec::new();
    for _ in 0..6 {
        solutions.push(town.open().await);
    }
    let same = solutions.iter().map(|solution| create(solution, "acme", &[]));
    let ended = futures_util::future::join_all(same).await;
    assert_eq!(ended.iter().filter(|result| result.is_ok()).count(), 1);
    for error in ended.iter().filter_map(|result| result.as_ref().err()) {
        assert!(error.to_string().contains("there is a tenant acme already"), "{}", message(error));
    }
    // One database, and every one of them a tenant of its own.
    let names: Vec<String> = (0..6).map(|number| format!("t{number}")).collect();
    let strings = [string("", format!("dbname={acme}"))];
    let racing = solutions.iter().zip(&names).map(|(solution, name)| create(solution, name, &strings));
    let ended = futures_util::future::join_all(racing).await;
    assert_eq!(ended.iter().filter(|result| result.is_ok()).count(), 1);
    for error in ended.iter().filter_map(|result| result.as_ref().err()) {
        assert!(error.to_string().contains("already (its default string)"), "{}", message(error));
    }
}

#[tokio::test]
async fn a_tenant_is_disabled_and_enabled() {
    let town = town().await;
    let solution = town.open().await;
    create(&solution, "acme", &[]).await.unwrap();
    for (enabled, changed, state) in [
        (true, false, TenantState::Active),
        (false, true, TenantState::Disabled),
        (false, false, TenantState::Disabled),
        (true, true, TenantState::Active),
    ] {
        let done = solution.enable_tenant("acme", enabled).await.unwrap();
        assert_eq!((done.changed, done.tenant.state), (changed, state));
    }
    let control = town.superuser(&town.service("control")).await;
    control.execute_all("update control.tenants set state = 'creating'").await.unwrap();
    let error = solution.enable_tenant("acme", false).await.unwrap_err();
    assert_eq!(error.to_string(), "tenant acme is creating: only one that is active can become disabled");
}

#[tokio::test]
async fn a_string_for_a_service_without_tenants_is_refused() {
    let town = Town::new(15, Admin::Superuser).await;
    town.manifest("[services.{}_trip]\n[services.{}_user]\n");
    let solution = town.open().await;
    let error = create(&solution, "acme", &[]).await.unwrap_err();
    assert_eq!(error.hint(), Some("bring it to this version: pgfleet provision"));
    town.provision().await;
    create(&solution, "acme", &[]).await.unwrap();
    for connection in ["", &town.service("trip")] {
        let given = string(connection, "dbname=postgres");
        let error = solution.set_connection("acme", given, Choices::default(), &silent()).await.unwrap_err();
        assert!(
            error.to_string().contains("has data in tenants' databases")
                || error.to_string().contains("has no data in tenants' databases"),
            "{}",
            message(&error)
        );
    }
}
