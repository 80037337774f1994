//! Vehicles.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use masar_common::Text;
use masar_common::extract::{Body, Path};
use masar_common::ids::{DriverId, VehicleId};
use pgfleet::Service;
use pgfleet::http::Problem;
use serde::{Deserialize, Serialize};

use crate::drivers;
use crate::refused::refused;

/// The body of `POST /drivers/{id}/vehicles`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewVehicle {
    plate_number: Text<20>,
    make: Text<100>,
    model: Text<100>,
    color: Option<Text<50>>,
    seat_count: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Vehicle {
    id: VehicleId,
    driver_id: DriverId,
    #[serde(flatten)]
    what: NewVehicle,
}

/// `POST /drivers/{id}/vehicles`
pub(crate) async fn add(
    State(service): State<Service>,
    Path(driver): Path<DriverId>,
    Body(new): Body<NewVehicle>,
) -> Result<impl IntoResponse, Problem> {
    let id = VehicleId::generate();
    let tx = service.begin().await?;
    drivers::hold(&tx, driver).await?;
    let sql = "INSERT INTO vehicles (id, driver_id, plate_number, make, model, color, seat_count) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (plate_number, make, model) = (new.plate_number.as_str(), new.make.as_str(), new.model.as_str());
    let color = new.color.as_ref().map(Text::as_str);
    tx.execute(sql, &[&id, &driver, &plate_number, &make, &model, &color, &new.seat_count]).await.map_err(refused)?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(Vehicle { id, driver_id: driver, what: new })))
}
