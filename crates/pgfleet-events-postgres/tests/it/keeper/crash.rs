//! A keeper that loses its connection in the middle of a step.

use std::time::Duration;

use pgfleet_events::{
    ConfigStore as _, Filter, Json, NewItem, Position, QueueStore as _, Retention, StreamConfig, StreamKind,
    StreamStore as _,
};
use pgfleet_events_postgres::KeeperOptions;

use super::{fill, quick, versions};
use crate::place::{Place, until};
use crate::support::column;

fn waiting(function: &str) -> String {
    format!(
        "FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock' \
         AND query LIKE '%{function}%' AND pid <> pg_backend_pid()"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_cut_off_removes_nothing_and_is_done_again() {
    let place = Place::new().await;
    let store = &place.store;
    fill(store, "s", 40).await;
    store
        .enqueue("q", (0..40).map(|n: usize| NewItem::new("n", Json::trusted(n.to_string()))).collect())
        .await
        .unwrap();
    let connection = place.connect().await;
    let steps = [
        ("retain_events", "events", "s", StreamKind::Stream, "min(seq) + 5", "count(*)"),
        ("queue_retain", "queue_events", "q", StreamKind::Queue, "min(seq)", "sum(messages)"),
    ];
    for (function, table, name, kind, held, count) in steps {
        let rows = format!("SELECT {count} FROM event_streaming.{table}");
        let retention = Retention { max_count: Some(10), ..Retention::default() };
        store.configure(&StreamConfig { retention, ..StreamConfig::new(name, kind) }).await.unwrap();
        // Somebody holds what the step has to remove last, so it is cut off when it has removed the rest.
        let holding = place.connect().await;
        holding.execute_all("BEGIN").await.unwrap();
        let held = format!(
            "SELECT * FROM event_streaming.{table} WHERE seq = (SELECT {held} FROM event_streaming.{table}) FOR UPDATE"
        );
        holding.simple(&held).await.unwrap();
        let keeper = store.keep(KeeperOptions { lease: Duration::from_mins(1), ..quick() });
        let waits = waiting(function);
        until("the step waits", async || column(&connection, &format!("SELECT count(*) {waits}")).await == ["1"]).await;
        column(&connection, &format!("SELECT pg_terminate_backend(pid, 5000) {waits}")).await;
        until("the keeper has seen it", async || keeper.stats().failed > 0).await;
        assert_eq!(column(&connection, &rows).await, ["40"], "nothing of the step is done");
        holding.execute_all("ROLLBACK").await.unwrap();
        until("it is done", async || column(&connection, &rows).await == ["10"]).await;
        let stats = keeper.stop().await;
        assert_eq!(stats.elected, 1);
    }
    assert_eq!(versions(store, "s").await, (31..=40).collect::<Vec<_>>());
    let mut left: Vec<usize> =
        store.peek("q", 100).await.unwrap().iter().map(|one| one.data.as_str().parse().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, (30..40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn putting_ticks_together_is_done_whole_or_not() {
    let place = Place::new().await;
    let store = &place.store;
    for _ in 0..30 {
        fill(store, "s", 1).await;
        store.head().await.unwrap();
    }
    let connection = place.connect().await;
    let rows = "SELECT count(*), sum(run_length), sum(events) FROM event_streaming.ticks";
    let count = column(&connection, rows).await;
    let holding = place.connect().await;
    holding.execute_all("BEGIN").await.unwrap();
    holding.simple("SELECT * FROM event_streaming.keepers FOR UPDATE").await.unwrap();
    // It has put together what there is, and waits to say how far it is.
    let merging = place.connect().await;
    let task = tokio::spawn(async move { merging.simple("SELECT event_streaming.merge_ticks('0', 10, 5000)").await });
    let waits = waiting("merge_ticks");
    until("it waits", async || column(&connection, &format!("SELECT count(*) {waits}")).await == ["1"]).await;
    column(&connection, &format!("SELECT pg_terminate_backend(pid, 5000) {waits}")).await;
    assert!(task.await.unwrap().is_err());
    holding.execute_all("ROLLBACK").await.unwrap();
    assert_eq!(column(&connection, rows).await, count);
    column(&connection, "SELECT event_streaming.merge_ticks('0', 10, 5000)").await;
    assert_ne!(column(&connection, rows).await, count);
    let page = place.other().read_all(Position::START, 100, &Filter::default()).await.unwrap();
    let order: Vec<u64> = page.events.iter().map(|event| event.version).collect();
    assert_eq!(order, (1..=30).collect::<Vec<_>>());
}
