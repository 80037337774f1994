//! The trip service: trips that drivers offer, and the seats that passengers book. Its client is sqlx.

mod bookings;
mod seats;
mod trips;

use axum::Router;
use axum::routing::{delete, get, post};
use pgfleet::{Builder, Module, Service};

/// What the service needs of its database. The seeds are left to `pgfleet up`: they are rows to try things with.
pub fn service() -> Builder {
    Service::builder("trip").module(Module::outbox()).migrations(pgfleet::migrations!("migrations"))
}

/// What it answers.
pub fn routes(service: Service) -> Router {
    Router::new()
        .route("/trips", post(trips::offer).get(trips::search))
        .route("/trips/{id}", get(trips::show))
        .route("/trips/{id}/bookings", post(bookings::book))
        .route("/bookings/{id}", delete(bookings::give_up))
        .route("/passengers/{id}/bookings", get(bookings::of_passenger))
        .with_state(service)
}
