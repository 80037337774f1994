//! Devices of users.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use masar_common::Text;
use masar_common::extract::{Body, Path};
use masar_common::ids::{DeviceId, PassengerId};
use pgfleet::Service;
use pgfleet::http::Problem;
use serde::{Deserialize, Serialize};

/// The body of `POST /passengers/{id}/devices`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewDevice {
    token: Text<500>,
    platform: Option<Text<50>>,
    app_version: Option<Text<20>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    id: DeviceId,
    passenger_id: PassengerId,
}

/// `POST /passengers/{id}/devices`: a token that is known is taken as the newest one again.
pub(crate) async fn register(
    State(service): State<Service>,
    Path(passenger): Path<PassengerId>,
    Body(new): Body<NewDevice>,
) -> Result<impl IntoResponse, Problem> {
    let sql = "INSERT INTO device_tokens (id, user_id, user_type, device_token, platform, app_version) \
               VALUES ($1, $2, 'passenger', $3, $4, $5) \
               ON CONFLICT (user_id, device_token) DO UPDATE SET \
                   platform = EXCLUDED.platform, app_version = EXCLUDED.app_version, is_active = true, \
                   updated_at_utc = CURRENT_TIMESTAMP \
               RETURNING id";
    let (user, token) = (passenger.to_string(), new.token.as_str());
    let platform = new.platform.as_ref().map(Text::as_str);
    let version = new.app_version.as_ref().map(Text::as_str);
    let writer = service.writer().await?;
    let row = writer.query_one(sql, &[&DeviceId::generate(), &user, &token, &platform, &version]).await?;
    Ok((StatusCode::CREATED, Json(Device { id: row.try_get(0)?, passenger_id: passenger })))
}
