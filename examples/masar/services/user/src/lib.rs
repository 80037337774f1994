//! The user service: drivers, their vehicles, and passengers. Its client is tokio-postgres.

mod accounts;
mod drivers;
mod passengers;
mod refused;
mod vehicles;

use axum::Router;
use axum::routing::{get, post};
use pgfleet::{Builder, Service};

/// What the service needs of its database. The seeds are left to `pgfleet up`: they are rows to try things with.
pub fn service() -> Builder {
    Service::builder("user").migrations(pgfleet::migrations!("migrations"))
}

/// What it answers.
pub fn routes(service: Service) -> Router {
    Router::new()
        .route("/drivers", post(drivers::register).get(drivers::list))
        .route("/drivers/{id}", get(drivers::show).patch(drivers::rename).delete(drivers::remove))
        .route("/drivers/{id}/vehicles", post(vehicles::add))
        .route("/passengers", post(passengers::register))
        .with_state(service)
}
