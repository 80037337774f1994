//! Bookings: seats of a trip, and what they cost.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use masar_common::extract::{Body, Path, Query};
use masar_common::ids::{BookingId, PassengerId, SeatId, TripId};
use masar_common::messages::BookingConfirmed;
use pgfleet::Service;
use pgfleet::http::Problem;
use pgfleet::values::{Key, Keyset, Money, Page, PageQuery, Retry, Table};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};

use crate::seats::Seats;
use crate::trips::{OPEN, TRIPS};

/// Bookings that were given up stay in the table and are not seen.
const BOOKINGS: Table = Table::new("bookings");

const COLUMNS: &str = "id, trip_id, passenger_id, total_price, status, \
                       ARRAY(SELECT seat_number FROM seat_assignments \
                             WHERE booking_id = bookings.id AND NOT is_deleted ORDER BY 1) AS seat_numbers";

const NEWEST: Keyset<(BookingId,)> = Keyset::new(&[Key::descending("id")]);

/// What one transaction does must hold whatever another one does at the same time.
const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

/// A booking, in JSON with the names that JSON has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Booking {
    id: BookingId,
    trip_id: TripId,
    passenger_id: PassengerId,
    total_price: Money,
    status: String,
    seat_numbers: Vec<i32>,
}

impl FromRow<'_, PgRow> for Booking {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            trip_id: row.try_get("trip_id")?,
            passenger_id: row.try_get("passenger_id")?,
            total_price: row.try_get("total_price")?,
            status: row.try_get("status")?,
            seat_numbers: row.try_get("seat_numbers")?,
        })
    }
}

/// The body of `POST /trips/{id}/bookings`: with the version of the trip that the passenger has seen.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wanted {
    passenger_id: PassengerId,
    seats: Seats,
    version: i64,
}

/// `POST /trips/{id}/bookings`
pub(crate) async fn book(
    State(service): State<Service>,
    Path(trip): Path<TripId>,
    Body(wanted): Body<Wanted>,
) -> Result<impl IntoResponse, Problem> {
    let db = service.sqlx().await?;
    // When two are in each other's way the server undoes one of them, and that one is done again from its beginning.
    let mut tries = Retry::default().tries();
    let booking = loop {
        let mut tx = db.begin_with(BEGIN).await?;
        let booked = take_seats(&service, &mut tx, trip, &wanted).await;
        if let Some(done) = tries.end(tx, booked).await {
            break done?;
        }
    };
    db.note_write().await;
    Ok((StatusCode::CREATED, Json(booking)))
}

async fn take_seats(
    service: &Service,
    tx: &mut PgConnection,
    trip: TripId,
    wanted: &Wanted,
) -> Result<Booking, Problem> {
    let seats = wanted.seats.get();
    // The trip first, and only in the version that the passenger has seen; the answer to a conflict has the present one.
    let row = sqlx::query(TRIPS.update("available_seats = available_seats - $3"))
        .bind(trip)
        .bind(wanted.version)
        .bind(seats)
        .fetch_optional(&mut *tx)
        .await
        .map_err(refused)?;
    TRIPS.updated(row.as_ref(), wanted.version)?;
    let open: Option<(Money, String, String)> =
        sqlx::query_as(TRIPS.select("price, from_city, to_city").and("id = $1").and(OPEN))
            .bind(trip)
            .fetch_optional(&mut *tx)
            .await?;
    let (price, from, to) = open.ok_or_else(|| Problem::new(409, "the trip can no longer be booked"))?;
    let total = price.checked_mul(seats.into()).ok_or_else(|| Problem::new(400, "that is too much money"))?;

    let booking = BookingId::generate();
    sqlx::query(
        "INSERT INTO bookings (id, trip_id, passenger_id, seat_count, total_price, status) \
         VALUES ($1, $2, $3, $4, $5, 'Confirmed')",
    )
    .bind(booking)
    .bind(trip)
    .bind(wanted.passenger_id)
    .bind(seats)
    .bind(total)
    .execute(&mut *tx)
    .await?;
    let ids: Vec<SeatId> = (0..seats).map(|_| SeatId::generate()).collect();
    // The lowest numbers that are free.
    let assigned = sqlx::query(
        "INSERT INTO seat_assignments (id, trip_id, booking_id, seat_number) \
         SELECT ids.id, $1, $2, free.number \
         FROM (SELECT number, row_number() OVER (ORDER BY number) AS at \
               FROM generate_series(1, (SELECT total_seats FROM trips WHERE id = $1)) AS number \
               WHERE number NOT IN (SELECT seat_number FROM seat_assignments WHERE trip_id = $1 AND NOT is_deleted)) AS free \
         JOIN unnest($3::text[]) WITH ORDINALITY AS ids (id, at) USING (at)",
    )
    .bind(trip)
    .bind(booking)
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    if assigned.rows_affected() != u64::from(seats.unsigned_abs()) {
        return Err(Problem::new(409, "no seats left"));
    }
    // In the same transaction: told if and only if it is booked.
    let told =
        BookingConfirmed { booking_id: booking, trip_id: trip, passenger_id: wanted.passenger_id, seats, from, to };
    service.outbox().publish(&mut *tx, &told).await?;
    Ok(sqlx::query_as(BOOKINGS.select(COLUMNS).and("id = $1")).bind(booking).fetch_one(tx).await?)
}

/// Says in the request's words what the database refuses because of it.
fn refused(error: sqlx::Error) -> Problem {
    let error = pgfleet::Error::from(error);
    match error.constraint() {
        Some("ck_trips_available_seats") => Problem::new(409, "no seats left"),
        _ => error.into(),
    }
}

/// `DELETE /bookings/{id}`
pub(crate) async fn give_up(
    State(service): State<Service>,
    Path(booking): Path<BookingId>,
) -> Result<StatusCode, Problem> {
    let db = service.sqlx().await?;
    let mut tries = Retry::default().tries();
    loop {
        let mut tx = db.begin_with(BEGIN).await?;
        let given = give_back(&mut tx, booking).await;
        if let Some(done) = tries.end(tx, given).await {
            done?;
            break;
        }
    }
    db.note_write().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn give_back(tx: &mut PgConnection, booking: BookingId) -> Result<(), Problem> {
    let given: Option<(TripId, i32)> = sqlx::query_as(BOOKINGS.soft_delete().then("RETURNING trip_id, seat_count"))
        .bind(booking)
        .fetch_optional(&mut *tx)
        .await?;
    let (trip, seats) = given.ok_or_else(|| Problem::new(404, format!("there is no booking {booking}")))?;
    sqlx::query(
        "UPDATE seat_assignments \
         SET is_deleted = true, deleted_at = CURRENT_TIMESTAMP, updated_at = CURRENT_TIMESTAMP WHERE booking_id = $1",
    )
    .bind(booking)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE trips SET available_seats = available_seats + $2, version = version + 1, \
         updated_at_utc = CURRENT_TIMESTAMP WHERE id = $1",
    )
    .bind(trip)
    .bind(seats)
    .execute(tx)
    .await?;
    Ok(())
}

/// `GET /passengers/{id}/bookings?limit=20&cursor=…`
pub(crate) async fn of_passenger(
    State(service): State<Service>,
    Path(passenger): Path<PassengerId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Booking>>, Problem> {
    let request = NEWEST.request(&query)?;
    let sql = request.sql(BOOKINGS.select(COLUMNS).and("passenger_id = $1"), 2);
    let db = service.sqlx_reader().await?;
    let bookings: Vec<Booking> = request.bind(sqlx::query_as(sql).bind(passenger)).fetch_all(&*db).await?;
    Ok(Json(request.page(bookings, |booking| (booking.id,))))
}
