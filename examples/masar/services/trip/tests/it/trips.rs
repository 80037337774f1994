//! Offering and finding trips.

use std::collections::HashSet;

use pgfleet::test::Database;
use serde_json::json;

use crate::support::{offer, start, wanted};

#[pgfleet::test(service = masar_trip::service)]
async fn a_trip_is_found_as_it_was_offered(db: Database) {
    let service = start(&db).await;
    let client = service.client;
    let made = client.post("/trips", offer(4, "12.5")).await.is(201);
    let path = format!("/trips/{}", made.text("id"));
    assert!(made.head.contains(&format!("location: {path}")), "{}", made.head);
    assert_eq!((made.text("price"), made.text("departure")), ("12.50", "2999-01-15T06:00:00Z"));
    assert_eq!((&made.json["totalSeats"], &made.json["version"]), (&json!(4), &json!(1)));
    assert_eq!(client.get(&path).await.is(200).json, made.json);
    let metrics = client.get("/metrics").await.is(200);
    assert!(metrics.text.contains("# TYPE "), "{}", metrics.text);
    service.end().await;
}

#[pgfleet::test(service = masar_trip::service)]
async fn what_is_no_offer_is_refused_with_the_reason(db: Database) {
    let service = start(&db).await;
    let client = service.client;
    for (member, value, reason) in [
        ("driverId", json!("p_0194409ac5d67e7fa071829304b5c601"), "is not the id of a Driver"),
        ("price", json!(12.5), "price"),
        ("price", json!("12.505"), "12.505"),
        ("price", json!("-1"), "below zero"),
        ("departure", json!("2999-01-15T08:00:00"), "departure"),
        ("departure", json!("2001-01-15T08:00:00Z"), "in the future"),
        ("seats", json!(0), "1 to 60"),
        ("from", json!("  "), "a text is missing"),
    ] {
        let mut body = offer(4, "12.50");
        body[member] = value;
        let answer = client.post("/trips", body).await.is(400);
        assert!(answer.head.contains("application/problem+json"), "{}", answer.head);
        assert!(answer.text.contains(reason), "{reason}: {}", answer.text);
    }
    let mut body = wanted(1, 1);
    body["passengerId"] = json!(masar_common::ids::DriverId::generate());
    let path = format!("/trips/{}/bookings", masar_common::ids::TripId::generate());
    let answer = client.post(&path, body).await.is(400);
    assert!(answer.text("detail").contains("is not the id of a Passenger"), "{}", answer.text);
    let answer = client.get("/trips/t_1").await.is(400);
    assert!(answer.text("detail").contains("\"t_1\" is not the id of a Trip"), "{}", answer.text);
    let answer = client.get(&format!("/passengers/{}/bookings", masar_common::ids::DriverId::generate())).await.is(400);
    assert!(answer.text("detail").contains("is not the id of a Passenger"), "{}", answer.text);
    let _ = client.get("/trips?from=Cairo").await.is(400);
    let _ = client.get("/trips?from=Cairo&to=Alexandria&cursor=nonsense").await.is(400);
    let _ = client.get("/nothing").await.is(404);
    service.end().await;
}

#[pgfleet::test(service = masar_trip::service)]
async fn pages_have_every_trip_once_while_others_are_offered(db: Database) {
    let pool = db.pool().await.unwrap();
    let service = start(&db).await;
    let client = service.client;
    // Several depart at the same time.
    sqlx::query(
        "INSERT INTO trips (id, driver_id, vehicle_id, from_city, to_city, departure_time_utc, price, available_seats, \
         total_seats) SELECT 't_' || md5(n::text), 'd_' || md5(n::text), 'v_' || md5(n::text), 'Cairo', 'Alexandria', \
         timestamptz '2999-01-01Z' + (n / 7) * interval '1 hour', 10, 4, 4 FROM generate_series(1, 250) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let there: Vec<String> = sqlx::query_scalar("SELECT id FROM trips").fetch_all(&pool).await.unwrap();
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut path = "/trips?from=Cairo&to=Alexandria&limit=30".to_owned();
    loop {
        let page = client.get(&path).await.is(200);
        for trip in page.json["items"].as_array().unwrap() {
            seen.push((trip["departure"].as_str().unwrap().to_owned(), trip["id"].as_str().unwrap().to_owned()));
        }
        // One before what was read, one behind it.
        for departure in ["2998-12-31T00:00:00Z", "2999-12-31T00:00:00Z"] {
            let mut body = offer(1, "1.00");
            body["departure"] = departure.into();
            let _ = client.post("/trips", body).await.is(201);
        }
        match page.json["next"].as_str() {
            Some(cursor) => path = format!("/trips?from=Cairo&to=Alexandria&limit=30&cursor={cursor}"),
            None => break,
        }
    }
    assert!(seen.is_sorted(), "in the order of departure");
    let ids: HashSet<&String> = seen.iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), seen.len(), "none twice");
    assert!(there.iter().all(|id| ids.contains(id)), "none is missing");
    assert!(seen.iter().all(|(departure, _)| departure > &"2999".to_owned()), "what came before is not behind");
    service.end().await;
}
