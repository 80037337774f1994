//! What users were told.

use axum::Json;
use axum::extract::State;
use masar_common::extract::{Path, Query};
use masar_common::ids::{NotificationId, PassengerId};
use pgfleet::Service;
use pgfleet::http::Problem;
use pgfleet::values::{Key, Keyset, Page, PageQuery, Table, Timestamp};
use serde::Serialize;
use tokio_postgres::Row;

/// Notifications that were deleted stay in the table and are not seen.
const NOTIFICATIONS: Table = Table::new("notifications");

const COLUMNS: &str = "id, title, body, status, created_at, data->>'booking_id' AS booking_id";

/// The order of `ix_notifications_user_id_created_at`, from its end.
const NEWEST: Keyset<(Timestamp, NotificationId)> =
    Keyset::new(&[Key::descending("created_at"), Key::descending("id")]);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notification {
    id: NotificationId,
    title: String,
    body: String,
    status: String,
    created_at: Timestamp,
    booking_id: Option<String>,
}

impl Notification {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            title: row.try_get("title")?,
            body: row.try_get("body")?,
            status: row.try_get("status")?,
            created_at: row.try_get("created_at")?,
            booking_id: row.try_get("booking_id")?,
        })
    }
}

/// `GET /passengers/{id}/notifications?limit=20&cursor=…`
pub(crate) async fn of_passenger(
    State(service): State<Service>,
    Path(passenger): Path<PassengerId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Notification>>, Problem> {
    let request = NEWEST.request(&query)?;
    let sql = request.sql(NOTIFICATIONS.select(COLUMNS).and("user_id = $1"), 2);
    let user = passenger.to_string();
    let mut reader = service.reader().await?;
    let rows = reader.query(&sql, &request.parameters(&[&user])).await?;
    let read: Vec<Notification> = rows.iter().map(Notification::read).collect::<Result<_, _>>()?;
    Ok(Json(request.page(read, |notification| (notification.created_at, notification.id))))
}
