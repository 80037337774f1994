//! Groups: leases, fences, offsets.

use std::time::Duration;

use pgfleet_events::{ConsumerStore as _, Expected, Filter, NewEvent, Position, StreamStore as _};
use serde_json::json;

use crate::place::{Place, until};

const LONG: Duration = Duration::from_mins(1);

async fn filled(place: &Place, count: u64) {
    for number in 0..count {
        let event = NewEvent::of("Counted", &json!({ "number": number })).unwrap();
        place.store.append(&format!("s-{number}"), Expected::Any, vec![event]).await.unwrap();
    }
}

#[tokio::test]
async fn members_share_the_parts_and_take_over_those_of_the_gone() {
    let place = Place::new().await;
    let store = &place.store;
    let lease = async |member: &str, time| store.lease("g", member, 5, Position::START, time).await.unwrap();
    assert_eq!(lease("a", LONG).await.len(), 5);
    assert_eq!(lease("b", LONG).await.len(), 0, "a has all of them still");
    let kept = lease("a", LONG).await;
    assert_eq!(kept.len(), 3, "a gives up what is b's share");
    let taken = lease("b", LONG).await;
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|lease| lease.epoch == 2) && kept.iter().all(|lease| lease.epoch == 1));
    store.leave("g", "a").await.unwrap();
    assert_eq!(lease("b", LONG).await.len(), 5);
    let error = store.lease("g", "b", 4, Position::START, LONG).await.unwrap_err();
    assert_eq!(error.kind(), pgfleet_events::ErrorKind::Invalid);
}

#[tokio::test]
async fn who_wakes_after_his_lease_changes_nothing() {
    let place = Place::new().await;
    let store = &place.store;
    filled(&place, 4).await;
    let page = store.read_all(Position::START, 10, &Filter::default()).await.unwrap();
    let old = store.lease("g", "a", 1, Position::START, Duration::from_millis(20)).await.unwrap().remove(0);
    store.commit(&old, page.events[0].position.unwrap()).await.unwrap();
    let mut new = None;
    until("the lease has ended", async || {
        new = store.lease("g", "b", 1, Position::START, LONG).await.unwrap().pop();
        new.is_some()
    })
    .await;
    let new = new.unwrap();
    assert_eq!(new.position, page.events[0].position.unwrap());
    assert!(store.commit(&old, page.events[3].position.unwrap()).await.unwrap_err().is_fenced());
    store.commit(&new, page.events[1].position.unwrap()).await.unwrap();
    let offsets = store.offsets(Some("g")).await.unwrap();
    assert_eq!(offsets[0].position, page.events[1].position.unwrap());
    assert_eq!((offsets[0].lag, offsets[0].oldest), (Some(2), Some(page.events[2].at)));
    store.reset("g", Position::START).await.unwrap();
    assert!(store.commit(&new, page.next).await.unwrap_err().is_fenced());
    assert_eq!(store.offsets(None).await.unwrap()[0].lag, Some(4));
    assert!(store.forget("g").await.unwrap() && !store.forget("g").await.unwrap());
}

#[tokio::test]
async fn an_offset_in_a_transaction_is_stored_with_what_it_led_to() {
    let place = Place::new().await;
    let store = &place.store;
    filled(&place, 2).await;
    let head = store.head().await.unwrap();
    let lease = store.lease("g", "a", 1, Position::START, LONG).await.unwrap().remove(0);
    let pool = crate::place::pool(&place.database.url(), 2);
    let transaction = pool.begin().await.unwrap();
    store.commit_in(&transaction, &lease, head).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(store.offsets(Some("g")).await.unwrap()[0].position, Position::START);
    let transaction = pool.begin().await.unwrap();
    store.commit_in(&transaction, &lease, head).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(store.offsets(Some("g")).await.unwrap()[0].lag, Some(0));
}

#[tokio::test]
async fn a_filter_takes_the_part_that_it_names() {
    let place = Place::new().await;
    filled(&place, 60).await;
    let mut seen = 0;
    for part in 0..3 {
        let filter = Filter { part: Some((part, 3)), ..Filter::default() };
        let page = place.store.read_all(Position::START, 100, &filter).await.unwrap();
        assert!(page.events.iter().all(|event| filter.wants(event)));
        seen += page.events.len();
    }
    assert_eq!(seen, 60);
}
