//! The seeder of the guide to services: for the host as the service starts, and for each tenant.

use std::collections::BTreeMap;

use pgfleet::embed::{Folder, Seeds};
use pgfleet_migrate::{Options, SetPath, Target, run};
use pgfleet_postgres::Address;

use crate::support::{Events, column, database, service};

use pgfleet::{Db, Seeder, StepResult};

struct WelcomeSeeder;

impl Seeder for WelcomeSeeder {
    fn name(&self) -> &'static str {
        "0020_welcome"
    }

    fn properties(&self) -> &[&str] {
        &["tenant", "admin_email"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        let email = db.property("admin_email")?;
        let text = match db.tenant() {
            Some(tenant) => format!("Welcome to {tenant}"),
            None => "Welcome".to_owned(),
        };
        let sql = "INSERT INTO mails (tenant_id, recipient, text) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        db.execute(sql, &[&db.tenant(), &email, &text]).await?;
        Ok(())
    }
}

const MAILS: Folder = Folder::new(
    "migrations",
    "pgfleet",
    &[(
        "1_mails.sql",
        "CREATE TABLE mails (tenant_id text, recipient text, text text, UNIQUE (tenant_id, recipient));",
    )],
);

const ALL: &str = "select concat_ws('|', coalesce(tenant_id, '-'), recipient, text) from mails order by 1";

fn own(email: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("admin_email".to_owned(), email.to_owned())])
}

async fn seed(target: &Target, path: &SetPath) -> Vec<String> {
    run::seed(target, path, &Options::default(), &Events::default()).await.unwrap().seeded
}

#[tokio::test]
async fn a_seeder_serves_the_host_and_every_tenant() {
    let host = database().await;
    let builder = || {
        let seeds = Seeds::new("seeds", &[("0010_terms.sql", "INSERT INTO mails VALUES (NULL, 'all', 'Our terms');")]);
        let builder = service(&host, MAILS).seeds(seeds).seeder(WelcomeSeeder);
        builder.property("admin_email", "admin@example.org")
    };
    builder().start().await.unwrap();
    builder().start().await.unwrap();
    let of_host = ["-|admin@example.org|Welcome", "-|all|Our terms"];
    assert_eq!(column(&host, ALL).await, of_host);

    // One without a database of its own gets what is its own in the host's.
    let path = builder().path().unwrap();
    let target = Target::new("trip/acme", Address::parse(&host.url()).unwrap()).shared_by("acme");
    let acme = path.with_properties(&own("ann@acme.test"));
    assert_eq!(seed(&target, &acme).await, ["0020_welcome"]);
    assert_eq!(seed(&target, &acme).await, [""; 0]);
    let both = [of_host[0], of_host[1], "acme|ann@acme.test|Welcome to acme"];
    assert_eq!(column(&host, ALL).await, both);

    // One with a database of its own gets everything there.
    let own_database = database().await;
    let target = Target::new("trip/zeta", Address::parse(&own_database.url()).unwrap()).of_tenant("zeta");
    let zeta = path.with_properties(&own("zoe@zeta.test"));
    let migrated = run::migrate(&target, &zeta, &Options::default(), &Events::default()).await.unwrap();
    assert_eq!(migrated.seeded, ["0010_terms", "0020_welcome"]);
    assert_eq!(column(&own_database, ALL).await, ["-|all|Our terms", "zeta|zoe@zeta.test|Welcome to zeta"]);

    // The service starts as before.
    builder().start().await.unwrap();
    assert_eq!(column(&host, ALL).await, both);
}
