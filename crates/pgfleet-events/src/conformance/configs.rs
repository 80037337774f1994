//! What a [`ConfigStore`] must keep.

use std::sync::Arc;
use std::time::Duration;

use super::{events, eventually, unique};
use crate::config::{ConfigStore, Retention, RetentionPolicy, StreamConfig, StreamKind};
use crate::error::ErrorKind;
use crate::stream::{Expected, StreamStore};

/// Makes a `#[test]` of each rule for configurations and retention.
///
/// The argument is an async function that returns a [`ConfigStore`](crate::ConfigStore), which must be a
/// [`StreamStore`](crate::StreamStore) too, and what must live as long.
#[macro_export]
macro_rules! config_conformance {
    ($make:expr) => {
        $crate::conformance_rules!($make, configs:
            what_was_configured_is_returned
            what_was_not_configured_is_the_default
            the_longest_beginning_counts
            a_name_without_letters_is_refused
            a_closed_stream_takes_nothing
            policies_are_kept_by_name
            retention_by_count_keeps_the_newest
            retention_by_bytes_keeps_the_newest
            retention_by_age_removes_the_old
            the_strictest_retention_counts
            a_policy_that_is_off_removes_nothing);
    };
}

fn policy(name: &str, streams: &str, retention: Retention) -> RetentionPolicy {
    RetentionPolicy { name: name.into(), streams: streams.into(), retention, enabled: true }
}

async fn length<S: StreamStore>(store: &S, stream: &str) -> Option<(u64, u64)> {
    store.info(stream).await.unwrap().map(|info| (info.first, info.last))
}

/// A configuration comes back as it was set, and can be taken away.
pub async fn what_was_configured_is_returned<S: ConfigStore>(store: Arc<S>) {
    let name = unique("config");
    let config = StreamConfig {
        max_attempts: 9,
        visibility: Duration::from_millis(1_500),
        dedup_window: Duration::from_hours(3),
        park_keys: false,
        max_length: 77,
        keep_dead: Duration::from_hours(5),
        retention: Retention {
            max_age: Some(Duration::from_hours(48)),
            max_count: Some(10_000),
            max_bytes: Some(1 << 40),
        },
        closed: true,
        ..StreamConfig::new(name.as_str(), StreamKind::Queue)
    };
    store.configure(&config).await.unwrap();
    assert_eq!(store.config(&name, StreamKind::Queue).await.unwrap(), config);
    assert!(store.configs().await.unwrap().contains(&config));
    let changed = StreamConfig { max_attempts: 0, closed: false, retention: Retention::default(), ..config };
    store.configure(&changed).await.unwrap();
    assert_eq!(store.config(&name, StreamKind::Queue).await.unwrap(), changed);
    let stream = StreamConfig { index_data: true, ..StreamConfig::new(name.as_str(), StreamKind::Stream) };
    store.configure(&stream).await.unwrap();
    assert_eq!(store.config(&name, StreamKind::Stream).await.unwrap(), stream);
    assert!(store.unconfigure(&name, StreamKind::Queue).await.unwrap());
    assert!(!store.unconfigure(&name, StreamKind::Queue).await.unwrap());
    assert_eq!(store.config(&name, StreamKind::Stream).await.unwrap(), stream);
    assert_eq!(
        store.config(&name, StreamKind::Queue).await.unwrap(),
        StreamConfig::new(name.as_str(), StreamKind::Queue)
    );
}

/// What nobody has configured is as the defaults say.
pub async fn what_was_not_configured_is_the_default<S: ConfigStore>(store: Arc<S>) {
    let name = unique("default");
    for kind in [StreamKind::Stream, StreamKind::Queue] {
        assert_eq!(store.config(&name, kind).await.unwrap(), StreamConfig::new(name.as_str(), kind));
    }
    assert!(!store.configs().await.unwrap().iter().any(|config| *config.name == *name));
}

/// Of several beginnings that fit a stream's name the longest counts, and the whole name before all.
pub async fn the_longest_beginning_counts<S: ConfigStore>(store: Arc<S>) {
    let name = unique("longest");
    let counted = |pattern: String, count| StreamConfig {
        retention: Retention { max_count: Some(count), ..Retention::default() },
        ..StreamConfig::new(pattern, StreamKind::Stream)
    };
    for config in [counted(format!("{name}*"), 1), counted(format!("{name}-a*"), 2), counted(format!("{name}-ab"), 3)] {
        store.configure(&config).await.unwrap();
    }
    for (stream, count) in [("", 1), ("-b", 1), ("-a", 2), ("-abc", 2), ("-ab", 3)] {
        let config = store.config(&format!("{name}{stream}"), StreamKind::Stream).await.unwrap();
        assert_eq!(config.retention.max_count, Some(count), "{stream}");
    }
}

/// Nothing is configured for no name.
pub async fn a_name_without_letters_is_refused<S: ConfigStore>(store: Arc<S>) {
    for kind in [StreamKind::Stream, StreamKind::Queue] {
        let error = store.configure(&StreamConfig::new("", kind)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

/// A stream that is closed by configuration takes nothing, and is read as before.
pub async fn a_closed_stream_takes_nothing<S: ConfigStore + StreamStore>(store: Arc<S>) {
    let name = unique("closed");
    store.append(&name, Expected::Any, events(1)).await.unwrap();
    let closed = StreamConfig { closed: true, ..StreamConfig::new(name.as_str(), StreamKind::Stream) };
    store.configure(&closed).await.unwrap();
    eventually("the stream is closed", || async {
        let answer = store.append(&name, Expected::Any, events(1)).await;
        answer.err().map(|error| assert_eq!(error.kind(), ErrorKind::Refused))
    })
    .await;
    assert!(length(&*store, &name).await.is_some());
    store.unconfigure(&name, StreamKind::Stream).await.unwrap();
    eventually("the stream is open", || async { store.append(&name, Expected::Any, events(1)).await.ok() }).await;
}

/// Policies are set, changed, listed and removed by their names.
pub async fn policies_are_kept_by_name<S: ConfigStore>(store: Arc<S>) {
    let (name, streams) = (unique("policy"), unique("policed"));
    let mut one = policy(&name, &format!("{streams}-*"), Retention { max_count: Some(5), ..Retention::default() });
    store.set_policy(&one).await.unwrap();
    assert!(store.policies().await.unwrap().contains(&one));
    one.retention = Retention { max_age: Some(Duration::from_hours(1)), max_bytes: Some(9), max_count: None };
    one.enabled = false;
    store.set_policy(&one).await.unwrap();
    let listed: Vec<_> = store.policies().await.unwrap().into_iter().filter(|policy| *policy.name == *name).collect();
    assert_eq!(listed, [one]);
    assert!(store.remove_policy(&name).await.unwrap());
    assert!(!store.remove_policy(&name).await.unwrap());
    assert!(!store.policies().await.unwrap().iter().any(|policy| *policy.name == *name));
}

/// Of too many events the oldest go, in each stream that fits, and in no other.
pub async fn retention_by_count_keeps_the_newest<S: ConfigStore + StreamStore>(store: Arc<S>) {
    let name = unique("count");
    let (a, b, other) = (format!("{name}-a"), format!("{name}-b"), unique("other"));
    for (stream, count) in [(&a, 10), (&b, 2), (&other, 10)] {
        store.append(stream, Expected::Any, events(count)).await.unwrap();
    }
    let retention = Retention { max_count: Some(3), ..Retention::default() };
    store.set_policy(&policy(&name, &format!("{name}-*"), retention)).await.unwrap();
    let removed = store.apply_retention().await.unwrap();
    assert!(removed.events >= 7 && removed.streams >= 1, "{removed:?}");
    assert_eq!(length(&*store, &a).await, Some((8, 10)));
    assert_eq!(length(&*store, &b).await, Some((1, 2)));
    assert_eq!(length(&*store, &other).await, Some((1, 10)));
    assert_eq!(store.append(&a, Expected::Exact(10), events(1)).await.unwrap().last, 11);
    store.remove_policy(&name).await.unwrap();
}

/// Of too many bytes the oldest events go.
pub async fn retention_by_bytes_keeps_the_newest<S: ConfigStore + StreamStore>(store: Arc<S>) {
    let name = unique("bytes");
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000));
    let large: Vec<_> = (0..10).map(|_| crate::NewEvent::new("Large", crate::Json::trusted(large.as_str()))).collect();
    store.append(&name, Expected::Any, large).await.unwrap();
    let config = StreamConfig {
        retention: Retention { max_bytes: Some(45_000), ..Retention::default() },
        ..StreamConfig::new(name.as_str(), StreamKind::Stream)
    };
    store.configure(&config).await.unwrap();
    store.apply_retention().await.unwrap();
    let (first, last) = length(&*store, &name).await.unwrap();
    assert!((6..=8).contains(&first) && last == 10, "{first} to {last} are left");
}

/// Events older than they may be go.
pub async fn retention_by_age_removes_the_old<S: ConfigStore + StreamStore>(store: Arc<S>) {
    let (name, young) = (unique("age"), unique("young"));
    store.append(&name, Expected::Any, events(3)).await.unwrap();
    store.append(&young, Expected::Any, events(3)).await.unwrap();
    for (stream, age) in [(&name, Duration::from_millis(1)), (&young, Duration::from_hours(1))] {
        let retention = Retention { max_age: Some(age), ..Retention::default() };
        store.set_policy(&policy(stream, stream, retention)).await.unwrap();
    }
    eventually("old events are removed", || async {
        store.apply_retention().await.unwrap();
        length(&*store, &name).await.is_none().then_some(())
    })
    .await;
    assert_eq!(length(&*store, &young).await, Some((1, 3)));
    for stream in [&name, &young] {
        store.remove_policy(stream).await.unwrap();
    }
}

/// Where several policies fit, each is kept.
pub async fn the_strictest_retention_counts<S: ConfigStore + StreamStore>(store: Arc<S>) {
    let name = unique("strict");
    store.append(&name, Expected::Any, events(10)).await.unwrap();
    let counted = |count| Retention { max_count: Some(count), ..Retention::default() };
    let names = [unique("strict-policy"), unique("strict-policy")];
    store.set_policy(&policy(&names[0], &name, counted(6))).await.unwrap();
    store.set_policy(&policy(&names[1], &format!("{name}*"), counted(4))).await.unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(length(&*store, &name).await, Some((7, 10)));
    for policy in &names {
        store.remove_policy(policy).await.unwrap();
    }
}

/// A policy that is not in force is only kept.
pub async fn a_policy_that_is_off_removes_nothing<S: ConfigStore + StreamStore>(store: Arc<S>) {
    let name = unique("off");
    store.append(&name, Expected::Any, events(5)).await.unwrap();
    let retention = Retention { max_count: Some(1), ..Retention::default() };
    store.set_policy(&RetentionPolicy { enabled: false, ..policy(&name, &name, retention) }).await.unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(length(&*store, &name).await, Some((1, 5)));
    store.remove_policy(&name).await.unwrap();
}
