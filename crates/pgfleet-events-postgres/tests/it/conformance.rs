//! The suites that every store must pass.

use pgfleet_events_postgres::Store;
use pgfleet_local::testing::TestDatabase;

use crate::place::Place;

async fn store() -> (Store, TestDatabase) {
    let Place { database, store } = Place::new().await;
    (store, database)
}

mod streams {
    pgfleet_events::stream_conformance!(super::store);
}

mod consumers {
    pgfleet_events::consumer_conformance!(super::store);
}

mod configs {
    pgfleet_events::config_conformance!(super::store);
}

mod queues {
    pgfleet_events::queue_conformance!(super::store);
}

mod model {
    pgfleet_events::model_conformance!(super::store);
}
