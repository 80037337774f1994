//! What every store and every transport must keep, as tests that run on any of them.
//!
//! Each rule is a function of its own, and each macro makes a `#[test]` of each rule of a suite. A suite is given a function
//! that makes a store; it returns the store and whatever must live as long (a database that is dropped at the end, or
//! `()`). The rules use names that nobody else uses, so stores may stand on one database. Put each suite into a module of its
//! own:
//!
//! ```
//! mod streams {
//!     async fn store() -> (pgfleet_events::Memory, ()) {
//!         (pgfleet_events::Memory::new(), ())
//!     }
//!     pgfleet_events::stream_conformance!(store);
//! }
//! ```
//!
//! | macro | what is tried |
//! |---|---|
//! | [`stream_conformance!`](crate::stream_conformance) | a [`StreamStore`](crate::StreamStore) |
//! | [`queue_conformance!`](crate::queue_conformance) | a [`QueueStore`](crate::QueueStore) that is a [`ConfigStore`](crate::ConfigStore) |
//! | [`consumer_conformance!`](crate::consumer_conformance) | a [`ConsumerStore`](crate::ConsumerStore) that is a [`StreamStore`](crate::StreamStore) |
//! | [`config_conformance!`](crate::config_conformance) | a [`ConfigStore`](crate::ConfigStore) that is a [`StreamStore`](crate::StreamStore) |
//! | [`transport_conformance!`](crate::transport_conformance) | a [`Transport`](crate::Transport) |
//! | [`model_conformance!`](crate::model_conformance) | a store of streams and queues, against a model |
//!
//! Nothing here sleeps for a fixed time: a rule waits until something is so, and fails when it is not after a long while.

pub mod configs;
pub mod consumers;
pub mod model;
pub mod queues;
pub mod streams;
pub mod transport;

use std::time::Duration;

use uuid::Uuid;

use crate::event::{Meta, NewEvent};
use crate::json::Json;
use crate::queue::NewItem;

/// After how long a rule gives up waiting.
const PATIENCE: Duration = Duration::from_mins(1);

/// The time of a delivery or lease that a rule waits for to end.
const SHORT: Duration = Duration::from_millis(300);

/// The time of one that must not end while a rule runs.
const LONG: Duration = Duration::from_hours(1);

/// Runs a rule on a runtime of its own, with several threads.
///
/// # Panics
///
/// When the rule does.
pub fn run(rule: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime can be made").block_on(rule);
}

/// Makes a `#[test]` of each rule; the macros of the suites stand on it.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_rules {
    ($make:expr, $suite:ident: $($rule:ident)*) => {
        $(
            #[test]
            fn $rule() {
                $crate::conformance::run(async {
                    let (store, guard) = $make().await;
                    $crate::conformance::$suite::$rule(::std::sync::Arc::new(store)).await;
                    ::std::mem::drop(guard);
                });
            }
        )*
    };
}

/// Returns a name that nobody has used before.
fn unique(base: &str) -> String {
    format!("{base}-{}", Uuid::now_v7().simple())
}

/// Returns an event whose data is a number.
fn event(number: usize) -> NewEvent {
    NewEvent::new("Counted", Json::trusted(format!(r#"{{"number":{number}}}"#)))
}

/// Returns events of the numbers 1 to `count`.
fn events(count: usize) -> Vec<NewEvent> {
    (1..=count).map(event).collect()
}

/// Returns a message whose data is a number.
fn item(number: usize) -> NewItem {
    NewItem::new("Count", Json::trusted(format!(r#"{{"number":{number}}}"#)))
}

/// Reads the number of an event or a message.
fn number(data: &Json) -> usize {
    let value: serde_json::Value = data.to().expect("what was stored is JSON");
    usize::try_from(value["number"].as_u64().expect("it has a number")).expect("it is small")
}

/// Compares what two texts of JSON mean: a store may write it differently.
fn same(a: &Json, b: &Json) -> bool {
    let value = |json: &Json| json.to::<serde_json::Value>().expect("it is JSON");
    value(a) == value(b)
}

/// Something about everything that can be said about an event.
fn full_meta() -> Meta {
    Meta {
        correlation_id: Some(unique("correlation").into()),
        causation_id: Some(unique("causation").into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        tracestate: Some("vendor=value,other=\"x\"".into()),
        tenant: Some("acme".into()),
        headers: [("user".to_owned(), "Zoë \\ \"x\"".to_owned()), ("empty".to_owned(), String::new())].into(),
    }
}

/// Waits until something is so.
///
/// # Panics
///
/// When it is not after a minute, with what was waited for.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
