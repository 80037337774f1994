//! A booking in the one service is told by the other one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use masar_common::ids::{DriverId, PassengerId, VehicleId};
use masar_common::testing::{Answer, Client, Running};
use pgfleet::messages::{InProcess, Transport};
use pgfleet::test::Database;
use serde_json::json;

/// Asks until something was told.
async fn told(client: Client, passenger: &str, number: usize) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = client.get(&format!("/passengers/{passenger}/notifications")).await.is(200);
        if answer.json["items"].as_array().unwrap().len() >= number {
            return answer;
        }
        assert!(Instant::now() < deadline, "nothing is told: {answer:?}");
        tokio::task::yield_now().await;
    }
}

#[pgfleet::test(service = masar_notifications::service)]
async fn a_booking_is_told_once_and_on_the_newest_device(db: Database) {
    let bus: Arc<dyn Transport> = Arc::new(InProcess::new());
    let trips = db.beside(&masar_trip::service()).await.unwrap();
    let notifications = Running::start(
        masar_notifications::service().url(db.url()).transport(bus.clone()),
        masar_notifications::routes,
    )
    .await;
    let trip = Running::start(masar_trip::service().url(trips.url()).transport(bus), masar_trip::routes).await;

    let passenger = PassengerId::generate().to_string();
    let devices = format!("/passengers/{passenger}/devices");
    let old = notifications.client.post(&devices, json!({ "token": "old" })).await.is(201);
    let new = notifications.client.post(&devices, json!({ "token": "new", "platform": "ios" })).await.is(201);
    assert_ne!(old.text("id"), new.text("id"));
    // A device that comes back is the newest one, and the same as before.
    assert_eq!(notifications.client.post(&devices, json!({ "token": "old" })).await.is(201).text("id"), old.text("id"));
    let _ = notifications.client.post(&devices, json!({ "token": "" })).await.is(400);

    let offer = json!({
        "driverId": DriverId::generate(), "vehicleId": VehicleId::generate(), "from": "Cairo", "to": "Alexandria",
        "departure": "2999-01-15T08:00:00+02:00", "price": "90.00", "seats": 3,
    });
    let offered = trip.client.post("/trips", offer).await.is(201);
    let book = format!("/trips/{}/bookings", offered.text("id"));
    let wanted = json!({ "passengerId": passenger, "seats": 2, "version": 1 });
    let booking = trip.client.post(&book, wanted.clone()).await.is(201);
    // What is refused is not told.
    let _ = trip.client.post(&book, wanted).await.is(409);
    let one = json!({ "passengerId": passenger, "seats": 1, "version": 2 });
    let second = trip.client.post(&book, one).await.is(201);

    let told = told(notifications.client, &passenger, 2).await;
    let items = told.json["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{told:?}");
    // The newest first.
    assert_eq!(items[0]["bookingId"], second.json["id"]);
    assert_eq!(items[1]["bookingId"], booking.json["id"]);
    assert_eq!(items[1]["body"], "Cairo to Alexandria, 2 seats");
    assert_eq!(items[0]["body"], "Cairo to Alexandria, 1 seat");
    let on = db.connect().await.unwrap().into_client();
    let row = on.query_one("SELECT count(*) FROM notifications WHERE device_token_id = $1", &[&old.text("id")]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 2, "both went to the newest device");
    trip.end().await;
    notifications.end().await;
}
