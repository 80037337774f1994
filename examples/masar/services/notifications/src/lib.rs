//! The notifications service: the devices that users have, and what they were told. What there is to tell arrives as
//! messages of other services.

mod booked;
mod devices;
mod history;

use axum::Router;
use axum::routing::{get, post};
use pgfleet::{Builder, Module, Service};

/// What the service needs of its database, and what it handles. The seeds are left to `pgfleet up`: they are rows to try
/// things with.
pub fn service() -> Builder {
    Service::builder("notifications")
        .module(Module::inbox())
        .migrations(pgfleet::migrations!("migrations"))
        .handle(booked::TellPassenger)
}

/// What it answers.
pub fn routes(service: Service) -> Router {
    Router::new()
        .route("/passengers/{id}/devices", post(devices::register))
        .route("/passengers/{id}/notifications", get(history::of_passenger))
        .with_state(service)
}
