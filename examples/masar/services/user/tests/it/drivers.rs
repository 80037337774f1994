//! Drivers, their vehicles, and passengers.

use std::collections::HashSet;

use masar_common::ids::{DriverId, PassengerId};
use masar_common::testing::Running;
use pgfleet::test::Database;
use serde_json::json;

async fn start(db: &Database) -> Running {
    Running::start(masar_user::service().url(db.url()), masar_user::routes).await
}

#[pgfleet::test(service = masar_user::service)]
async fn a_driver_is_registered_renamed_and_deleted(db: Database) {
    let service = start(&db).await;
    let client = service.client;
    let omar = json!({ "phoneNumber": "+201000000001", "fullName": " Omar Hassan " });
    let made = client.post("/drivers", omar.clone()).await.is(201);
    assert_eq!((made.text("fullName"), &made.json["isActive"]), ("Omar Hassan", &json!(true)));
    let path = format!("/drivers/{}", made.text("id"));
    assert!(made.head.contains(&format!("location: {path}")), "{}", made.head);
    assert_eq!(client.get(&path).await.is(200).json, made.json);

    let renamed = client.send("PATCH", &path, Some(json!({ "fullName": "Omar H." }))).await.is(200);
    assert_eq!(renamed.text("fullName"), "Omar H.");
    assert!(renamed.text("updatedAt") > made.text("updatedAt"));

    let plate = json!({ "plateNumber": "CAI-1", "make": "Kia", "model": "Carnival", "seatCount": 7 });
    let vehicles = format!("{path}/vehicles");
    let vehicle = client.post(&vehicles, plate.clone()).await.is(201);
    assert_eq!((vehicle.text("driverId"), vehicle.text("plateNumber")), (made.text("id"), "CAI-1"));
    assert_eq!(client.post(&vehicles, plate.clone()).await.is(409).text("field"), "plateNumber");
    let mut large = plate.clone();
    large["seatCount"] = 61.into();
    assert_eq!(client.post(&vehicles, large).await.is(400).text("field"), "seatCount");

    let _ = client.delete(&path).await.is(204);
    let _ = client.delete(&path).await.is(404);
    let _ = client.get(&path).await.is(404);
    let _ = client.send("PATCH", &path, Some(json!({ "fullName": "x" }))).await.is(404);
    let _ = client.post(&vehicles, plate).await.is(404);
    assert_eq!(client.get("/drivers").await.is(200).json["items"], json!([]));
    let left =
        "SELECT count(*) FROM drivers d JOIN vehicles v ON v.driver_id = d.id WHERE d.is_deleted AND v.is_deleted";
    let row = db.connect().await.unwrap().into_client().query_one(left, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1, "nothing is lost");
    // The number stays taken until the row is gone.
    assert_eq!(client.post("/drivers", omar).await.is(409).text("field"), "phoneNumber");
    service.end().await;
}

#[pgfleet::test(service = masar_user::service)]
async fn a_phone_number_registers_once(db: Database) {
    let service = start(&db).await;
    let client = service.client;
    let salma = json!({ "phoneNumber": "+201100000001" });
    for path in ["/drivers", "/passengers"] {
        let made = client.post(path, salma.clone()).await.is(201);
        assert_eq!(made.json["fullName"], json!(null));
        let again = client.post(path, salma.clone()).await.is(409);
        assert!(again.head.contains("application/problem+json"), "{}", again.head);
        assert_eq!((again.text("title"), again.text("field")), ("the phone number is taken", "phoneNumber"));
        for wrong in [json!("0100"), json!("+20110000000x"), json!(null)] {
            let _ = client.post(path, json!({ "phoneNumber": wrong })).await.is(400);
        }
    }
    service.end().await;
}

#[pgfleet::test(service = masar_user::service)]
async fn what_is_no_drivers_id_is_refused_with_the_reason(db: Database) {
    let service = start(&db).await;
    for id in
        ["nonsense".to_owned(), PassengerId::generate().to_string(), DriverId::generate().to_string().to_uppercase()]
    {
        let answer = service.client.get(&format!("/drivers/{id}")).await.is(400);
        assert!(answer.head.contains("application/problem+json"), "{}", answer.head);
        assert!(answer.text("detail").contains("is not the id of a Driver: d_ and 32 digits"), "{}", answer.text);
    }
    let _ = service.client.get(&format!("/drivers/{}", DriverId::generate())).await.is(404);
    service.end().await;
}

#[pgfleet::test(service = masar_user::service)]
async fn pages_have_every_driver_once_while_others_register_and_leave(db: Database) {
    let service = start(&db).await;
    let client = service.client;
    let connection = db.connect().await.unwrap().into_client();
    let sql = "INSERT INTO drivers (id, phone_number) VALUES ($1, $2)";
    let mut there = Vec::new();
    for number in 0..250 {
        let id = DriverId::generate();
        connection.execute(sql, &[&id, &format!("+2010000{number:05}")]).await.unwrap();
        there.push(id.to_string());
    }
    let mut seen: Vec<String> = Vec::new();
    let mut deleted = HashSet::new();
    let mut path = "/drivers?limit=40".to_owned();
    let mut oldest = there.iter();
    for page in 0.. {
        let answer = client.get(&path).await.is(200);
        let ids =
            answer.json["items"].as_array().unwrap().iter().map(|driver| driver["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        // A new one, before what was read; the last one that was read goes, and the last one of all.
        let _ = client.post("/drivers", json!({ "phoneNumber": format!("+2011000{page:05}") })).await.is(201);
        for id in [seen.last().unwrap().clone(), oldest.next().unwrap().clone()] {
            if deleted.insert(id.clone()) {
                let _ = client.delete(&format!("/drivers/{id}")).await.is(204);
            }
        }
        match answer.json["next"].as_str() {
            Some(cursor) => path = format!("/drivers?limit=40&cursor={cursor}"),
            None => break,
        }
    }
    assert!(seen.is_sorted_by(|newer, older| newer > older), "the newest first, none twice");
    let seen: HashSet<&String> = seen.iter().collect();
    assert!(there.iter().all(|id| seen.contains(id) || deleted.contains(id)), "none is missing");
    assert!(seen.iter().all(|id| there.contains(id)), "none that came later");
    assert!(there[..3].iter().all(|id| !seen.contains(id)), "deleted ones are not listed");
    service.end().await;
}
