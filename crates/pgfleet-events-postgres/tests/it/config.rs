//! Configurations, and what is removed by itself.

use std::time::Duration;

use pgfleet_events::{
    ConfigStore as _, Direction, Expected, NewEvent, Retention, RetentionPolicy, StreamConfig, StreamKind,
    StreamStore as _,
};
use serde_json::json;

use crate::place::Place;

fn events(count: u64) -> Vec<NewEvent> {
    (0..count).map(|number| NewEvent::of("Counted", &json!({ "number": number })).unwrap()).collect()
}

#[tokio::test]
async fn what_is_configured_is_found_by_the_longest_pattern() {
    let place = Place::new().await;
    let store = &place.store;
    let mut wide = StreamConfig::new("trip-*", StreamKind::Stream);
    wide.retention.max_age = Some(Duration::from_hours(48));
    wide.index_data = true;
    store.configure(&wide).await.unwrap();
    store.configure(&wide).await.unwrap();
    let indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'event_streaming' AND indexdef LIKE '% gin %'";
    let count = async || place.connect().await.query(indexes, &[]).await.unwrap()[0].get::<_, i64>(0);
    assert_eq!(count().await, 1);
    let found = store.config("trip-7", StreamKind::Stream).await.unwrap();
    assert_eq!((found.retention, &*found.name), (wide.retention, "trip-7"));
    assert_eq!(store.configs().await.unwrap(), [wide]);
    assert!(store.unconfigure("trip-*", StreamKind::Stream).await.unwrap());
    assert_eq!(count().await, 0);
    let found = store.config("trip-7", StreamKind::Stream).await.unwrap();
    assert_eq!(found, StreamConfig::new("trip-7", StreamKind::Stream));
}

#[tokio::test]
async fn what_goes_beyond_the_limits_is_removed_and_versions_go_on() {
    let place = Place::new().await;
    let store = &place.store;
    for stream in ["a-1", "a-2", "b"] {
        store.append(stream, Expected::Any, events(10)).await.unwrap();
    }
    let policy = |name: &str, streams: &str, retention| RetentionPolicy {
        name: name.into(),
        streams: streams.into(),
        retention,
        enabled: true,
    };
    let counted = policy("few", "a-*", Retention { max_count: Some(4), ..Retention::default() });
    store.set_policy(&counted).await.unwrap();
    let removed = store.apply_retention().await.unwrap();
    assert_eq!((removed.streams, removed.events), (2, 12));
    let info = store.info("a-1").await.unwrap().unwrap();
    assert_eq!((info.first, info.last, info.length), (7, 10, 4));
    let old = policy("old", "b", Retention { max_age: Some(Duration::ZERO), ..Retention::default() });
    store.set_policy(&old).await.unwrap();
    assert_eq!(store.apply_retention().await.unwrap().events, 10);
    assert_eq!(store.append("b", Expected::Any, events(1)).await.unwrap().first, 11);
    assert_eq!(store.policies().await.unwrap(), [counted, old]);
    let bytes = policy("old", "b", Retention { max_bytes: Some(30), ..Retention::default() });
    store.set_policy(&bytes).await.unwrap();
    store.append("b", Expected::Any, events(3)).await.unwrap();
    store.apply_retention().await.unwrap();
    let left = store.read("b", 0, Direction::Forward, 10).await.unwrap();
    assert_eq!(left.iter().map(|event| event.version).collect::<Vec<_>>(), [13, 14]);
    assert!(store.remove_policy("old").await.unwrap());
}
