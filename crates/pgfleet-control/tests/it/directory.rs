//! What a service can read of the tenants, and what it cannot; and putting in a new key.

use pgfleet_control::directory::read_as_service;
use pgfleet_control::manifest::Service;
use pgfleet_control::seal::{KeyRing, SealKey};
use pgfleet_control::solution::Surroundings;
use pgfleet_control::tenants::Choices;
use pgfleet_control::{Error, Solution};
use pgfleet_postgres::{Connection, Purpose, Type, connect};
use secrecy::{ExposeSecret as _, SecretString};

use crate::support::{Admin, Town};
use crate::tenants::{create, silent, string};

const TWO: &str = "[services.{}_trip]\ntenants = \"own\"\n[services.{}_user]\ntenants = \"own\"\nschema = \"users\"\n\
                   [services.{}_log]\n[connections]\nRides = \"{}_trip\"\nPeople = \"{}_user\"\n";

/// A service as it asks: its session in the control database and its keys.
pub(crate) async fn as_service(solution: &Solution, service: &str) -> (Connection, KeyRing) {
    let service: &Service = solution.manifest.service(service).unwrap();
    let variables = solution.tenant_variables(service).unwrap();
    let [(url_name, url), (key_name, key)] = variables.as_slice() else { panic!("{} variables", variables.len()) };
    assert!(url_name.ends_with("_CONTROL_URL") && key_name.ends_with("_KEY"), "{url_name} {key_name}");
    let address = pgfleet_postgres::Address::parse(url.expose_secret()).unwrap();
    let connection = connect(&address, &Purpose::new("test service")).await.unwrap();
    (connection, KeyRing::parse(key, key_name).unwrap())
}

/// The strings that a service reads: `tenant/connection=text`, sorted.
pub(crate) async fn strings(solution: &Solution, service: &str) -> Vec<String> {
    let (connection, keys) = as_service(solution, service).await;
    let mut all: Vec<String> = read_as_service(&connection, &keys)
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()))
        .into_iter()
        .map(|(tenant, state, string)| match string {
            Some((name, text)) => format!("{tenant}/{name}={}", text.expose_secret()),
            None => format!("{tenant} {state}"),
        })
        .collect();
    all.sort();
    all
}

pub(crate) async fn version(solution: &Solution, service: &str) -> i64 {
    let (connection, _) = as_service(solution, service).await;
    connection.query("SELECT pgfleet_directory.version()", &[]).await.unwrap()[0].get(0)
}

fn unseen() -> Choices {
    Choices { check: false, shared: false }
}

#[tokio::test]
async fn a_service_reads_its_own_strings_and_no_table() {
    for (major, admin) in [(15, Admin::Superuser), (18, Admin::Creator)] {
        let town = Town::new(major, admin).await;
        town.manifest(TWO);
        town.provision().await;
        assert_eq!(town.provision().await, Vec::<String>::new(), "{major}: a second run finds nothing to do");
        let solution = town.open().await;
        let (trip, user) = (town.service("trip"), town.service("user"));
        create(&solution, "plain", &[]).await.unwrap();
        let given = [
            string("", "dbname=a"),
            string(&trip, "dbname=t"),
            string(&user, "dbname=u"),
            string("Rides", "dbname=r"),
            string("People", "dbname=p"),
        ];
        solution.create_tenant("acme", None, &given, unseen(), &silent()).await.unwrap();
        assert_eq!(
            strings(&solution, &trip).await,
            [
                "acme/=dbname=a".to_owned(),
                "acme/Rides=dbname=r".into(),
                format!("acme/{trip}=dbname=t"),
                "plain active".into()
            ]
        );
        assert_eq!(
            strings(&solution, &user).await,
            [
                "acme/=dbname=a".to_owned(),
                "acme/People=dbname=p".into(),
                format!("acme/{user}=dbname=u"),
                "plain active".into()
            ]
        );
        let (session, keys) = as_service(&solution, &trip).await;
        let (_, others) = as_service(&solution, &user).await;
        assert!(read_as_service(&session, &others).await.unwrap_err().to_string().contains("is missing"));
        // Whoever it pretends to be, the one who logged in is asked.
        let refused = session.simple(&format!("set role {user}_app")).await.unwrap_err();
        assert_eq!(refused.sql_state(), Some("42501"));
        let control = town.superuser(&town.service("control")).await;
        let tables = control
            .simple("select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('control', 'pgfleet')")
            .await
            .unwrap();
        assert!(tables.len() >= 10);
        for table in tables.iter().map(|row| row.get(0).unwrap()) {
            for sql in [format!("select * from {table}"), format!("delete from {table}")] {
                assert_eq!(session.simple(&sql).await.unwrap_err().sql_state(), Some("42501"), "{sql}");
            }
        }
        for sql in [
            "select control.calling_service()",
            "create table mine (id int)",
            "create table pgfleet_directory.mine (id int)",
            "create temporary table mine (id int)",
            "create schema mine",
        ] {
            assert_eq!(session.simple(sql).await.unwrap_err().sql_state(), Some("42501"), "{major}: {sql}");
        }
        assert_eq!(read_as_service(&session, &keys).await.unwrap().len(), 4);
        // A service without tenants does not get in at all, nor does another role of one that has.
        for role in [format!("{}_app", town.service("log")), format!("{trip}_migrator"), format!("{trip}_readonly")] {
            let sql = format!("select has_database_privilege('{role}', current_database(), 'CONNECT')");
            assert_eq!(control.simple(&sql).await.unwrap()[0].get(0), Some("f"), "{role}");
        }
        // Somebody who may enter, and speaks for nobody, is told so.
        let error = control.simple("select pgfleet_directory.version()").await.unwrap_err();
        assert!(error.server().unwrap().message.contains("speaks for no service"), "{error:?}");
    }
}

#[tokio::test]
async fn several_provisioners_at_once_share_the_same() {
    let town = Town::new(15, Admin::Creator).await;
    town.manifest(TWO);
    let mut solutions = Vec::new();
    for _ in 0..5 {
        solutions.push(town.open().await);
    }
    let all = futures_util::future::join_all(solutions.iter_mut().map(|solution| solution.provision(false))).await;
    for done in all {
        done.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    }
    assert_eq!(town.provision().await, Vec::<String>::new());
    let solution = town.open().await;
    create(&solution, "acme", &[]).await.unwrap();
    assert_eq!(strings(&solution, &town.service("trip")).await, ["acme active"]);
}

#[tokio::test]
async fn a_member_of_a_services_role_speaks_for_the_service() {
    let town = Town::new(15, Admin::Superuser).await;
    town.manifest(TWO);
    town.provision().await;
    let solution = town.open().await;
    create(&solution, "acme", &[]).await.unwrap();
    let trip = town.service("trip");
    let postgres = town.superuser("postgres").await;
    postgres.execute_all(&format!("create role {trip}_b login password 'x' in role {trip}_app")).await.unwrap();
    let url = format!("postgresql://{trip}_b:x@127.0.0.1:{}/{}", town.server.port(), town.service("control"));
    let session = crate::support::open(&url).await;
    assert_eq!(session.simple("select * from pgfleet_directory.tenants()").await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_version_grows_with_what_concerns_the_service() {
    let town = Town::new(15, Admin::Superuser).await;
    town.manifest(TWO);
    town.provision().await;
    let solution = town.open().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let mut last = (version(&solution, &trip).await, version(&solution, &user).await);
    let mut grown = async |what: &str| {
        let now = (version(&solution, &trip).await, version(&solution, &user).await);
        let grown = (now.0 > last.0, now.1 > last.1);
        assert!(now.0 >= last.0 && now.1 >= last.1, "{what}");
        last = now;
        grown
    };
    create(&solution, "acme", &[]).await.unwrap();
    assert_eq!(grown("create").await, (true, true));
    let given = string(&trip, "dbname=t");
    solution.set_connection("acme", given.clone(), unseen(), &silent()).await.unwrap();
    assert_eq!(grown("a string for trip").await, (true, false));
    solution.unset_connection("acme", &trip).await.unwrap();
    assert_eq!(grown("taken away").await, (true, false));
    solution.enable_tenant("acme", false).await.unwrap();
    assert_eq!(grown("disabled").await, (true, true));
    solution.enable_tenant("acme", false).await.unwrap();
    town.provision().await;
    let error = create(&solution, "acme", &[]).await;
    assert!(error.is_err());
    assert_eq!(grown("nothing").await, (false, false));
    // A control database that is made anew does not begin at an older version.
    let postgres = town.superuser("postgres").await;
    postgres.execute_all(&format!("drop database {} with (force)", town.service("control"))).await.unwrap();
    town.provision().await;
    let solution = town.open().await;
    assert!(version(&solution, &trip).await > last.0);
}

#[tokio::test]
async fn provisioning_gives_a_later_service_its_strings_and_takes_them_from_one_that_left() {
    let town = Town::new(15, Admin::Superuser).await;
    town.manifest(&TWO.replace("[services.{}_user]\ntenants = \"own\"\n", "[services.{}_user]\n"));
    town.provision().await;
    let solution = town.open().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let given = [string("", "dbname=a"), string(&trip, "dbname=t")];
    solution.create_tenant("acme", None, &given, unseen(), &silent()).await.unwrap();
    town.manifest(TWO);
    let dry: Vec<String> = {
        let done = town.open().await.provision(true).await.unwrap();
        done.into_iter().flat_map(|server| server.statements).map(|statement| statement.sql).collect()
    };
    let ran = town.provision().await;
    assert_eq!(dry, ran, "a dry run shows what a run does");
    assert!(ran.iter().any(|sql| sql.contains("GRANT USAGE ON SCHEMA pgfleet_directory")), "{ran:?}");
    let solution = town.open().await;
    assert_eq!(strings(&solution, &user).await, ["acme/=dbname=a"]);
    // A name that moves takes its string along.
    solution.set_connection("acme", string("Rides", "dbname=r"), unseen(), &silent()).await.unwrap();
    town.manifest(&TWO.replace("Rides = \"{}_trip\"", "Rides = \"{}_user\""));
    town.provision().await;
    let solution = town.open().await;
    assert_eq!(strings(&solution, &user).await, ["acme/=dbname=a", "acme/Rides=dbname=r"]);
    assert_eq!(strings(&solution, &trip).await, ["acme/=dbname=a".to_owned(), format!("acme/{trip}=dbname=t")]);
    // One that left reads nothing any more, and is put out.
    let (session, _) = as_service(&solution, &user).await;
    town.manifest(&TWO.replace("[services.{}_user]\ntenants = \"own\"\n", "[services.{}_user]\n"));
    town.provision().await;
    assert!(session.simple("select * from pgfleet_directory.tenants()").await.is_err());
    let control = town.superuser(&town.service("control")).await;
    let left = control.simple(&format!("select 1 from control.service_strings where service = '{user}'")).await;
    assert!(left.unwrap().is_empty());
    assert_eq!(town.provision().await, Vec::<String>::new());
}

#[tokio::test]
async fn who_uses_a_module_of_another_service_reads_the_strings_that_lead_there() {
    let town = Town::new(15, Admin::Superuser).await;
    let uses = "[services.{}_trip]\ntenants = \"own\"\nuses = [\"{}_user:people\"]\n[services.{}_user]\n\
                tenants = \"own\"\nschema = \"users\"\nmodules = [\"people\"]\n[modules.people]\nconnection = \"People\"\nschema = \"people\"\n\
                [connections]\nPeople = \"{}_user\"\n";
    town.manifest(uses);
    town.provision().await;
    let solution = town.open().await;
    let (trip, user) = (town.service("trip"), town.service("user"));
    let given = [string(&user, "dbname=u"), string("People", "dbname=p")];
    solution.create_tenant("acme", None, &given, unseen(), &silent()).await.unwrap();
    assert_eq!(strings(&solution, &trip).await, ["acme/People=dbname=p".to_owned(), format!("acme/{user}=dbname=u")]);
}

#[tokio::test]
async fn a_service_on_another_server_asks_with_the_same_role() {
    let town = Town::new(15, Admin::Superuser).await;
    let other = pgfleet_local::testing::TestServer::shared_version(18).await;
    // From now on what has a name of ours stays there, too.
    other.empty_name().await;
    let sections = format!(
        "[servers.other]\nurl = \"{}\"\n[services.{{}}_trip]\nserver = \"other\"\ntenants = \"own\"\n\
         [services.{{}}_user]\nserver = \"main\"\n",
        other.superuser_url("postgres")
    );
    town.manifest(&sections);
    town.provision().await;
    assert_eq!(town.provision().await, Vec::<String>::new());
    let solution = town.open().await;
    create(&solution, "acme", &[]).await.unwrap();
    let trip = town.service("trip");
    assert_eq!(strings(&solution, &trip).await, ["acme active"]);
    let postgres = town.superuser("postgres").await;
    postgres.execute_all(&format!("alter role {trip}_app password 'somebody elses'")).await.unwrap();
    assert!(!town.provision().await.is_empty());
    assert_eq!(strings(&solution, &trip).await, ["acme active"]);
    let there = crate::support::open(&other.superuser_url("postgres")).await;
    there.execute_all(&format!("drop database {trip}")).await.unwrap();
}

fn surroundings(key: &SecretString, old: Option<&SecretString>) -> Surroundings {
    Surroundings { key: Some(key.clone()), old_key: old.cloned(), ..Surroundings::default() }
}

async fn provision_with(town: &Town, surroundings: &Surroundings) -> Result<usize, Error> {
    let mut solution = town.open_with(surroundings).await?;
    let done = solution.provision(false).await?;
    Ok(done.iter().map(|server| server.statements.len()).sum())
}

/// How many rows of each table are under each of these keys.
async fn under(control: &Connection, key: &SealKey) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in ["credentials", "tenant_strings", "tenant_properties"] {
        let sql = format!("select count(*) from control.{table} where key_id = '{}'", key.id());
        counts.push(control.query(&sql, &[]).await.unwrap()[0].get(0));
    }
    counts
}

#[tokio::test]
async fn a_new_key_takes_the_place_of_the_old_one() {
    let town = Town::new(15, Admin::Superuser).await;
    town.manifest(TWO);
    let (old, new) = (SealKey::generate().unwrap(), SealKey::generate().unwrap());
    let (old_key, new_key) = (SealKey::parse(&old).unwrap(), SealKey::parse(&new).unwrap());
    provision_with(&town, &surroundings(&old, None)).await.unwrap();
    let solution = town.open_with(&surroundings(&old, None)).await.unwrap();
    let trip = town.service("trip");
    for number in 0..4 {
        let given = [string("", format!("dbname=d{number}"))];
        solution.create_tenant(&format!("t{number}"), None, &given, unseen(), &silent()).await.unwrap();
    }
    let before = strings(&solution, &trip).await;
    let control = town.superuser(&town.service("control")).await;
    let email = SecretString::from("admin@acme.example");
    let sealed = solution.keys().unwrap().seal(&email, "tenant/t0/property/admin_email").unwrap();
    control
        .execute(
            "insert into control.tenant_properties (tenant, name, key_id, sealed) values ('t0', 'admin_email', $1, $2)",
            &[(&old_key.id(), Type::TEXT), (&sealed, Type::BYTEA)],
        )
        .await
        .unwrap();
    let all = under(&control, &old_key).await;
    assert_eq!((all[0] > 0, &all[1..]), (true, &[4, 1][..]));

    // The new key alone reads nothing, and says which key is missing.
    let alone = town.open_with(&surroundings(&new, None)).await.unwrap_err();
    assert!(alone.to_string().contains(old_key.id()), "{alone}");
    assert!(alone.hint().unwrap().contains("PGFLEET_KEY_OLD"));

    // The service gets both keys before anything is sealed anew, and reads.
    let both = surroundings(&new, Some(&old));
    let solution = town.open_with(&both).await.unwrap();
    let (session, keys) = as_service(&solution, &trip).await;
    assert_eq!(read_as_service(&session, &keys).await.unwrap().len(), 4);
    assert_eq!(strings(&solution, &trip).await, before);
    // What is stored meanwhile is under the new key: the rows are mixed, and read all the same.
    let given = [string("", "dbname=d4")];
    solution.create_tenant("t4", None, &given, unseen(), &silent()).await.unwrap();
    assert_eq!(read_as_service(&session, &keys).await.unwrap().len(), 5);

    // A crash between two rows: somebody holds the last row, and we are killed waiting for it.
    let holder = town.superuser(&town.service("control")).await;
    holder.execute_all("begin; select 1 from control.tenant_strings where tenant = 't3' for update").await.unwrap();
    let crashing = provision_with(&town, &both);
    let killing = async {
        let find = "select pg_terminate_backend(pid) from pg_stat_activity \
                    where datname = current_database() and wait_event_type = 'Lock'";
        let began = std::time::Instant::now();
        while control.simple(find).await.unwrap().is_empty() {
            assert!(began.elapsed().as_secs() < 30, "nobody waits for the row");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let (crashed, ()) = tokio::join!(crashing, killing);
    assert!(crashed.is_err());
    holder.execute_all("rollback").await.unwrap();
    assert_eq!(under(&control, &old_key).await, all, "nothing is half done");
    assert_eq!(read_as_service(&session, &keys).await.unwrap().len(), 5);

    // Once more, to the end; the service goes on without having been told.
    assert!(provision_with(&town, &both).await.unwrap() > 0);
    assert_eq!(under(&control, &old_key).await, [0, 0, 0]);
    assert_eq!(under(&control, &new_key).await, [all[0], 5, 1]);
    let property = control.query("select key_id, sealed from control.tenant_properties", &[]).await.unwrap();
    let new_keys = town.open_with(&surroundings(&new, None)).await.unwrap().keys().unwrap();
    let opened = new_keys.open(property[0].get(0), property[0].get(1), "tenant/t0/property/admin_email").unwrap();
    assert_eq!(opened.expose_secret(), email.expose_secret());
    assert_eq!(provision_with(&town, &both).await.unwrap(), 0, "a second run finds nothing to do");
    assert_eq!(read_as_service(&session, &keys).await.unwrap().len(), 5);
    let only_old = KeyRing::new(old_key.of_service(&trip).unwrap(), Vec::new());
    let error = read_as_service(&session, &only_old).await.unwrap_err();
    assert!(error.to_string().contains(new_key.of_service(&trip).unwrap().id()), "{error}");
    // The old key can go.
    assert_eq!(provision_with(&town, &surroundings(&new, None)).await.unwrap(), 0);
    let mut with_new = strings(&town.open_with(&surroundings(&new, None)).await.unwrap(), &trip).await;
    with_new.retain(|line| !line.starts_with("t4"));
    assert_eq!(with_new, before);
}
