//! Projections: rows and offset together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgfleet_events::{Error, ErrorKind, Event, Expected, Filter, NewEvent, StreamStore as _};
use pgfleet_events_postgres::projection::{Handled, Project, Projection};
use pgfleet_postgres::pool::Transaction;
use serde_json::json;

use crate::place::Place;

/// Counts events by stream; fails after its rows when told to.
#[derive(Default)]
struct Counts {
    fail: AtomicBool,
}

impl Project for Counts {
    fn events<'a>(&'a self, transaction: &'a Transaction, events: &'a [Event]) -> Handled<'a> {
        Box::pin(async move {
            for event in events {
                let sql = "INSERT INTO counts VALUES ($1, 1) ON CONFLICT (stream) DO UPDATE SET n = counts.n + 1";
                transaction.execute(sql, &[&&*event.stream]).await.unwrap();
            }
            if self.fail.swap(false, Ordering::AcqRel) {
                return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
            }
            Ok(())
        })
    }

    fn clear<'a>(&'a self, transaction: &'a Transaction) -> Handled<'a> {
        Box::pin(async move {
            transaction.execute("DELETE FROM counts", &[]).await.unwrap();
            Ok(())
        })
    }
}

#[tokio::test]
async fn each_event_counts_once_whatever_fails_in_between() {
    let place = Place::new().await;
    let store = &place.store;
    let db = place.connect().await;
    db.execute_all("CREATE TABLE counts (stream text PRIMARY KEY, n bigint NOT NULL)").await.unwrap();
    let append = async |stream: &str| {
        let event = NewEvent::of("Counted", &json!({})).unwrap();
        store.append(stream, Expected::Any, vec![event.clone(), NewEvent::new("Counted", event.data)]).await.unwrap();
    };
    let total =
        async || -> i64 { db.query("SELECT coalesce(sum(n), 0)::bigint FROM counts", &[]).await.unwrap()[0].get(0) };
    let counts = Arc::new(Counts::default());
    let make = |member: &str| {
        Projection::new(store.clone(), "counts", member, Filter::default(), Arc::clone(&counts) as Arc<dyn Project>)
    };
    let projection = make("a");
    for stream in ["x", "y", "x"] {
        append(stream).await;
    }
    let mut lease = projection.lease().await.unwrap().unwrap();
    counts.fail.store(true, Ordering::Release);
    assert!(projection.step(&mut lease).await.is_err());
    assert_eq!(total().await, 0, "what failed left no rows");
    assert_eq!(projection.step(&mut lease).await.unwrap().events, 6);
    assert_eq!(total().await, 6);
    assert!(make("b").lease().await.unwrap().is_none(), "one at a time");

    append("z").await;
    projection.rebuild().await.unwrap();
    assert_eq!(total().await, 0);
    assert!(projection.step(&mut lease).await.unwrap_err().is_fenced(), "leases have ended");
    let mut lease = projection.lease().await.unwrap().unwrap();
    while !projection.step(&mut lease).await.unwrap().at_end {}
    assert_eq!(total().await, 8);
}

#[tokio::test]
async fn what_may_pass_does_not_end_it_and_what_was_emptied_is_made_anew_at_once() {
    let place = Place::new().await;
    let store = &place.store;
    let db = place.connect().await;
    db.execute_all("CREATE TABLE counts (stream text PRIMARY KEY, n bigint NOT NULL)").await.unwrap();
    let counts = Arc::new(Counts { fail: AtomicBool::new(true) });
    let project = Arc::clone(&counts) as Arc<dyn Project>;
    let projection = Projection::new(store.clone(), "counts", "a", Filter::default(), project);
    store.append("x", Expected::Any, vec![NewEvent::of("Counted", &json!({})).unwrap()]).await.unwrap();
    let counted = async || {
        loop {
            let rows = db.query("SELECT n FROM counts", &[]).await.unwrap();
            if let Some(row) = rows.first() {
                return row.get::<_, i64>(0);
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let followed = async {
        assert_eq!(counted().await, 1, "once, by the second try");
        // It is made anew at once, and not when its lease is renewed.
        let began = std::time::Instant::now();
        projection.rebuild().await.unwrap();
        assert_eq!(counted().await, 1);
        assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    };
    tokio::select! {
        ended = projection.run() => panic!("it has ended: {ended:?}"),
        () = followed => {}
    }
    assert!(!counts.fail.load(Ordering::Acquire), "the first try has failed");
}
