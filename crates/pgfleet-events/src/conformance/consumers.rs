//! What a [`ConsumerStore`] must keep.

use std::collections::HashSet;
use std::sync::Arc;

use super::{LONG, SHORT, events, eventually, unique};
use crate::consumer::{ConsumerStore, GroupOffset, Lease};
use crate::error::ErrorKind;
use crate::position::Position;
use crate::stream::{Expected, StreamStore};

/// Makes a `#[test]` of each rule for consumers.
///
/// The argument is an async function that returns a [`ConsumerStore`](crate::ConsumerStore), which must be a
/// [`StreamStore`](crate::StreamStore) too, and what must live as long.
#[macro_export]
macro_rules! consumer_conformance {
    ($make:expr) => {
        $crate::conformance_rules!($make, consumers:
            a_new_group_begins_at_its_start
            a_member_alone_has_all_parts
            parts_are_shared_out_fairly
            no_part_is_held_by_two
            an_offset_stays_with_the_group
            a_paused_member_commits_nothing
            who_leaves_is_not_waited_for
            resetting_fences_and_moves
            the_number_of_parts_is_fixed
            a_group_is_forgotten
            lag_is_what_is_behind_the_offset);
    };
}

async fn lease<S: ConsumerStore>(store: &S, group: &str, member: &str, parts: u32) -> Vec<Lease> {
    store.lease(group, member, parts, Position::START, LONG).await.unwrap()
}

async fn offset<S: ConsumerStore>(store: &S, group: &str) -> GroupOffset {
    store.offsets(Some(group)).await.unwrap().remove(0)
}

async fn head<S: StreamStore>(store: &S, count: usize) -> Position {
    store.append(&unique("consumed"), Expected::Any, events(count)).await.unwrap();
    store.head().await.unwrap()
}

/// A group that is new begins where its first member says; later members change nothing.
pub async fn a_new_group_begins_at_its_start<S: ConsumerStore + StreamStore>(store: Arc<S>) {
    let group = unique("start");
    let start = head(&*store, 3).await;
    let leases = store.lease(&group, "a", 2, start, LONG).await.unwrap();
    assert!(leases.len() == 2 && leases.iter().all(|lease| lease.position == start));
    store.leave(&group, "a").await.unwrap();
    let leases = store.lease(&group, "b", 2, Position::START, LONG).await.unwrap();
    assert!(leases.len() == 2 && leases.iter().all(|lease| lease.position == start));
}

/// A member alone has every part, each once, with what a lease says.
pub async fn a_member_alone_has_all_parts<S: ConsumerStore>(store: Arc<S>) {
    let group = unique("alone");
    let leases = lease(&*store, &group, "a", 5).await;
    assert_eq!(leases.iter().map(|lease| lease.part).collect::<HashSet<_>>(), (0..5).collect());
    for one in &leases {
        assert_eq!((&*one.group, &*one.member, one.parts), (&*group, "a", 5));
        assert!(one.epoch >= 1);
    }
    let again = lease(&*store, &group, "a", 5).await;
    let epochs = |leases: &[Lease]| leases.iter().map(|lease| (lease.part, lease.epoch)).collect::<HashSet<_>>();
    assert_eq!(epochs(&again), epochs(&leases), "a renewed lease is the same one");
    assert_eq!(store.offsets(Some(&group)).await.unwrap().len(), 5);
}

/// All living members have about as many parts, after a few rounds.
pub async fn parts_are_shared_out_fairly<S: ConsumerStore>(store: Arc<S>) {
    let group = unique("fair");
    let mut members = Vec::new();
    for member in ["a", "b", "c"] {
        members.push(member);
        eventually("the parts are shared out", || async {
            let mut all = Vec::new();
            for member in &members {
                all.push(lease(&*store, &group, member, 8).await.len());
            }
            let fair = all.iter().all(|count| (8 / members.len()..=8_usize.div_ceil(members.len())).contains(count));
            (fair && all.iter().sum::<usize>() == 8).then_some(())
        })
        .await;
    }
    let parts = store.offsets(Some(&group)).await.unwrap();
    let held = |member: &str| parts.iter().filter(|part| part.member.as_deref() == Some(member)).count();
    assert!(members.iter().all(|member| (2..=3).contains(&held(member))), "{parts:?}");
}

/// While members come, no part belongs to two; a second one gets nothing before the first gives it up.
pub async fn no_part_is_held_by_two<S: ConsumerStore>(store: Arc<S>) {
    let group = unique("two");
    assert_eq!(lease(&*store, &group, "a", 1).await.len(), 1);
    for _ in 0..3 {
        assert!(lease(&*store, &group, "b", 1).await.is_empty());
        assert_eq!(lease(&*store, &group, "a", 1).await.len(), 1);
    }
    let other = unique("two");
    let mut a = lease(&*store, &other, "a", 4).await;
    for _ in 0..4 {
        let b = lease(&*store, &other, "b", 4).await;
        let parts = |leases: &[Lease]| leases.iter().map(|lease| lease.part).collect::<HashSet<_>>();
        assert!(parts(&a).is_disjoint(&parts(&b)), "{a:?} {b:?}");
        a = lease(&*store, &other, "a", 4).await;
        assert!(parts(&a).is_disjoint(&parts(&b)), "{a:?} {b:?}");
    }
}

/// What was committed is where the next one begins.
pub async fn an_offset_stays_with_the_group<S: ConsumerStore + StreamStore>(store: Arc<S>) {
    let group = unique("offset");
    let held = lease(&*store, &group, "a", 1).await.remove(0);
    assert!(offset(&*store, &group).await.committed_at.is_none());
    let position = head(&*store, 2).await;
    store.commit(&held, position).await.unwrap();
    let stored = offset(&*store, &group).await;
    assert_eq!((stored.position, stored.member.as_deref(), stored.epoch), (position, Some("a"), held.epoch));
    assert!(stored.committed_at.is_some());
    store.leave(&group, "a").await.unwrap();
    assert_eq!(lease(&*store, &group, "b", 1).await[0].position, position);
}

/// A member whose lease ended and was given to another commits nothing when it wakes.
pub async fn a_paused_member_commits_nothing<S: ConsumerStore + StreamStore>(store: Arc<S>) {
    let group = unique("fence");
    let start = Position::START;
    let paused = store.lease(&group, "paused", 1, start, SHORT).await.unwrap().remove(0);
    let first = head(&*store, 1).await;
    store.commit(&paused, first).await.unwrap();
    let taken =
        eventually("the lease ends", || async { store.lease(&group, "awake", 1, start, LONG).await.unwrap().pop() })
            .await;
    assert!(taken.epoch > paused.epoch);
    assert_eq!(taken.position, first);
    let second = head(&*store, 1).await;
    assert!(store.commit(&paused, second).await.unwrap_err().is_fenced());
    assert_eq!(offset(&*store, &group).await.position, first);
    store.commit(&taken, second).await.unwrap();
    assert!(store.commit(&paused, first).await.unwrap_err().is_fenced());
    let stored = offset(&*store, &group).await;
    assert_eq!((stored.position, stored.member.as_deref()), (second, Some("awake")));
}

/// The parts of a member that left can be had at once.
pub async fn who_leaves_is_not_waited_for<S: ConsumerStore>(store: Arc<S>) {
    let group = unique("leave");
    let before = lease(&*store, &group, "a", 3).await;
    store.leave(&group, "a").await.unwrap();
    assert!(store.offsets(Some(&group)).await.unwrap().iter().all(|part| part.member.is_none()));
    let after = lease(&*store, &group, "b", 3).await;
    assert_eq!(after.len(), 3);
    for lease in &before {
        assert!(store.commit(lease, Position::new(1, 1)).await.unwrap_err().is_fenced());
    }
    store.leave(&group, "nobody").await.unwrap();
    store.leave(&unique("none"), "nobody").await.unwrap();
}

/// After a reset everybody reads from there, and what the leases before it say is refused.
pub async fn resetting_fences_and_moves<S: ConsumerStore + StreamStore>(store: Arc<S>) {
    let group = unique("reset");
    let error = store.reset(&group, Position::START).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let held = lease(&*store, &group, "a", 2).await;
    let (to, later) = (head(&*store, 1).await, head(&*store, 1).await);
    store.commit(&held[0], later).await.unwrap();
    store.reset(&group, to).await.unwrap();
    for old in &held {
        assert!(store.commit(old, later).await.unwrap_err().is_fenced());
    }
    let parts = store.offsets(Some(&group)).await.unwrap();
    assert!(parts.iter().all(|part| part.position == to && part.member.is_none()), "{parts:?}");
    let again = lease(&*store, &group, "b", 2).await;
    assert!(again.len() == 2 && again.iter().all(|lease| lease.position == to));
}

/// A group that has another number of parts is not what was asked for.
pub async fn the_number_of_parts_is_fixed<S: ConsumerStore>(store: Arc<S>) {
    let group = unique("parts");
    lease(&*store, &group, "a", 2).await;
    let error = store.lease(&group, "b", 3, Position::START, LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(lease(&*store, &group, "a", 2).await.len(), 2);
}

/// A group that was forgotten is new again.
pub async fn a_group_is_forgotten<S: ConsumerStore + StreamStore>(store: Arc<S>) {
    let group = unique("forgotten");
    let held = lease(&*store, &group, "a", 1).await.remove(0);
    let position = head(&*store, 1).await;
    store.commit(&held, position).await.unwrap();
    assert!(store.offsets(None).await.unwrap().iter().any(|part| *part.group == *group));
    assert!(store.forget(&group).await.unwrap());
    assert!(!store.forget(&group).await.unwrap());
    assert!(store.offsets(Some(&group)).await.unwrap().is_empty());
    assert!(store.commit(&held, position).await.is_err());
    let again = lease(&*store, &group, "a", 3).await;
    assert!(again.len() == 3 && again.iter().all(|lease| lease.position == Position::START));
}

/// What is behind the offset is counted, where the store counts, and the oldest of it is dated.
pub async fn lag_is_what_is_behind_the_offset<S: ConsumerStore + StreamStore>(store: Arc<S>) {
    let group = unique("lag");
    let before = head(&*store, 1).await;
    let held = store.lease(&group, "a", 1, before, LONG).await.unwrap().remove(0);
    let after = head(&*store, 4).await;
    let behind = offset(&*store, &group).await;
    assert!(behind.lag.is_none_or(|lag| lag >= 4), "{behind:?}");
    assert!(behind.oldest.is_some());
    store.commit(&held, after).await.unwrap();
    assert!(offset(&*store, &group).await.lag < behind.lag || behind.lag.is_none());
}
