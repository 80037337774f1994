//! The bus database.

use pgfleet_brokers::{Options, Postgres};
use pgfleet_local::testing::{TestDatabase, TestServer};

async fn bus() -> (Postgres, TestDatabase) {
    let database = TestServer::shared().await.database().await;
    let url = database.url();
    pgfleet_brokers::postgres::migrate(&pgfleet_postgres::Address::parse(&url).unwrap()).await.unwrap();
    (Postgres::new(&url.into(), &Options::default()).unwrap(), database)
}

mod conformance {
    pgfleet_events::transport_conformance!(super::bus);
}
