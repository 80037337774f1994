//! What several modules need.

use std::time::{Duration, Instant};

use pgfleet_postgres::Error;

/// What a reader of the error sees.
pub(crate) fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!("\n{cause}"));
        next = cause.source();
    }
    text.push_str(&error.hint().map_or_else(String::new, |hint| format!("\n{hint}")));
    text
}

/// Looks again and again, at most 20 seconds.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
