//! What is done by itself, by one at a time.

mod crash;
mod leading;
mod retention;
mod ticks;

use std::time::Duration;

use pgfleet_events::{Direction, Event, Expected, NewEvent, StreamStore as _};
use pgfleet_events_postgres::{KeeperOptions, Store};
use serde_json::json;

fn events(count: u64) -> Vec<NewEvent> {
    (0..count).map(|number| NewEvent::of("Counted", &json!({ "number": number })).unwrap()).collect()
}

/// What tests run a keeper with: often, and soon replaced.
fn quick() -> KeeperOptions {
    KeeperOptions {
        interval: Duration::from_millis(50),
        lease: Duration::from_secs(1),
        step: 7,
        ..KeeperOptions::default()
    }
}

/// The versions that a stream has.
async fn versions(store: &Store, stream: &str) -> Vec<u64> {
    let read = store.read(stream, 0, Direction::Forward, 100_000).await.unwrap();
    read.iter().map(|event: &Event| event.version).collect()
}

async fn fill(store: &Store, stream: &str, count: u64) {
    store.append(stream, Expected::Any, events(count)).await.unwrap();
}
