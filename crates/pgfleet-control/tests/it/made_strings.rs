//! Strings of databases that pgfleet made: the name of the database and of its server, written out for
//! each service.

use pgfleet_control::Solution;
use pgfleet_control::directory::read_as_service;
use pgfleet_control::roles::Login;
use pgfleet_control::tenants::Choices;
use pgfleet_postgres::{Address, Purpose, Type, connect};
use secrecy::{ExposeSecret as _, SecretString};

use crate::directory::{as_service, strings, version};
use crate::residents::Pair;
use crate::support::Admin;
use crate::tenants::{create, silent, string};

/// Stores a string of the tenant acme, as it is stored for a database that pgfleet made.
async fn give(pair: &Pair, solution: &Solution, connection: &str, server: &str, database: &str) {
    let keys = solution.keys().unwrap();
    let text = SecretString::from(format!("dbname={database}"));
    let sealed = keys.seal(&text, &format!("tenant/acme/{connection}")).unwrap();
    let control = pair.town.superuser(&pair.town.service("control")).await;
    control
        .execute(
            "INSERT INTO control.tenant_strings (tenant, connection, key_id, sealed, shown, server) \
             VALUES ('acme', $1, $2, $3, '', $4)",
            &[(&connection, Type::TEXT), (&keys.id(), Type::TEXT), (&sealed, Type::BYTEA), (&server, Type::TEXT)],
        )
        .await
        .unwrap();
}

/// The tenant acme with a database on the other server, and what services read of it.
async fn town(own: Admin, there: Admin) -> (Pair, String) {
    let pair = Pair::new(own, there).await;
    pair.town.provision().await;
    let solution = pair.town.open().await;
    create(&solution, "acme", &[]).await.unwrap();
    let acme = pair.acme(&solution).await;
    give(&pair, &solution, "", "other", &acme).await;
    let done = pair.town.provision().await;
    assert_eq!(done, ["INSERT INTO control.service_strings …"]);
    assert_eq!(pair.town.provision().await, Vec::<String>::new());
    (pair, acme)
}

/// The default string of acme as a service understands it.
async fn understood(solution: &Solution, service: &str) -> Address {
    let (session, keys) = as_service(solution, service).await;
    let read = read_as_service(&session, &keys).await.unwrap();
    let text = read.into_iter().find_map(|(_, _, string)| string.filter(|(name, _)| name.is_empty())).unwrap().1;
    let own = solution.address(solution.manifest.service(service).unwrap(), Login::App).unwrap();
    own.by_way_of(text.expose_secret()).unwrap()
}

#[tokio::test]
async fn a_service_is_told_all_of_a_database_on_another_server_and_its_name_on_its_own() {
    for (own, there) in [(Admin::Superuser, Admin::Creator), (Admin::Creator, Admin::Superuser)] {
        let (pair, acme) = town(own, there).await;
        let solution = pair.town.open().await;
        for short in ["trip", "user"] {
            let address = understood(&solution, &pair.town.service(short)).await;
            assert_eq!((address.port(), address.database()), (pair.other.server.port(), acme.as_str()));
            let session = connect(&address, &Purpose::new("test")).await.unwrap();
            let app = format!("{}_app", pair.town.service(short));
            assert_eq!(session.simple("select current_user").await.unwrap()[0].get(0), Some(app.as_str()));
            session.execute_all("insert into things (name) values ('x')").await.unwrap();
        }
        let trip = pair.town.service("trip");
        give(&pair, &solution, &trip, "main", "here").await;
        pair.town.provision().await;
        let read = strings(&solution, &trip).await;
        assert!(read.contains(&format!("acme/{trip}=dbname=here")), "{} strings", read.len());
    }
}

#[tokio::test]
async fn who_explains_and_tries_connections_goes_there_too() {
    let (pair, acme) = town(Admin::Superuser, Admin::Creator).await;
    let solution = pair.town.open().await;
    let (trip, port) = (pair.town.service("trip"), pair.other.server.port());
    let explained = solution.explain(&trip, Some("acme"), None).await.unwrap();
    assert_eq!(explained.address, format!("postgresql://{trip}_app@127.0.0.1:{port}/{acme}"));
    let tested = solution.test_connections(&[], &["acme".to_owned()]).await.unwrap();
    let logins: Vec<_> = tested.iter().map(|tested| (tested.login, tested.error.as_deref())).collect();
    assert_eq!(logins, [("app", None), ("migrator", None), ("app", None), ("migrator", None)]);
    let tenant = solution.tenant("acme").await.unwrap();
    assert_eq!(tenant.strings[0].server, "other");
}

#[tokio::test]
async fn a_server_that_moved_is_written_out_again_for_those_who_are_elsewhere() {
    let (pair, _) = town(Admin::Superuser, Admin::Creator).await;
    let path = pair.town.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, after) = (pair.other.admin_url(), pair.other.admin_url().replace("127.0.0.1", "localhost"));
    assert_ne!(before, after);
    std::fs::write(&path, text.replace(before, &after)).unwrap();
    let trip = pair.town.service("trip");
    let solution = pair.town.open().await;
    let old = version(&solution, &trip).await;
    assert_eq!(understood(&solution, &trip).await.host(), "127.0.0.1");
    // Somebody who only changes a tenant may see the server elsewhere than services do.
    solution
        .set_connection("acme", string(&trip, "dbname=x"), Choices { check: false, shared: false }, &silent())
        .await
        .unwrap();
    assert_eq!(understood(&solution, &trip).await.host(), "127.0.0.1");
    assert_eq!(pair.town.provision().await, ["INSERT INTO control.service_strings …"]);
    assert!(version(&solution, &trip).await > old, "services read it again");
    let address = understood(&solution, &trip).await;
    assert_eq!(address.host(), "localhost");
    connect(&address, &Purpose::new("test")).await.unwrap();
    assert_eq!(pair.town.provision().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_rotated_password_reaches_the_services_before_the_old_one_ends() {
    let (pair, _) = town(Admin::Superuser, Admin::Superuser).await;
    let trip = pair.town.service("trip");
    let mut solution = pair.town.open().await;
    let old = understood(&solution, &trip).await;
    let stale = pair.town.open().await;
    solution.rotate(&trip, Login::App).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
    let new = understood(&solution, &trip).await;
    assert_eq!((old.user(), new.user()), (&*format!("{trip}_app"), &*format!("{trip}_app_b")));
    for address in [&old, &new] {
        connect(address, &Purpose::new("test")).await.unwrap();
    }
    // Who opened the solution before does not hand out the old one again.
    let mut stale = stale;
    stale.provision(false).await.unwrap();
    assert_eq!(understood(&solution, &trip).await.user(), new.user());
    solution.finish_rotation(&trip, Login::App).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
    connect(&understood(&solution, &trip).await, &Purpose::new("test")).await.unwrap();
    assert!(connect(&old, &Purpose::new("test")).await.is_err());
    assert_eq!(pair.town.provision().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_string_that_somebody_gives_takes_the_place_of_one_that_pgfleet_made() {
    let (pair, acme) = town(Admin::Superuser, Admin::Superuser).await;
    let solution = pair.town.open().await;
    let done = solution
        .set_connection(
            "acme",
            string("", format!("dbname={acme}")),
            Choices { check: false, shared: false },
            &silent(),
        )
        .await
        .unwrap();
    assert!(done.changed, "the same text, and another server");
    assert_eq!(done.tenant.strings[0].server, "");
    let trip = pair.town.service("trip");
    assert_eq!(strings(&solution, &trip).await, [format!("acme/=dbname={acme}")]);
    assert_eq!(pair.town.provision().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_left_the_manifest_keeps_its_strings_and_gets_no_new_ones() {
    let (pair, acme) = town(Admin::Superuser, Admin::Superuser).await;
    let trip = pair.town.service("trip");
    let before = strings(&pair.town.open().await, &trip).await;
    let services = "[services.{}_trip]\ntenants = \"own\"\nschema = \"trips\"\n\
                    [services.{}_user]\ntenants = \"own\"\nschema = \"users\"\n";
    pair.town.manifest(services);
    assert!(!pair.town.provision().await.contains(&"INSERT INTO control.service_strings …".to_owned()));
    assert_eq!(strings(&pair.town.open().await, &trip).await, before);
    // Without the string a new service would take acme for a tenant without a database.
    pair.town.manifest(&format!("{services}[services.{{}}_new]\ntenants = \"own\"\nschema = \"news\"\n"));
    let error = pair.town.open().await.provision(false).await.unwrap_err();
    assert!(error.to_string().contains("there is no server `other`"), "{error} about {acme}");
    assert!(error.hint().unwrap().contains("put the server back"), "{:?}", error.hint());
}
