//! Messages, and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgfleet_brokers::Options;
use pgfleet_events::{Delivered, Json, Message, Meta, Moment, Subscriber, Transport};
use secrecy::SecretString;
use uuid::Uuid;

/// How long anything may take, also on a machine that compiles meanwhile.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Options under a name that no other test has.
pub(crate) fn options() -> Options {
    Options {
        name: format!("t{}", Uuid::now_v7().simple()),
        client: "test".to_owned(),
        confirm_within: Duration::from_secs(10),
        balance_every: Duration::from_millis(200),
        ..Options::default()
    }
}

pub(crate) fn secret(url: String) -> SecretString {
    SecretString::from(url)
}

/// A message of a key with a number, which is its place among those of its key.
pub(crate) fn message(topic: &str, key: Option<&str>, number: u64) -> Message {
    Message {
        id: Uuid::now_v7(),
        topic: topic.into(),
        kind: "Counted".into(),
        source: "test".into(),
        time: Moment::now(),
        key: key.map(Into::into),
        data: Json::trusted(format!("{{\"number\":{number}}}")),
        meta: Meta::default(),
    }
}

pub(crate) fn number(message: &Message) -> u64 {
    let data: BTreeMap<String, u64> = message.data.to().unwrap();
    data["number"]
}

/// Publishes messages until each is confirmed; what failed is tried again with all behind it of its key.
pub(crate) async fn publish_all(transport: &dyn Transport, messages: &[Message]) {
    let began = Instant::now();
    let mut left: Vec<Message> = messages.to_vec();
    let mut last = String::new();
    while !left.is_empty() {
        assert!(began.elapsed() < LIMIT, "{} messages were not confirmed: {last}", left.len());
        match transport.publish(&left).await {
            Ok(answers) => {
                assert_eq!(answers.len(), left.len());
                let mut failed = Vec::new();
                for (message, answer) in left.into_iter().zip(answers) {
                    if let Err(error) = answer {
                        assert!(error.is_retryable(), "{error:?}");
                        last = format!("{error:?}");
                        failed.push(message);
                    }
                }
                left = failed;
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                last = format!("{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// What a group has handled, as an inbox would: each message once.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    pub(crate) ids: BTreeSet<Uuid>,
    /// The numbers of each key, in the order in which they were handled.
    pub(crate) keys: BTreeMap<Arc<str>, Vec<u64>>,
    pub(crate) duplicates: usize,
}

impl Handled {
    pub(crate) fn handle(&mut self, delivered: &Delivered) {
        let message = &delivered.message;
        if !self.ids.insert(message.id) {
            self.duplicates += 1;
        } else if let Some(key) = &message.key {
            self.keys.entry(key.clone()).or_default().push(number(message));
        }
    }

    pub(crate) fn assert_ordered(&self) {
        for (key, numbers) in &self.keys {
            assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        }
    }
}

/// Receives and acknowledges until so many different messages were handled.
pub(crate) async fn handle_until(subscriber: &mut dyn Subscriber, handled: &mut Handled, count: usize) {
    let began = Instant::now();
    while handled.ids.len() < count {
        assert!(began.elapsed() < LIMIT, "{} of {count} messages came", handled.ids.len());
        let delivered = subscriber.receive(50, Duration::from_millis(500)).await.unwrap();
        for delivered in &delivered {
            handled.handle(delivered);
        }
        subscriber.acknowledge(&delivered).await.unwrap();
    }
}

/// Receives until something comes.
pub(crate) async fn receive_some(subscriber: &mut dyn Subscriber, max: usize) -> Vec<Delivered> {
    let began = Instant::now();
    loop {
        let delivered = subscriber.receive(max, Duration::from_secs(1)).await.unwrap();
        if !delivered.is_empty() {
            return delivered;
        }
        assert!(began.elapsed() < LIMIT, "nothing came");
    }
}
