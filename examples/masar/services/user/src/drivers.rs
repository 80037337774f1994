//! Drivers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use masar_common::Text;
use masar_common::extract::{Body, Path, Query};
use masar_common::ids::DriverId;
use pgfleet::http::Problem;
use pgfleet::values::{Key, Keyset, Page, PageQuery, Sql, Table, Timestamp};
use pgfleet::{Service, Tx};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::accounts::Registration;
use crate::refused::refused;

/// Deleted drivers stay in the table and are not seen.
const DRIVERS: Table = Table::new("drivers");

const COLUMNS: &str = "id, phone_number, full_name, is_active, created_at, updated_at";

/// The newest first: ids are made in the order of time, and the primary key has an index in that order.
const NEWEST: Keyset<(DriverId,)> = Keyset::new(&[Key::descending("id")]);

/// A driver, in JSON with the names that JSON has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Driver {
    id: DriverId,
    phone_number: String,
    full_name: Option<String>,
    is_active: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<&Row> for Driver {
    type Error = tokio_postgres::Error;

    fn try_from(row: &Row) -> Result<Self, Self::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            phone_number: row.try_get("phone_number")?,
            full_name: row.try_get("full_name")?,
            is_active: row.try_get("is_active")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// `POST /drivers`
pub(crate) async fn register(
    State(service): State<Service>,
    Body(new): Body<Registration>,
) -> Result<impl IntoResponse, Problem> {
    let sql = Sql::new("INSERT INTO drivers (id, phone_number, full_name) VALUES ($1, $2, $3) RETURNING").then(COLUMNS);
    let id = DriverId::generate();
    let db = service.writer().await?;
    let row = db.query_one(&sql, &[&id, &new.phone_number.as_str(), &new.full_name()]).await.map_err(refused)?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/drivers/{id}"))], Json(Driver::try_from(&row)?)))
}

/// `GET /drivers/{id}`
pub(crate) async fn show(State(service): State<Service>, Path(id): Path<DriverId>) -> Result<Json<Driver>, Problem> {
    let row = service.reader().await?.query_opt(&DRIVERS.select(COLUMNS).and("id = $1"), &[&id]).await?;
    let row = row.ok_or_else(|| unknown(id))?;
    Ok(Json(Driver::try_from(&row)?))
}

/// `GET /drivers?limit=20&cursor=…`
pub(crate) async fn list(
    State(service): State<Service>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Driver>>, Problem> {
    let request = NEWEST.request(&query)?;
    // The statement has no placeholder of its own, so those of the page begin with $1.
    let sql = request.sql(DRIVERS.select(COLUMNS), 1);
    let rows = service.reader().await?.query(&sql, &request.parameters(&[])).await?;
    let drivers = rows.iter().map(Driver::try_from).collect::<Result<_, _>>()?;
    Ok(Json(request.page(drivers, |driver: &Driver| (driver.id,))))
}

/// The body of `PATCH /drivers/{id}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rename {
    full_name: Text<256>,
}

/// `PATCH /drivers/{id}`
pub(crate) async fn rename(
    State(service): State<Service>,
    Path(id): Path<DriverId>,
    Body(new): Body<Rename>,
) -> Result<Json<Driver>, Problem> {
    let sql = Sql::new(
        "UPDATE drivers SET full_name = $2, updated_at = CURRENT_TIMESTAMP WHERE id = $1 AND NOT is_deleted RETURNING",
    )
    .then(COLUMNS);
    let db = service.writer().await?;
    let row = db.query_opt(&sql, &[&id, &new.full_name.as_str()]).await?;
    let row = row.ok_or_else(|| unknown(id))?;
    Ok(Json(Driver::try_from(&row)?))
}

/// `DELETE /drivers/{id}`, with the vehicles
pub(crate) async fn remove(State(service): State<Service>, Path(id): Path<DriverId>) -> Result<StatusCode, Problem> {
    let tx = service.begin().await?;
    if tx.execute(&DRIVERS.soft_delete(), &[&id]).await? == 0 {
        // Dropping the transaction rolls it back.
        return Err(unknown(id));
    }
    let sql = "UPDATE vehicles SET is_deleted = true, deleted_at = CURRENT_TIMESTAMP, updated_at = CURRENT_TIMESTAMP \
               WHERE driver_id = $1 AND NOT is_deleted";
    tx.execute(sql, &[&id]).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks that there is a driver, and that nobody deletes him before the transaction ends.
pub(crate) async fn hold(tx: &Tx, id: DriverId) -> Result<(), Problem> {
    let sql = DRIVERS.select("id").and("id = $1").then("FOR SHARE");
    match tx.query_opt(&sql, &[&id]).await? {
        Some(_) => Ok(()),
        None => Err(unknown(id)),
    }
}

fn unknown(id: DriverId) -> Problem {
    Problem::new(404, format!("there is no driver {id}"))
}
