//! Templates: made once, brought to new files beside themselves, copied while that happens.

use pgfleet_control::catalogue::Catalogue;
use pgfleet_control::plans::Plans;
use pgfleet_control::templates::{Shape, Template};
use pgfleet_control::{Error, Solution};
use pgfleet_postgres::{Connection, Purpose, connect};

use crate::support::{Admin, Town, open};
use crate::tenants::silent;

const TWO: &str = "[services.{}_trip]\ntenants = \"own\"\nschema = \"trips\"\n\
                   [services.{}_user]\ntenants = \"own\"\nschema = \"users\"\n";

async fn town(major: u32, admin: Admin) -> Town {
    let town = Town::new(major, admin).await;
    town.manifest(TWO);
    town.provision().await;
    town
}

/// What the tests ask of a solution, with what belongs to it.
struct Work {
    solution: Solution,
    catalogue: Catalogue,
    admin: Connection,
}

impl Work {
    async fn of(town: &Town) -> Self {
        let solution = town.open().await;
        let address = solution.server("main").admin.clone();
        let catalogue = Catalogue::open(&address, &solution.manifest.control.database).await.unwrap();
        Self { admin: connect(&address, &Purpose::new("test")).await.unwrap(), solution, catalogue }
    }

    fn shape(&self) -> Shape {
        let shapes = Shape::all(&self.solution.manifest, &[]).unwrap();
        assert_eq!(shapes.len(), 1);
        shapes[0].1.clone()
    }

    async fn plans(&self) -> Plans {
        self.solution.plans(&[], &silent()).await.unwrap()
    }

    async fn ensure(&self) -> Result<Template, Error> {
        let plans = self.plans().await;
        self.solution.ensure_template(&self.catalogue, "main", &self.shape(), &plans, &silent()).await
    }

    async fn copy(&self, template: &Template, database: &str) -> Result<bool, Error> {
        let copied = self.solution.copy_template(&self.admin, template, &self.shape(), "acme", database).await;
        copied.map(|copied| copied.made)
    }

    async fn column(&self, sql: &str) -> Vec<String> {
        let rows = self.admin.simple(sql).await.unwrap();
        rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
    }
}

fn migration(town: &Town, short: &str, name: &str, sql: &str) {
    let folder = town.folder.path().join("services").join(town.service(short)).join("migrations");
    std::fs::write(folder.join(name), sql).unwrap();
}

async fn made_and_copied(major: u32, admin: Admin) {
    let town = town(major, admin).await;
    let work = Work::of(&town).await;
    let template = work.ensure().await.unwrap();
    assert_eq!(work.ensure().await.unwrap().oid, template.oid, "it is made once");
    let acme = town.service("acme");
    assert!(work.copy(&template, &acme).await.unwrap());
    assert!(!work.copy(&template, &acme).await.unwrap(), "what a process left is gone on with");
    // As the services' own roles: each in its schema, with the history that came along.
    let (trip, user) = (town.service("trip"), town.service("user"));
    for (service, schema) in [(&trip, "trips"), (&user, "users")] {
        let own = work.solution.services(std::slice::from_ref(service)).unwrap()[0].clone();
        let address = work.solution.address(&own, pgfleet_control::roles::Login::App).unwrap().with_database(&acme);
        let session = connect(&address, &Purpose::new("test")).await.unwrap();
        session.execute_all(&format!("insert into {schema}.things (name) values ('x')")).await.unwrap();
        let rows = session.simple(&format!("select version from pgfleet.\"{service}_migrations\"")).await.unwrap();
        assert_eq!(rows[0].get(0), Some("1"), "the history came along");
        let other = if schema == "trips" { "users" } else { "trips" };
        let refused = session.simple(&format!("select * from {other}.things")).await.unwrap_err();
        assert_eq!(refused.sql_state(), Some("42501"), "one service's role reads nothing of another's");
    }
    let closed = "select datallowconn::text || has_database_privilege('public', oid, 'connect')::text \
                  from pg_database where datname = ";
    assert_eq!(work.column(&format!("{closed}'{}'", template.database)).await, ["falsefalse"]);
    assert_eq!(work.column(&format!("{closed}'{acme}'")).await, ["truefalse"]);
}

#[tokio::test]
async fn a_template_is_made_once_and_copied() {
    made_and_copied(15, Admin::Superuser).await;
}

#[tokio::test]
async fn a_template_needs_no_superuser() {
    made_and_copied(18, Admin::Creator).await;
}

#[tokio::test]
async fn a_template_is_brought_to_new_files_and_a_failure_leaves_the_old_one() {
    let town = town(15, Admin::Superuser).await;
    let work = Work::of(&town).await;
    let old = work.ensure().await.unwrap();
    migration(&town, "trip", "2_more.sql", "alter table things add column more int;");
    let new = work.ensure().await.unwrap();
    assert_ne!((new.oid, &new.plan), (old.oid, &old.plan));
    assert_eq!(new.database, old.database);
    work.copy(&new, &town.service("acme")).await.unwrap();
    let session = open(&town.server.superuser_url(&town.service("acme"))).await;
    session.simple("select more from trips.things").await.unwrap();
    // A file that fails: what is there stays, and can be copied.
    migration(&town, "trip", "3_bad.sql", "alter table nothing add column more int;");
    let error = work.ensure().await.unwrap_err();
    assert!(error.causes().iter().any(|cause| cause.contains("nothing")), "{:?}", error.causes());
    work.copy(&new, &town.service("globex")).await.unwrap();
    // One that was edited: the copy of the old one cannot be migrated, so it is made from nothing.
    migration(&town, "trip", "3_bad.sql", "select 1;");
    migration(&town, "trip", "2_more.sql", "alter table things add column another int;");
    let anew = work.ensure().await.unwrap();
    work.copy(&anew, &town.service("initech")).await.unwrap();
    let session = open(&town.server.superuser_url(&town.service("initech"))).await;
    session.simple("select another from trips.things").await.unwrap();
    let listed = work.solution.templates().await.unwrap();
    assert_eq!((listed.len(), listed[0].current), (1, Some(true)));
    let left = format!("select datname from pg_database where datname like '{}%template%'", town.anchor.name);
    assert_eq!(work.column(&left).await, [anew.database], "nothing is left beside it");
}

#[tokio::test]
async fn a_template_that_was_dropped_is_made_again() {
    let town = town(15, Admin::Superuser).await;
    let work = Work::of(&town).await;
    let first = work.ensure().await.unwrap();
    work.admin.execute_all(&format!("alter database {} is_template false", first.database)).await.unwrap();
    work.admin.execute_all(&format!("drop database {}", first.database)).await.unwrap();
    assert_ne!(work.ensure().await.unwrap().oid, first.oid);
    // As a process leaves it that dies between the two names.
    let next = format!("{}_next", first.database);
    work.admin.execute_all(&format!("create database {next}")).await.unwrap();
    migration(&town, "user", "2_more.sql", "alter table things add column more int;");
    work.ensure().await.unwrap();
    assert!(work.column(&format!("select datname from pg_database where datname = '{next}'")).await.is_empty());
}

#[tokio::test]
async fn a_database_of_somebody_else_is_not_taken() {
    let town = town(15, Admin::Superuser).await;
    let work = Work::of(&town).await;
    let template = work.ensure().await.unwrap();
    let taken = town.database("taken", None).await;
    let error = work.copy(&template, &taken).await.unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    assert_eq!(error.causes(), ["nobody marked it"]);
}

#[tokio::test]
async fn copies_go_on_while_the_template_is_brought_to_new_files() {
    let town = town(15, Admin::Superuser).await;
    let work = Work::of(&town).await;
    let template = work.ensure().await.unwrap();
    migration(&town, "trip", "2_more.sql", "alter table things add column more int;");
    let copying = async {
        let mut copied = 0;
        while copied < 8 {
            work.copy(&template, &format!("{}_{copied}", town.anchor.name)).await.unwrap();
            copied += 1;
        }
    };
    // Two at once make one.
    let other = Work::of(&town).await;
    let third = Work::of(&town).await;
    let (first, second, ()) = tokio::join!(other.ensure(), third.ensure(), copying);
    assert_eq!(first.unwrap().oid, second.unwrap().oid);
}
