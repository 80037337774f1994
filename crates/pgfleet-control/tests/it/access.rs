//! Declared access and connection names: what `uses` opens, and what it does not.

use std::collections::BTreeMap;

use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::isolation::{Verdict, verify};
use pgfleet_control::roles::Login;
use pgfleet_postgres::{Address, Connection, Purpose, connect};
use secrecy::ExposeSecret as _;

use crate::support::{Admin, Town};

/// The databases of S2: which modules are merged into which service.
const ABP: &str = r#"
[services.{}_administration]
modules = ["permission", "feature", "setting", "language"]

[services.{}_identity]
modules = ["identity", "oauth"]

[services.{}_auditlogging]
modules = ["audit"]

[services.{}_saas]
modules = ["saas"]

[services.{}_product]
uses = ["{}_administration:permission"]

[modules.permission]
schema = "permission"
connection = "AbpPermissionManagement"

[modules.feature]
schema = "feature"
connection = "AbpFeatureManagement"

[modules.setting]
schema = "setting"
connection = "AbpSettingManagement"

[modules.language]
schema = "language"
connection = "LanguageManagement"

[modules.identity]
schema = "identity"
connection = "AbpIdentity"

[modules.oauth]
schema = "oauth"
connection = "AbpOpenIddict"

[modules.audit]
connection = "AbpAuditLogging"

[modules.saas]
connection = "Saas"

[connections]
AbpPermissionManagement = "{}_administration"
AbpFeatureManagement = "{}_administration"
AbpSettingManagement = "{}_administration"
LanguageManagement = "{}_administration"
AbpAuditLogging = "{}_auditlogging"
Saas = "{}_saas"
AbpIdentity = "{}_identity"
AbpOpenIddict = "{}_identity"
"#;

/// One migration per module: a table with a serial key, whose sequence a guest needs too.
fn write_modules(town: &Town, names: &[&str]) {
    for name in names {
        let folder = town.folder.path().join("modules").join(name).join("migrations");
        std::fs::create_dir_all(&folder).unwrap();
        let sql = format!("create table {name}_grants (id bigserial primary key, name text);");
        std::fs::write(folder.join("1_grants.sql"), sql).unwrap();
    }
}

fn environment(solution: &Solution, service: &str) -> BTreeMap<String, String> {
    let service = solution.manifest.service(service).unwrap();
    let variables = solution.environment(service).unwrap();
    variables.into_iter().map(|(name, value)| (name, value.expose_secret().to_owned())).collect()
}

async fn enter(url: &str) -> Connection {
    connect(&Address::parse(url).unwrap(), &Purpose::new("test")).await.unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, pgfleet_postgres::Error>) -> bool {
    result.unwrap_err().sql_state() == Some("42501")
}

#[tokio::test]
async fn the_databases_of_a_microservice_template_and_its_one_declared_use() {
    for (major, admin) in [(15, Admin::Superuser), (18, Admin::Creator)] {
        let town = Town::new(major, admin).await;
        town.write_whole_manifest("isolation = \"declared\"", ABP);
        write_modules(&town, &["permission", "feature", "setting", "language", "identity", "oauth", "audit", "saas"]);
        town.provision().await;
        town.migrate().await;
        assert_eq!(town.provision().await, Vec::<String>::new(), "{major}: migrating needs no mending");

        let solution = town.open().await;
        let prefix = town.anchor.name.to_uppercase();
        let database = |url: &str| Address::parse(url).unwrap().database().to_owned();
        for (service, names) in [
            ("administration", "AbpFeatureManagement,AbpPermissionManagement,AbpSettingManagement,LanguageManagement"),
            ("identity", "AbpIdentity,AbpOpenIddict"),
            ("auditlogging", "AbpAuditLogging"),
            ("saas", "Saas"),
        ] {
            let variables = environment(&solution, &town.service(service));
            let own = format!("PGFLEET_{prefix}_{}", service.to_uppercase());
            assert_eq!(variables[&format!("{own}_CONNECTIONS")], names);
            assert_eq!(database(&variables[&format!("{own}_URL")]), town.service(service));
            assert!(!variables.keys().any(|name| name.contains("_CONNECTION_")), "{service}: {:?}", variables.keys());
        }
        let product = environment(&solution, &town.service("product"));
        let used: Vec<_> = product.iter().filter(|(name, _)| name.contains("_CONNECTION_")).collect();
        let [(name, url)] = used[..] else { panic!("{:?}", product.keys()) };
        assert_eq!(*name, format!("PGFLEET_{prefix}_PRODUCT_CONNECTION_ABPPERMISSIONMANAGEMENT_URL"));
        assert_eq!(database(url), town.service("administration"));
        let administration = town.service("administration");
        assert_eq!(
            product[&format!("PGFLEET_{prefix}_PRODUCT_CONNECTIONS")],
            format!("AbpPermissionManagement@{administration}/host")
        );

        let guest = enter(url).await;
        guest
            .execute_all(
                "insert into permission.permission_grants (name) values ('a'); \
                 update permission.permission_grants set name = 'b'; delete from permission.permission_grants",
            )
            .await
            .unwrap();
        assert!(refused(guest.simple("select * from setting.setting_grants").await));
        assert!(refused(guest.execute_all("truncate permission.permission_grants").await));
        assert!(refused(guest.execute_all("create table permission.mine (id int)").await));
        assert!(refused(guest.simple("select * from pgfleet.permission_migrations").await));
        // What a later migration makes is reachable at once; what is next to it is not.
        let service = solution.manifest.service(&town.service("administration")).unwrap();
        let migrator =
            connect(&solution.address(service, Login::Migrator).unwrap(), &Purpose::new("test")).await.unwrap();
        migrator
            .execute_all("create table permission.later (id serial); create table setting.later (id int)")
            .await
            .unwrap();
        guest.execute_all("insert into permission.later default values").await.unwrap();
        assert!(refused(guest.simple("select * from setting.later").await));

        let proof = verify(&solution).await.unwrap();
        let verdict = |service: &str, database: &str| {
            proof.worst(&town.service(service), "main", &town.service(database)).unwrap()
        };
        assert_eq!(verdict("product", "administration"), Verdict::Declared);
        assert_eq!(verdict("product", "identity"), Verdict::Denied);
        assert_eq!(verdict("identity", "administration"), Verdict::Denied);
        let mine: Vec<_> = proof.findings.iter().filter(|f| f.message.contains(&town.anchor.name)).collect();
        assert!(mine.is_empty(), "{major}: {mine:?}");
    }
}

const PAIR: &str = "[services.{}_trip]\n{uses}\n[services.{}_user]\nmodules = [\"permission\", \"setting\"]\n\
                    [modules.permission]\nschema = \"permission\"\n[modules.setting]\nschema = \"setting\"\n";

fn pair(town: &Town, uses: &str) {
    town.write_whole_manifest("isolation = \"declared\"", &PAIR.replace("{uses}", uses));
}

#[tokio::test]
async fn what_a_guest_got_beside_its_module_is_found_and_taken_back() {
    for (major, admin) in [(15, Admin::Superuser), (15, Admin::Creator), (18, Admin::Creator)] {
        let town = Town::new(major, admin).await;
        pair(&town, "uses = [\"{}_user:permission\"]");
        write_modules(&town, &["permission", "setting"]);
        town.provision().await;
        town.migrate().await;
        let (trip, user) = (town.service("trip"), town.service("user"));
        let inside = town.superuser(&user).await;
        for sql in [
            format!(
                "grant usage on schema setting to {trip}_app; grant select on setting.setting_grants to {trip}_app"
            ),
            format!("grant truncate on permission.permission_grants to {trip}_app"),
            format!("grant select (name) on things to {trip}_app"),
            format!("revoke select on permission.permission_grants from {trip}_app"),
            format!("alter default privileges for role {user}_owner grant select on tables to {trip}_app"),
        ] {
            inside.execute_all(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let proof = verify(&town.open().await).await.unwrap();
        for text in [
            format!("role {trip}_app reads setting.setting_grants of database {user}, which is not declared"),
            format!("role {trip}_app reads public.things of database {user}, which is not declared"),
            format!("role {trip}_app cannot read permission.permission_grants of database {user}, which is declared"),
        ] {
            assert!(proof.findings.iter().any(|finding| finding.message == text), "{text}: {:?}", proof.findings);
        }
        assert!(!town.provision().await.is_empty());
        assert_eq!(town.provision().await, Vec::<String>::new(), "{major} {admin:?}");
        inside
            .execute_all("grant select on setting.setting_grants to public; grant usage on schema setting to public")
            .await
            .unwrap();
        let proof = verify(&town.open().await).await.unwrap();
        let hint =
            proof.findings.iter().find(|finding| finding.message.contains("setting_grants")).map(|f| f.hint.as_str());
        assert_eq!(hint, Some("REVOKE ALL ON \"setting\".\"setting_grants\" FROM PUBLIC"));
        inside
            .execute_all("revoke all on setting.setting_grants from public; revoke usage on schema setting from public")
            .await
            .unwrap();
        let proof = verify(&town.open().await).await.unwrap();
        let mine: Vec<_> = proof.findings.iter().filter(|f| f.message.contains(&town.anchor.name)).collect();
        assert!(mine.is_empty(), "{major} {admin:?}: {mine:?}");
        inside.execute_all(&format!("set role {user}_owner; create table more (id int)")).await.unwrap();
        let read = format!("select has_table_privilege('{trip}_app', 'more', 'SELECT')::int");
        assert_eq!(inside.simple(&read).await.unwrap()[0].get(0), Some("0"), "the default right is gone, too");
    }
}

#[tokio::test]
async fn a_declaration_that_goes_away_is_withdrawn_and_its_sessions_end() {
    for remove_service in [false, true] {
        let town = Town::new(15, Admin::Superuser).await;
        pair(&town, "uses = [\"{}_user:permission\", \"{}_user:setting\"]");
        write_modules(&town, &["permission", "setting"]);
        town.provision().await;
        town.migrate().await;
        let solution = town.open().await;
        let (trip, user) = (town.service("trip"), town.service("user"));
        let find = |name: &str| solution.manifest.service(name).unwrap();
        let address = solution.guest_address(find(&trip), find(&user)).unwrap();
        let guest = connect(&address, &Purpose::new("guest")).await.unwrap();
        guest.simple("select * from setting.setting_grants").await.unwrap();
        pair(&town, "uses = [\"{}_user:permission\"]");
        town.provision().await;
        assert!(refused(guest.simple("select * from setting.setting_grants").await));
        guest.simple("select * from permission.permission_grants").await.unwrap();
        if remove_service {
            town.write_whole_manifest(
                "",
                "[services.{}_user]\nmodules = [\"permission\"]\n[modules.permission]\nschema = \"permission\"\n",
            );
        } else {
            pair(&town, "");
        }
        assert!(!town.provision().await.is_empty());
        assert!(guest.simple("select 1").await.is_err(), "the session has ended");
        assert_eq!(
            connect(&address, &Purpose::new("guest")).await.unwrap_err().kind(),
            pgfleet_postgres::ErrorKind::Denied
        );
        let inside = town.superuser(&user).await;
        let rights = "select count(*) from pg_class c, aclexplode(c.relacl) a where a.grantee = \
                      (select oid from pg_roles where rolname = '{}_app')";
        assert_eq!(inside.simple(&rights.replace("{}", &trip)).await.unwrap()[0].get(0), Some("0"));
        assert_eq!(town.provision().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_module_on_another_server_is_used_with_a_role_there() {
    let (town, other) = (Town::new(15, Admin::Superuser).await, Town::new(18, Admin::Creator).await);
    let manifest = format!(
        "[servers.other]\nurl = \"{}\"\n[services.{{}}_trip]\nserver = \"main\"\nuses = [\"{{}}_user:permission\"]\n\
         [services.{{}}_user]\nserver = \"other\"\nmodules = [\"permission\"]\n[modules.permission]\nschema = \"permission\"\n",
        other.admin_url()
    );
    town.write_whole_manifest("isolation = \"declared\"", &manifest);
    let path = town.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("[control]\n", "[control]\nserver = \"main\"\n");
    std::fs::write(&path, text).unwrap();
    write_modules(&town, &["permission"]);
    town.provision().await;
    town.migrate().await;
    assert_eq!(town.provision().await, Vec::<String>::new());
    let solution = town.open().await;
    let variables = environment(&solution, &town.service("trip"));
    let url = variables.iter().find(|(name, _)| name.contains("_CONNECTION_")).unwrap().1;
    assert_eq!(Address::parse(url).unwrap().port(), other.server.port());
    let guest = enter(url).await;
    guest.execute_all("insert into permission.permission_grants (name) values ('a')").await.unwrap();
    assert!(refused(guest.simple("select * from things").await));
    let proof = verify(&solution).await.unwrap();
    assert_eq!(proof.worst(&town.service("trip"), "other", &town.service("user")), Some(Verdict::Declared));
    // Its databases and roles have another test's prefix: nobody else removes them.
    let postgres = other.superuser("postgres").await;
    postgres.execute_all(&format!("drop database {} with (force)", town.service("user"))).await.unwrap();
}

#[tokio::test]
async fn a_service_gets_its_own_strings_and_the_replicas() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let trip = town.service("trip");
    let variable = |what: &str| format!("PGFLEET_{}_{what}", trip.to_uppercase());
    let variables = environment(&town.open().await, &trip);
    let names: Vec<&str> = variables.keys().map(String::as_str).collect();
    let auto_migrate = "PGFLEET_SOLUTION__AUTO_MIGRATE".to_owned();
    assert_eq!(names, [variable("MIGRATOR_URL"), variable("POOL"), variable("URL"), auto_migrate]);
    let pool = Address::parse(&variables[&variable("POOL")]).unwrap().pool_settings();
    assert_eq!((pool.max, pool.min), (Some(20), Some(5)));
    assert_eq!(
        (pool.idle_timeout, pool.command_timeout),
        (Some(Duration::from_secs(30)), Some(Duration::from_secs(30)))
    );
    assert!(variables.values().all(|value| !value.contains(&town.service("user"))));
    enter(&variables[&variable("URL")]).await.simple("select * from pgfleet.none").await.unwrap_err();

    let path = town.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let more = "auto_migrate = false\n[servers.main]\nbudget = 30\nreplicas = [\"postgresql://replica1:5433\", \"host=replica2 user=x password=y\"]\n";
    std::fs::write(&path, text.replace("[servers.main]\n", more)).unwrap();
    let variables = environment(&town.open().await, &trip);
    assert_eq!(variables["PGFLEET_SOLUTION__AUTO_MIGRATE"], "false");
    assert!(!variables.contains_key(&variable("MIGRATOR_URL")), "a service that does not migrate needs no migrator");
    assert_eq!(variables[&variable("BUDGET")], "13", "a tenth of 15 is left for others");
    let own = Address::parse(&variables[&variable("URL")]).unwrap();
    let replicas: Vec<Address> =
        variables[&variable("READ_URL")].split_whitespace().map(|url| Address::parse(url).unwrap()).collect();
    let places: Vec<_> = replicas.iter().map(|address| (address.host(), address.port())).collect();
    assert_eq!(places, [("replica1".to_owned(), 5433), ("replica2".to_owned(), 5432)]);
    for replica in &replicas {
        assert_eq!((replica.user(), replica.database()), (own.user(), own.database()));
        assert_eq!(replica.password().unwrap().expose_secret(), own.password().unwrap().expose_secret());
    }
}
