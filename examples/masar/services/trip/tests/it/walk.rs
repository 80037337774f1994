//! Both services: a driver registers, offers a trip, and a passenger books it.

use masar_common::testing::Running;
use pgfleet::test::Database;
use serde_json::json;

use crate::support::{offer, start};

#[pgfleet::test(service = masar_trip::service)]
async fn from_the_registration_to_the_booking(db: Database) {
    let users = db.beside(&masar_user::service()).await.unwrap();
    let user = Running::start(masar_user::service().url(users.url()), masar_user::routes).await;
    let trip = start(&db).await;

    let omar = json!({ "phoneNumber": "+201000000001", "fullName": "Omar Hassan" });
    let driver = user.client.post("/drivers", omar).await.is(201);
    let bus = json!({ "plateNumber": "CAI-1001", "make": "Toyota", "model": "HiAce", "seatCount": 12 });
    let vehicle = user.client.post(&format!("/drivers/{}/vehicles", driver.text("id")), bus).await.is(201);
    let passenger = user.client.post("/passengers", json!({ "phoneNumber": "+201100000001" })).await.is(201);

    let mut body = offer(12, "180.00");
    body["driverId"] = driver.text("id").into();
    body["vehicleId"] = vehicle.text("id").into();
    let _ = trip.client.post("/trips", body).await.is(201);
    let found = trip.client.get("/trips?from=Cairo&to=Alexandria").await.is(200);
    let found = &found.json["items"][0];
    let wanted = json!({ "passengerId": passenger.text("id"), "seats": 2, "version": found["version"] });
    let path = format!("/trips/{}/bookings", found["id"].as_str().unwrap());
    let booking = trip.client.post(&path, wanted).await.is(201);
    assert_eq!((booking.text("totalPrice"), &booking.json["seatNumbers"]), ("360.00", &json!([1, 2])));
    user.end().await;
    trip.end().await;
}
