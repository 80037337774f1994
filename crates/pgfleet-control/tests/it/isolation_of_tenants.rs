//! The proof that services cannot enter each other's tenants' databases, nor reach each other in one.

use pgfleet_control::isolation::{Proof, Verdict, verify, verify_all};
use pgfleet_control::tenants::{Home, NewTenant};

use crate::life::{TWO, create, own, town};
use crate::support::{Admin, Town};

/// A town with services that have tenants, one that has none, and these tenants.
async fn tenants(major: u32, admin: Admin, sections: &str, names: &[String]) -> Town {
    let town = town(major, admin, &format!("{TWO}[services.{{}}_log]\n{sections}")).await;
    let solution = town.open().await;
    for name in names {
        create(&solution, own(name)).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    }
    town
}

fn acme() -> [String; 1] {
    ["acme".to_owned()]
}

async fn proof(town: &Town) -> Proof {
    verify(&town.open().await).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()))
}

#[tokio::test]
async fn a_fresh_tenant_s_database_is_tight_and_every_login_was_tried() {
    for (major, admin) in [(15, Admin::Superuser), (18, Admin::Creator)] {
        let town = tenants(major, admin, "", &acme()).await;
        let proof = proof(&town).await;
        assert_eq!(proof.tenants.holes, [], "{major}");
        // Three logins of each of the three services.
        assert_eq!((proof.tenants.databases, proof.tenants.probed, proof.tenants.logins), (1, 1, 9), "{major}");
        assert!(proof.pairs.iter().all(|pair| pair.database != town.service("acme")), "the matrix stays small");
    }
}

#[tokio::test]
async fn each_kind_of_hole_is_named_and_its_hint_mends_it() {
    let town = tenants(15, Admin::Superuser, "", &acme()).await;
    let (acme, trip, log) = (town.service("acme"), town.service("trip"), town.service("log"));
    let postgres = town.superuser("postgres").await;
    let cases = [
        (
            format!("grant connect on database {acme} to {log}_app"),
            Verdict::Open,
            format!("role {log}_app may connect"),
        ),
        (format!("grant connect on database {acme} to public"), Verdict::Open, "PUBLIC may connect".to_owned()),
        (
            format!("alter database {acme} allow_connections false"),
            Verdict::LockedOut,
            "takes no connections".to_owned(),
        ),
        (
            format!("revoke connect on database {acme} from {trip}_readonly"),
            Verdict::LockedOut,
            format!("role {trip}_readonly cannot connect"),
        ),
    ];
    for (hole, verdict, message) in cases {
        postgres.execute_all(&hole).await.unwrap();
        let found = proof(&town).await;
        assert!(!found.is_tight(), "{hole}");
        let [named] = &found.tenants.holes[..] else { panic!("{hole}: {:?}", found.tenants.holes) };
        assert_eq!((named.verdict, named.tenant.as_str(), named.database.as_str()), (verdict, "acme", acme.as_str()));
        assert!(named.message.contains(&message), "{named:?}");
        postgres.execute_all(&named.hint).await.unwrap();
        assert_eq!(proof(&town).await.tenants.holes, [], "{hole}");
    }
    // One that nobody may enter any more, and that still takes connections.
    let control = town.superuser(&town.service("control")).await;
    control.execute_all("update control.tenant_databases set state = 'closed'").await.unwrap();
    let found = proof(&town).await;
    assert!(found.tenants.holes[0].message.contains("was closed, and takes connections"), "{:?}", found.tenants);
    postgres.execute_all(&found.tenants.holes[0].hint).await.unwrap();
    let found = proof(&town).await;
    assert_eq!((found.tenants.holes.len(), found.tenants.databases, found.tenants.probed), (0, 1, 0));
}

#[tokio::test]
async fn what_the_catalogs_do_not_show_is_found_by_trying() {
    for (major, admin) in [(15, Admin::Creator), (18, Admin::Superuser)] {
        let town = tenants(major, admin, "", &acme()).await;
        let (acme, trip) = (town.service("acme"), town.service("trip"));
        let postgres = town.superuser("postgres").await;
        postgres.execute_all(&format!("alter role {trip}_readonly password 'somebody elses'")).await.unwrap();
        let found = proof(&town).await;
        let [named] = &found.tenants.holes[..] else { panic!("{major}: {:?}", found.tenants.holes) };
        assert_eq!(named.verdict, Verdict::LockedOut);
        assert!(named.message.contains("password authentication failed"), "{named:?}");
        town.provision().await;
        assert_eq!(proof(&town).await.tenants.holes, []);
        // Side by side in one database, two services reach nothing of each other.
        let inside = town.superuser(&acme).await;
        inside
            .execute_all(&format!(
                "grant usage on schema users to {trip}_app; grant select on users.things to {trip}_app"
            ))
            .await
            .unwrap();
        let found = proof(&town).await;
        let [named] = &found.tenants.holes[..] else { panic!("{major}: {:?}", found.tenants.holes) };
        assert!(named.message.contains(&format!("role {trip}_app has rights on users.things")), "{named:?}");
        inside.execute_all(&named.hint).await.unwrap();
        assert_eq!(proof(&town).await.tenants.holes, []);
    }
}

#[tokio::test]
async fn of_many_databases_a_sample_is_entered_unless_all_are_asked_for() {
    let names: Vec<String> = (0..6).map(|number| format!("t{number}")).collect();
    let town = tenants(15, Admin::Superuser, "[tenants]\ndatabases = \"per-service\"\n", &names).await;
    let found = proof(&town).await;
    assert_eq!((found.tenants.databases, found.tenants.probed, found.tenants.logins), (12, 8, 72));
    assert!(found.is_tight(), "{:?} {:?}", found.tenants.holes, found.findings);
    // Each service's roles belong into its own databases alone; all of them are looked up.
    let (trip, user) = (town.service("trip"), town.service("user"));
    let postgres = town.superuser("postgres").await;
    let tenants = town.open().await.tenants().await.unwrap();
    for own in tenants.iter().flat_map(|tenant| &tenant.databases).filter(|own| own.services == [user.clone()]) {
        let grant = format!("grant connect on database \"{}\" to {trip}_readonly", own.database);
        postgres.execute_all(&grant).await.unwrap();
    }
    let found = verify_all(&town.open().await).await.unwrap();
    assert_eq!((found.tenants.databases, found.tenants.probed, found.tenants.logins), (12, 12, 108));
    assert_eq!(found.tenants.holes.len(), 6, "{:?}", found.tenants.holes);
    assert!(found.tenants.holes.iter().all(|hole| hole.message.contains(&format!("role {trip}_readonly may connect"))));
}

#[tokio::test]
async fn a_guest_is_let_in_to_tenants_databases_and_reaches_its_module() {
    for (major, admin) in [(15, Admin::Superuser), (18, Admin::Creator)] {
        let sections = "[services.{}_trip]\ntenants = \"own\"\nschema = \"trips\"\nuses = [\"{}_user:permission\"]\n\
                        [services.{}_user]\ntenants = \"own\"\nschema = \"users\"\nmodules = [\"permission\"]\n\
                        [modules.permission]\nschema = \"permission\"\n[tenants]\ndatabases = \"per-service\"\n";
        let town = Town::new(major, admin).await;
        town.manifest(sections);
        let folder = town.folder.path().join("modules/permission/migrations");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1_grants.sql"), "create table grants (id bigserial primary key, name text);")
            .unwrap();
        town.provision().await;
        let solution = town.open().await;
        let home = Home::Own { services: vec![town.service("user")], server: None };
        let done = create(&solution, NewTenant { home, ..own("acme") }).await;
        let done = done.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
        let database = &done.tenant.databases[0].database;
        let guest = crate::life::as_app(&solution, &town.service("trip"), database).await;
        guest.execute_all("insert into permission.grants (name) values ('a')").await.unwrap();
        let refused = guest.simple("select * from users.things").await.unwrap_err();
        assert_eq!(refused.sql_state(), Some("42501"));
        let found = proof(&town).await;
        assert_eq!(found.tenants.holes, [], "{major}");
        let inside = town.superuser(database).await;
        let trip = town.service("trip");
        inside
            .execute_all(&format!(
                "grant usage on schema users to {trip}_app; grant select on users.things to {trip}_app"
            ))
            .await
            .unwrap();
        let found = proof(&town).await;
        let [named] = &found.tenants.holes[..] else { panic!("{major}: {:?}", found.tenants.holes) };
        assert!(named.message.contains("has rights on users.things"), "{named:?}");
    }
}
