//! The core on the newest server: messages, positions and locks may differ.

use crate::support::Bench;

#[tokio::test]
async fn errors_are_placed_on_the_newest_server_too() {
    crate::apply::errors_are_placed(Some(18)).await;
}

#[tokio::test]
async fn what_the_server_cannot_read_is_placed_on_the_newest_server_too() {
    crate::apply::unreadable_files_are_placed(Some(18)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_replicas_start_on_the_newest_server_too() {
    crate::concurrency::ten_replicas_start(&Bench::new_on(18).await).await;
}
