//! Trips.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use masar_common::Text;
use masar_common::extract::{Body, Path, Query};
use masar_common::ids::{DriverId, TripId, VehicleId};
use pgfleet::Service;
use pgfleet::http::Problem;
use pgfleet::values::{Columns, Key, Keyset, Money, Page, PageQuery, Sql, Table, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use crate::seats::Seats;

/// The trips have a version and no deleted rows: one that does not take place is cancelled.
pub(crate) const TRIPS: Table = Table::new("trips")
    .columns(Columns { updated_at: "updated_at_utc", ..Columns::STANDARD })
    .versioned()
    .without_deleted();

const COLUMNS: &str = "id, driver_id, vehicle_id, from_city, to_city, departure_time_utc, description, price, status, \
                       available_seats, total_seats, version";

/// The order of `ix_trips_from_city_to_city_departure_time_utc`.
const BY_DEPARTURE: Keyset<(Timestamp, TripId)> =
    Keyset::new(&[Key::ascending("departure_time_utc"), Key::ascending("id")]);

/// What can be booked.
pub(crate) const OPEN: &str = "status = 'Scheduled' AND departure_time_utc > CURRENT_TIMESTAMP";

/// A trip, in JSON with the names that JSON has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trip {
    id: TripId,
    driver_id: DriverId,
    vehicle_id: VehicleId,
    from: String,
    to: String,
    departure: Timestamp,
    description: Option<String>,
    price: Money,
    status: String,
    available_seats: i32,
    total_seats: i32,
    version: i64,
}

impl FromRow<'_, PgRow> for Trip {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            driver_id: row.try_get("driver_id")?,
            vehicle_id: row.try_get("vehicle_id")?,
            from: row.try_get("from_city")?,
            to: row.try_get("to_city")?,
            departure: row.try_get("departure_time_utc")?,
            description: row.try_get("description")?,
            price: row.try_get("price")?,
            status: row.try_get("status")?,
            available_seats: row.try_get("available_seats")?,
            total_seats: row.try_get("total_seats")?,
            version: row.try_get("version")?,
        })
    }
}

/// The body of `POST /trips`. Driver and vehicle are in the other service's database: their ids are checked for what
/// they are, not whether they exist.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Offer {
    driver_id: DriverId,
    vehicle_id: VehicleId,
    from: Text<450>,
    to: Text<450>,
    departure: Timestamp,
    description: Option<Text<1000>>,
    price: Money,
    seats: Seats,
}

/// `POST /trips`
pub(crate) async fn offer(
    State(service): State<Service>,
    Body(offer): Body<Offer>,
) -> Result<impl IntoResponse, Problem> {
    if offer.price.is_negative() {
        return Err(Problem::new(400, "a price is not below zero").with("field", "price"));
    }
    if offer.departure <= Timestamp::now() {
        return Err(Problem::new(400, "a trip departs in the future").with("field", "departure"));
    }
    let sql = Sql::new(
        "INSERT INTO trips (id, driver_id, vehicle_id, from_city, to_city, departure_time_utc, description, price, \
         available_seats, total_seats) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) RETURNING",
    )
    .then(COLUMNS);
    let id = TripId::generate();
    let db = service.sqlx().await?;
    let trip: Trip = sqlx::query_as(sql)
        .bind(id)
        .bind(offer.driver_id)
        .bind(offer.vehicle_id)
        .bind(offer.from.as_str())
        .bind(offer.to.as_str())
        .bind(offer.departure)
        .bind(offer.description.as_ref().map(Text::as_str))
        .bind(offer.price)
        .bind(offer.seats.get())
        .fetch_one(&*db)
        .await?;
    db.note_write().await;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/trips/{id}"))], Json(trip)))
}

/// `GET /trips/{id}`
pub(crate) async fn show(State(service): State<Service>, Path(id): Path<TripId>) -> Result<Json<Trip>, Problem> {
    let db = service.sqlx_reader().await?;
    let trip = sqlx::query_as(TRIPS.select(COLUMNS).and("id = $1")).bind(id).fetch_optional(&*db).await?;
    Ok(Json(trip.ok_or_else(|| Problem::new(404, format!("there is no trip {id}")))?))
}

/// What is looked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Route {
    from: String,
    to: String,
}

/// `GET /trips?from=Cairo&to=Alexandria&limit=20&cursor=…`
pub(crate) async fn search(
    State(service): State<Service>,
    Query(route): Query<Route>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Trip>>, Problem> {
    let request = BY_DEPARTURE.request(&query)?;
    // Two placeholders are the statement's own, so those of the page begin with $3.
    let sql = request.sql(TRIPS.select(COLUMNS).and("from_city = $1 AND to_city = $2").and(OPEN), 3);
    let db = service.sqlx_reader().await?;
    let query = sqlx::query_as(sql).bind(route.from).bind(route.to);
    let trips: Vec<Trip> = request.bind(query).fetch_all(&*db).await?;
    Ok(Json(request.page(trips, |trip| (trip.departure, trip.id))))
}
