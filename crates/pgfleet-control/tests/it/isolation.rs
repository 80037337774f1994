//! The proof that services cannot reach each other's databases.

use pgfleet_control::isolation::{Proof, Verdict, verify};

use crate::support::{Admin, Town};

/// Returns the worst verdict of a service on a database, and whether anything about this test's
/// own names is open (`postgres` and `template1` belong to every test at once).
fn judge(proof: &Proof, town: &Town, service: &str, database: &str) -> Verdict {
    proof.worst(&town.service(service), "main", &town.service(database)).unwrap()
}

#[tokio::test]
async fn a_fresh_solution_is_tight_and_every_pair_was_tried() {
    for (major, admin) in [(15, Admin::Superuser), (18, Admin::Creator)] {
        let town = Town::new(major, admin).await;
        town.provision().await;
        let proof = verify(&town.open().await).await.unwrap();
        assert!(proof.pairs.iter().all(|pair| pair.login_answer.is_some()), "{major}: a pair was not tried");
        assert_eq!(judge(&proof, &town, "trip", "trip"), Verdict::Own);
        assert_eq!(judge(&proof, &town, "trip", "user"), Verdict::Denied);
        assert_eq!(judge(&proof, &town, "user", "trip"), Verdict::Denied);
        let denied = proof.pairs.iter().find(|pair| pair.verdict == Verdict::Denied).unwrap();
        assert!(denied.login_answer.as_deref().unwrap().contains("permission denied for database"), "{denied:?}");
        if admin == Admin::Superuser {
            assert!(proof.is_tight(), "{:?}", proof.findings);
        }
    }
}

#[tokio::test]
async fn each_kind_of_hole_is_named() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let postgres = town.superuser("postgres").await;
    let cases = [
        (
            format!("grant connect on database {trip} to public"),
            format!("revoke connect on database {trip} from public"),
        ),
        (
            format!("grant connect on database {trip} to {user}_app"),
            format!("revoke connect on database {trip} from {user}_app"),
        ),
        (format!("grant {trip}_owner to {user}_app"), format!("revoke {trip}_owner from {user}_app")),
        (format!("alter role {user}_app superuser"), format!("alter role {user}_app nosuperuser")),
        (format!("grant pg_read_all_data to {user}_app"), format!("revoke pg_read_all_data from {user}_app")),
    ];
    for (hole, mend) in cases {
        postgres.execute_all(&hole).await.unwrap();
        let proof = verify(&town.open().await).await.unwrap();
        let named = proof.findings.iter().any(|finding| finding.message.contains(&town.anchor.name));
        assert!(!proof.is_tight(), "{hole}");
        assert!(named || judge(&proof, &town, "user", "trip") == Verdict::Open, "{hole}: {:?}", proof.findings);
        postgres.execute_all(&mend).await.unwrap();
    }
}

#[tokio::test]
async fn a_role_without_a_known_password_is_catalog_only() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let control = town.superuser(&format!("{}_control", town.anchor.name)).await;
    let role = format!("{}_app", town.service("user"));
    control.execute_all(&format!("delete from control.credentials where role = '{role}'")).await.unwrap();
    let proof = verify(&town.open().await).await.unwrap();
    let pair = proof.pairs.iter().find(|pair| pair.role == role && pair.database == town.service("trip")).unwrap();
    assert_eq!((pair.verdict, pair.login_answer.as_deref()), (Verdict::CatalogOnly, None));
}

#[tokio::test]
async fn a_declared_use_is_shown_as_declared_and_reaches_its_module_only() {
    let town = Town::new(15, Admin::Superuser).await;
    let user = town.service("user");
    town.write_whole_manifest(
        "isolation = \"declared\"",
        "[services.{}_trip]\nuses = [\"{}_user:permission\"]\n[services.{}_user]\nmodules = [\"permission\"]\n\
         [modules.permission]\nschema = \"permission\"\n",
    );
    town.provision().await;
    town.migrate().await;
    let inside = town.superuser(&user).await;
    inside
        .execute_all(&format!(
            "set role {user}_owner; create table permission.grants (id int); insert into permission.grants values (1)"
        ))
        .await
        .unwrap();
    let solution = town.open().await;
    let proof = verify(&solution).await.unwrap();
    assert_eq!(judge(&proof, &town, "trip", "user"), Verdict::Declared);
    assert_eq!(judge(&proof, &town, "user", "trip"), Verdict::Denied);
    let trip = solution.manifest.service(&town.service("trip")).unwrap();
    let address = solution.address(trip, pgfleet_control::roles::Login::App).unwrap().with_database(&user);
    let guest = crate::support::open(secrecy::ExposeSecret::expose_secret(&address.expose_url())).await;
    assert_eq!(guest.simple("select id from permission.grants").await.unwrap().len(), 1);
    assert_eq!(guest.simple("select * from public.things").await.unwrap_err().sql_state(), Some("42501"));
}

#[tokio::test]
async fn a_session_that_outlived_its_right_is_named() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let postgres = town.superuser("postgres").await;
    postgres.execute_all(&format!("grant connect on database {trip} to {user}_app")).await.unwrap();
    let solution = town.open().await;
    let service = solution.manifest.service(&user).unwrap();
    let address = solution.address(service, pgfleet_control::roles::Login::App).unwrap().with_database(&trip);
    let session = pgfleet_postgres::connect(&address, &pgfleet_postgres::Purpose::new("leftover")).await.unwrap();
    postgres.execute_all(&format!("revoke connect on database {trip} from {user}_app")).await.unwrap();
    let proof = verify(&solution).await.unwrap();
    let named = |finding: &pgfleet_control::isolation::Finding| {
        finding.message.contains("still has a session") && finding.message.contains(&trip)
    };
    assert!(proof.findings.iter().any(named), "{:?}", proof.findings);
    session.close().await;
}

#[tokio::test]
async fn a_service_with_tenants_may_ask_the_control_database() {
    let town = Town::new(15, Admin::Superuser).await;
    town.write_manifest("", "tenants = \"own\"");
    town.provision().await;
    let proof = verify(&town.open().await).await.unwrap();
    let (trip, control) = (town.service("trip"), town.service("control"));
    for (role, verdict) in [("app", Verdict::Declared), ("readonly", Verdict::Denied), ("migrator", Verdict::Denied)] {
        let role = format!("{trip}_{role}");
        let pair = proof.pairs.iter().find(|pair| pair.role == role && pair.database == control).unwrap();
        assert_eq!(pair.verdict, verdict, "{role}");
    }
    assert_eq!(proof.worst(&town.service("user"), "main", &control), Some(Verdict::Denied));
    assert!(proof.is_tight(), "{:?}", proof.findings);
}
