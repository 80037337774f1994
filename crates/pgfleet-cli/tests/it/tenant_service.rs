//! From `tenant create` to a connection inside a service: what `up` hands a service is all that it needs.

use std::collections::BTreeMap;

use pgfleet::embed::Folder;
use pgfleet::{Error, Scope, Service};

use crate::support::{Solution, until};

const TRIPS: Folder = Folder::new(
    "m",
    "pgfleet",
    &[("1_trips.up.sql", "create table trips (id int primary key);\n"), ("1_trips.down.sql", "drop table trips;\n")],
);

async fn database(service: &Service, tenant: &str) -> Result<String, Error> {
    let work = async {
        let db = service.writer().await?;
        db.execute("INSERT INTO trips VALUES (1) ON CONFLICT DO NOTHING", &[]).await?;
        Ok(db.query_one("SELECT current_database()::text", &[]).await?.get(0))
    };
    Scope::tenant(tenant).run(Box::pin(work)).await
}

#[tokio::test]
async fn a_service_that_up_starts_serves_its_tenants() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    solution.manifest(&format!("[services.{trip}]\ntenants = \"own\"\nschema = \"trip\"\nrun = \"env > trip.env\"\n"));
    solution.pgfleet("up").exits(0);
    let variables: BTreeMap<String, String> = std::fs::read_to_string(solution.folder.path().join("trip.env"))
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    let variable = |what: &str| variables[&format!("PGFLEET_{}_{what}", trip.to_uppercase())].clone();
    // The same for whoever starts it without `up`; shown only when that is asked for.
    let told = solution.pgfleet("connection env --service {}_trip --reveal").exits(0);
    for what in ["URL", "CONTROL_URL", "KEY", "SCHEMA"] {
        let name = format!("PGFLEET_{}_{what}", trip.to_uppercase());
        assert!(told.out.lines().any(|line| line == format!("{name}='{}'", variables[&name])), "{name}");
    }
    let hidden = solution.pgfleet("connection env --service {}_trip").exits(0).prints("_KEY='***'");
    assert!(hidden.out.lines().all(|line| line.ends_with("='***'")), "{}", hidden.out);
    solution.sql("CREATE DATABASE \"{}_acme\"").await;
    let acme = solution.name("acme");
    solution.pgfleet("tenant create acme --connection dbname={}_acme").exits(0);
    solution.pgfleet("tenant create globex --no-database").exits(0);

    let service = Service::builder(&trip)
        .migrations(TRIPS)
        .schema(variable("SCHEMA"))
        .url(variable("URL"))
        .tenants(variable("CONTROL_URL"), variable("KEY"))
        .start()
        .await
        .unwrap();
    assert_eq!(database(&service, "globex").await.unwrap(), trip);
    let error = database(&service, "acme").await.unwrap_err();
    assert_eq!(error.status(), 503, "{error:#}");
    assert!(error.to_string().contains("tenant acme is not ready"), "{error}");
    assert_eq!(database(&service, "nobody").await.unwrap_err().status(), 404);

    // Somebody migrates it, and lets the service in.
    let owner = solution.server.superuser_url(&acme);
    Service::builder(&trip).migrations(TRIPS).schema("trip").migrator_url(&owner).start().await.unwrap();
    crate::support::column(
        &owner,
        &format!(
            "GRANT USAGE ON SCHEMA trip, pgfleet TO {trip}_app; GRANT ALL ON trip.trips TO {trip}_app; \
         GRANT SELECT ON ALL TABLES IN SCHEMA pgfleet TO {trip}_app"
        ),
    )
    .await;
    until("acme is served", async || database(&service, "acme").await.is_ok_and(|found| found == acme)).await;
    solution.pgfleet("connection explain --service {}_trip --tenant acme").exits(0).prints("tenant-default");

    solution.pgfleet("tenant disable acme").exits(0);
    until("acme is refused", async || database(&service, "acme").await.is_err_and(|error| error.status() == 403)).await;
    solution.pgfleet("tenant enable acme").exits(0);
    until("acme is served again", async || database(&service, "acme").await.is_ok()).await;
    solution.pgfleet("tenant set-connection acme --unset").exits(0);
    until("acme is in the host's", async || database(&service, "acme").await.is_ok_and(|found| found == trip)).await;
}
