//! Passengers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use masar_common::extract::Body;
use masar_common::ids::PassengerId;
use pgfleet::Service;
use pgfleet::http::Problem;
use serde::Serialize;

use crate::accounts::Registration;
use crate::refused::refused;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Passenger {
    id: PassengerId,
    phone_number: String,
    full_name: Option<String>,
}

/// `POST /passengers`
pub(crate) async fn register(
    State(service): State<Service>,
    Body(new): Body<Registration>,
) -> Result<impl IntoResponse, Problem> {
    let id = PassengerId::generate();
    let (phone_number, full_name) = (new.phone_number.as_str(), new.full_name());
    let sql = "INSERT INTO passengers (id, phone_number, full_name) VALUES ($1, $2, $3)";
    service.writer().await?.execute(sql, &[&id, &phone_number, &full_name]).await.map_err(refused)?;
    let passenger = Passenger { id, phone_number: phone_number.to_owned(), full_name: full_name.map(str::to_owned) };
    Ok((StatusCode::CREATED, Json(passenger)))
}
