//! Seats are booked once each, whoever comes at the same time.

use pgfleet::test::Database;
use sqlx::PgPool;

use crate::support::{book_at_last, offered, start, wanted};

/// Seats and money as the tables have them: available, assigned, booked, and what is paid.
async fn sums(pool: &PgPool) -> (i64, i64, i64, String) {
    let sql = "SELECT (SELECT sum(available_seats) FROM trips), \
                      (SELECT count(*) FROM seat_assignments WHERE NOT is_deleted), \
                      (SELECT coalesce(sum(seat_count), 0) FROM bookings WHERE NOT is_deleted), \
                      (SELECT coalesce(sum(total_price), 0)::text FROM bookings WHERE NOT is_deleted)";
    sqlx::query_as(sql).fetch_one(pool).await.unwrap()
}

#[pgfleet::test(service = masar_trip::service)]
async fn of_twenty_who_book_at_once_five_get_the_five_seats(db: Database) {
    let pool = db.pool().await.unwrap();
    let service = start(&db).await;
    let client = service.client;
    let trip = offered(&client, 5, "12.35").await;
    let bookings: Vec<_> = (0..20).map(|_| tokio::spawn(book_at_last(client, trip.clone(), wanted(1, 1)))).collect();
    let mut seats = Vec::new();
    for booking in bookings {
        let answer = booking.await.unwrap();
        if answer.status == 201 {
            assert_eq!(answer.text("totalPrice"), "12.35");
            seats.extend(answer.json["seatNumbers"].as_array().unwrap().iter().map(|seat| seat.as_i64().unwrap()));
        } else {
            assert_eq!(answer.is(409).text("title"), "no seats left");
        }
    }
    seats.sort_unstable();
    assert_eq!(seats, [1, 2, 3, 4, 5]);
    assert_eq!(sums(&pool).await, (0, 5, 5, "61.75".to_owned()));
    let trip = client.get(&trip).await.is(200);
    assert_eq!((&trip.json["availableSeats"], &trip.json["version"]), (&0.into(), &6.into()));
    service.end().await;
}

#[pgfleet::test(service = masar_trip::service)]
async fn of_those_who_saw_the_same_version_one_books(db: Database) {
    let pool = db.pool().await.unwrap();
    let service = start(&db).await;
    let client = service.client;
    let path = format!("{}/bookings", offered(&client, 60, "1.00").await);
    let bookings: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { client.post(&path, wanted(2, 1)).await })
        })
        .collect();
    let mut won = 0;
    for booking in bookings {
        let answer = booking.await.unwrap();
        if answer.status == 201 {
            won += 1;
        } else {
            assert_eq!(answer.is(409).json["version"], 2);
        }
    }
    assert_eq!(won, 1);
    assert_eq!(sums(&pool).await, (58, 2, 2, "2.00".to_owned()));
    service.end().await;
}

#[pgfleet::test(service = masar_trip::service)]
async fn a_booking_that_is_given_up_leaves_its_seats_to_others(db: Database) {
    let pool = db.pool().await.unwrap();
    let service = start(&db).await;
    let client = service.client;
    let trip = offered(&client, 4, "99999999.99").await;
    let bookings = format!("{trip}/bookings");
    let first = client.post(&bookings, wanted(1, 1)).await.is(201);
    assert_eq!(client.post(&bookings, wanted(2, 2)).await.is(400).text("title"), "that is too much money");
    assert_eq!(client.post(&bookings, wanted(4, 2)).await.is(409).text("title"), "no seats left");
    let _ = client.post(&bookings, wanted(1, 2)).await.is(201);
    assert_eq!(sums(&pool).await, (2, 2, 2, "199999999.98".to_owned()));

    let path = format!("/bookings/{}", first.text("id"));
    let _ = client.delete(&path).await.is(204);
    let _ = client.delete(&path).await.is(404);
    assert_eq!(sums(&pool).await, (3, 1, 1, "99999999.99".to_owned()));
    let mine = client.get(&format!("/passengers/{}/bookings", first.text("passengerId"))).await.is(200);
    assert_eq!(mine.json["items"].as_array().unwrap().len(), 0);
    let again = client.post(&bookings, wanted(1, 4)).await.is(201);
    assert_eq!(again.json["seatNumbers"], first.json["seatNumbers"]);
    let mine = client.get(&format!("/passengers/{}/bookings", again.text("passengerId"))).await.is(200);
    assert_eq!(mine.json["items"], serde_json::json!([again.json]));
    service.end().await;
}

#[pgfleet::test(service = masar_trip::service)]
async fn what_is_over_is_not_booked(db: Database) {
    let pool = db.pool().await.unwrap();
    let service = start(&db).await;
    let client = service.client;
    let path = format!("{}/bookings", offered(&client, 4, "5.00").await);
    sqlx::query("UPDATE trips SET departure_time_utc = '2001-01-01Z'").execute(&pool).await.unwrap();
    assert_eq!(client.post(&path, wanted(1, 1)).await.is(409).text("title"), "the trip can no longer be booked");
    assert_eq!(sums(&pool).await, (4, 0, 0, "0".to_owned()), "nothing was taken");
    let nowhere = format!("/trips/{}/bookings", masar_common::ids::TripId::generate());
    let _ = client.post(&nowhere, wanted(1, 1)).await.is(404);
    service.end().await;
}
