//! Provisioning: complete, idempotent, healing, safe when several run at once.

use pgfleet_control::manifest::Service;
use pgfleet_control::roles::Login;
use pgfleet_postgres::{Purpose, connect, quote_ident};

use crate::support::{Admin, Town};

/// Every combination of server and administrator that provisioning must work with.
const ALL: [(u32, Admin); 4] =
    [(15, Admin::Superuser), (15, Admin::Creator), (18, Admin::Superuser), (18, Admin::Creator)];

#[tokio::test]
async fn a_second_run_finds_nothing_to_do() {
    for (major, admin) in ALL {
        let town = Town::new(major, admin).await;
        assert!(town.provision().await.len() > 40, "{major} {admin:?}");
        assert_eq!(town.provision().await, Vec::<String>::new(), "{major} {admin:?}");
        town.migrate().await;
        assert_eq!(town.provision().await, Vec::<String>::new(), "{major} {admin:?}: migrating needs no mending");
    }
}

#[tokio::test]
async fn a_dry_run_shows_what_a_run_does_and_changes_nothing() {
    let town = Town::new(15, Admin::Superuser).await;
    let shown = |done: Vec<pgfleet_control::provision::Provisioned>| -> Vec<String> {
        done.into_iter().flat_map(|server| server.statements).map(|statement| statement.sql).collect()
    };
    let dry = shown(town.open().await.provision(true).await.unwrap());
    let postgres = town.superuser("postgres").await;
    let like = format!("select 1 from pg_roles where rolname like '{}_trip%'", town.anchor.name);
    assert!(postgres.simple(&like).await.unwrap().is_empty());
    assert!(dry.iter().all(|sql| !sql.contains("SCRAM")), "no verifier is shown");
    let control = format!("{}_control", town.anchor.name);
    let (made, dry): (Vec<String>, Vec<String>) = dry.into_iter().partition(|sql| sql.contains(&control));
    assert_eq!(made.len(), 2, "the control database is part of what is shown: {made:?}");
    assert_eq!(dry, town.provision().await);
}

#[tokio::test]
async fn roles_can_do_what_they_are_for_and_no_more() {
    for (major, admin) in ALL {
        let town = Town::new(major, admin).await;
        town.provision().await;
        town.migrate().await;
        let solution = town.open().await;
        let service: &Service = solution.manifest.service(&town.service("trip")).unwrap();
        let enter =
            async |login| connect(&solution.address(service, login).unwrap(), &Purpose::new("test")).await.unwrap();
        let app = enter(Login::App).await;
        app.execute_all(
            "insert into things (name) values ('a'); update things set name = 'b'; delete from things where id = 0",
        )
        .await
        .unwrap();
        let refused = app.execute_all("create table mine (id int)").await.unwrap_err();
        assert_eq!(refused.sql_state(), Some("42501"));
        for table in [format!("{}_migrations", service.name), format!("{}_seeds", service.name)] {
            let forge = format!("delete from pgfleet.{}", quote_ident(&table));
            assert_eq!(app.execute_all(&forge).await.unwrap_err().sql_state(), Some("42501"), "{table} can be forged");
        }
        let read = format!("select version from pgfleet.{}", quote_ident(&format!("{}_migrations", service.name)));
        assert_eq!(app.simple(&read).await.unwrap().len(), 1, "a service may see its version");
        let readonly = enter(Login::Readonly).await;
        assert_eq!(readonly.simple("select name from things").await.unwrap().len(), 1);
        let refused =
            readonly.execute_all("set transaction_read_only = off; insert into things (name) values ('x')").await;
        assert_eq!(refused.unwrap_err().sql_state(), Some("42501"));
        let owner = enter(Login::Migrator)
            .await
            .simple("create table later (id int); select tableowner from pg_tables where tablename = 'later'")
            .await
            .unwrap();
        assert_eq!(owner[0].get(0), Some(format!("{}_owner", service.name).as_str()));
        app.execute_all("insert into later values (1)").await.unwrap();
    }
}

#[tokio::test]
async fn what_was_dropped_or_granted_behind_its_back_is_mended() {
    for (major, admin) in ALL {
        let town = Town::new(major, admin).await;
        town.provision().await;
        town.migrate().await;
        let (trip, user) = (town.service("trip"), town.service("user"));
        let postgres = town.superuser("postgres").await;
        let inside = town.superuser(&trip).await;
        let mut damage = vec![
            format!("grant connect on database {trip} to public"),
            format!("grant connect on database {trip} to {user}_app"),
            format!("revoke connect on database {trip} from {trip}_app"),
            format!("alter role {trip}_app nologin"),
            format!("alter role {trip}_app password 'other'"),
            format!("alter role {trip}_migrator in database {trip} reset role"),
            format!("comment on role {trip}_app is null"),
        ];
        if admin == Admin::Superuser {
            // Others may not take these back; `isolation verify` names them.
            damage.push(format!("grant pg_read_all_data to {user}_readonly"));
            damage.push(format!("alter role {user}_app superuser"));
            damage.push(format!("grant {trip}_owner to {user}_app"));
        }
        for sql in &damage {
            postgres.execute_all(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        for sql in [
            format!("revoke select on things from {trip}_readonly"),
            format!("alter default privileges for role {trip}_owner revoke insert on tables from {trip}_app"),
            format!("revoke usage on schema public from {trip}_app"),
        ] {
            inside.execute_all(&sql).await.unwrap();
        }
        inside.close().await;
        assert!(!town.provision().await.is_empty());
        assert_eq!(town.provision().await, Vec::<String>::new(), "{major} {admin:?}");
        let proof = pgfleet_control::isolation::verify(&town.open().await).await.unwrap();
        let open: Vec<_> =
            proof.findings.iter().filter(|finding| finding.message.contains(&town.anchor.name)).collect();
        assert!(open.is_empty(), "{open:?}");
        let solution = town.open().await;
        let service = solution.manifest.service(&trip).unwrap();
        let app = connect(&solution.address(service, Login::App).unwrap(), &Purpose::new("test")).await.unwrap();
        app.execute_all("insert into things (name) values ('works again')").await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_database_is_made_and_migrated_again() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    town.migrate().await;
    let trip = town.service("trip");
    town.superuser("postgres").await.execute_all(&format!("drop database {trip} with (force)")).await.unwrap();
    town.migrate().await;
    let inside = town.superuser(&trip).await;
    assert_eq!(inside.simple("select * from things").await.unwrap().len(), 0);
    let open = inside.simple("select has_database_privilege('public', current_database(), 'CONNECT')").await.unwrap();
    assert_eq!(open[0].get(0), Some("f"), "the new database is closed like the old one");
}

#[tokio::test]
async fn sessions_of_those_who_lost_their_right_are_ended() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let postgres = town.superuser("postgres").await;
    postgres.execute_all(&format!("grant connect on database {trip} to {user}_app")).await.unwrap();
    let solution = town.open().await;
    let intruder =
        solution.address(solution.manifest.service(&user).unwrap(), Login::App).unwrap().with_database(&trip);
    let session = connect(&intruder, &Purpose::new("intruder")).await.unwrap();
    town.provision().await;
    assert!(session.simple("select 1").await.is_err(), "a revoke alone leaves the session alive");
}

#[tokio::test]
async fn ten_provisioners_at_once_all_succeed() {
    for admin in [Admin::Superuser, Admin::Creator] {
        let town = Town::new(15, admin).await;
        let mut solutions = Vec::new();
        for _ in 0..10 {
            solutions.push(town.open().await);
        }
        let all = futures_util::future::join_all(solutions.iter_mut().map(|solution| solution.provision(false))).await;
        for done in all {
            done.unwrap_or_else(|error| panic!("{admin:?} {error}: {:?}", error.causes()));
        }
        assert_eq!(town.provision().await, Vec::<String>::new());
        town.migrate().await;
    }
}

#[tokio::test]
async fn extensions_and_schemas_are_made() {
    let town = Town::new(15, Admin::Superuser).await;
    town.write_manifest("", "extensions = [\"pg_trgm\"]\nschema = \"rides\"");
    town.provision().await;
    town.migrate().await;
    let solution = town.open().await;
    let service = solution.manifest.service(&town.service("trip")).unwrap();
    let app = connect(&solution.address(service, Login::App).unwrap(), &Purpose::new("test")).await.unwrap();
    app.execute_all("insert into things (name) values ('in rides')").await.unwrap();
    assert_eq!(app.simple("select name from rides.things where name % 'in rides'").await.unwrap().len(), 1);
    town.write_manifest("", "extensions = [\"no_such_extension\"]");
    let error = town.open().await.provision(false).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("not installed")), "{error} {:?}", error.causes());
}

#[tokio::test]
async fn a_name_that_another_solution_has_is_refused() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let manifest = town.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let other = text.replacen(&town.anchor.name, "another", 1);
    std::fs::write(&manifest, &other).unwrap();
    let error = town.try_open().await.unwrap_err();
    assert!(error.to_string().contains("control database") && error.to_string().contains("is taken"), "{error}");
    std::fs::write(&manifest, other.replace("_control\"", "_other_control\"")).unwrap();
    let error = town.open().await.provision(false).await.unwrap_err();
    assert!(error.causes().iter().any(|cause| cause.contains("is taken")), "{error} {:?}", error.causes());
}

#[tokio::test]
async fn passwords_in_the_control_database_are_encrypted() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let solution = town.open().await;
    let trip = solution.manifest.service(&town.service("trip")).unwrap();
    let address = solution.address(trip, Login::App).unwrap();
    let password = secrecy::ExposeSecret::expose_secret(address.password().unwrap()).to_owned();
    let control = town.superuser(&format!("{}_control", town.anchor.name)).await;
    let rows =
        control.simple("select role, encode(sealed, 'escape'), verifier from control.credentials").await.unwrap();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| (0..3).all(|at| !row.get(at).unwrap().contains(&password))));
    std::fs::remove_file(town.folder.path().join(".pgfleet/key")).unwrap();
    let error = town.try_open().await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("PGFLEET_KEY")), "{error}");
}

#[tokio::test]
async fn a_password_reaches_a_seed_as_an_argon2id_hash_that_stays_the_same() {
    let town = Town::new(15, Admin::Superuser).await;
    let manifest = town.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text + "[seeds.properties]\nadmin_password = \"correct horse\"\n").unwrap();
    let seed = town.folder.path().join(format!("services/{}/seeds/2_admin.sql", town.service("trip")));
    std::fs::write(seed, "insert into things (name) values (:'admin_password');").unwrap();
    town.provision().await;
    town.migrate().await;
    town.migrate().await;
    let inside = town.superuser(&town.service("trip")).await;
    let rows = inside.simple("select name from things").await.unwrap();
    assert_eq!(rows.len(), 1, "the hash is kept, so the seed does not look changed");
    let hash = rows[0].get(0).unwrap();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    assert!(!hash.contains("correct horse"));
}
