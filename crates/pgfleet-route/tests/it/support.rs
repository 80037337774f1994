//! What the tests share.

use std::time::{Duration, Instant};

use pgfleet_postgres::{Address, Connection, Purpose, connect};

pub(crate) async fn open(url: &str) -> Connection {
    connect(&Address::parse(url).unwrap(), &Purpose::new("test")).await.unwrap()
}

/// Tries until it holds; panics after 20 s.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
