//! The service as it runs, on a test's database.

use masar_common::ids::{DriverId, PassengerId, VehicleId};
use masar_common::testing::{Answer, Client, Running};
use pgfleet::test::Database;
use serde_json::{Value, json};

pub(crate) async fn start(db: &Database) -> Running {
    Running::start(masar_trip::service().url(db.url()), masar_trip::routes).await
}

pub(crate) fn offer(seats: i32, price: &str) -> Value {
    json!({
        "driverId": DriverId::generate(), "vehicleId": VehicleId::generate(), "from": "Cairo", "to": "Alexandria",
        "departure": "2999-01-15T08:00:00+02:00", "price": price, "seats": seats,
    })
}

pub(crate) fn wanted(seats: i32, version: i64) -> Value {
    json!({ "passengerId": PassengerId::generate(), "seats": seats, "version": version })
}

/// Offers a trip and returns the path of it.
pub(crate) async fn offered(client: &Client, seats: i32, price: &str) -> String {
    let trip = client.post("/trips", offer(seats, price)).await.is(201);
    format!("/trips/{}", trip.text("id"))
}

/// Books as a client does who is told that somebody else was faster: again, with the version that there is now.
pub(crate) async fn book_at_last(client: Client, trip: String, mut wanted: Value) -> Answer {
    loop {
        let answer = client.post(&format!("{trip}/bookings"), wanted.clone()).await;
        match (answer.status, answer.json["version"].as_i64()) {
            (409, Some(version)) => wanted["version"] = version.into(),
            // Others were in the way of all tries.
            (503, _) => {}
            _ => return answer,
        }
    }
}
