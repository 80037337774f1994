//! Asks the server for messages and takes them in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::StatusCode;
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use futures_util::StreamExt as _;
use pgfleet_events::{Error, Subscription};
use serde_json::json;
use tokio::sync::oneshot;

use super::link::Open;
use super::publisher::PREFIX;
use super::{BROKER, PARTITIONS, consumers, names};
use crate::envelope;
use crate::error::unavailable;
use crate::partition::Partition;
use crate::pause::Pause;
use crate::topic;
use crate::window::{Hold, Shared};

/// What ends a message at the server.
pub(super) type Tag = Arc<jetstream::Message>;

/// How long a request stands.
///
/// The server forgets those that stand when the consumer gets other topics, and says nothing: so long the partition rests.
const EXPIRES: Duration = Duration::from_secs(4);

/// A request that was not answered for so long is lost, with a connection or a server.
const LOST: Duration = Duration::from_secs(5);

/// How long a member that ends waits for what is on its way to it.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Why the server has nothing to send (409) it says in many ways; asking again at once would be asking in a circle.
const ASK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Pump {
    open: Arc<Open>,
    subscription: Subscription,
    shared: Arc<Shared<Tag>>,
    hold: Hold,
    inbox: String,
    messages: async_nats::Subscriber,
    /// All topics of the group, as this member knows them.
    topics: Vec<Arc<str>>,
    requests: BTreeMap<Partition, Request>,
    pause: Pause,
}

/// What was asked for and has not come yet.
#[derive(Debug, Clone, Copy)]
struct Request {
    left: usize,
    /// When to ask again.
    again: Instant,
}

impl Pump {
    pub(super) async fn start(
        open: Arc<Open>,
        subscription: Subscription,
        shared: Arc<Shared<Tag>>,
    ) -> Result<Self, Error> {
        let topics = consumers::make(&open, &subscription).await?;
        let inbox = open.client.new_inbox();
        let messages = open
            .client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| unavailable(BROKER, "cannot subscribe", error))?;
        let hold = shared.window().hold();
        let now = Instant::now();
        let requests =
            Partition::all(PARTITIONS).map(|partition| (partition, Request { left: 0, again: now })).collect();
        Ok(Self { open, subscription, shared, hold, inbox, messages, topics, requests, pause: Pause::default() })
    }

    /// Works until the subscriber is dropped, which closes `closing`; then gives back what is left.
    pub(super) async fn run(mut self, mut closing: oneshot::Receiver<()>) {
        let mut changes = self.open.changes.clone();
        loop {
            self.ask_where_due().await;
            let next = self.requests.values().map(|request| request.again).min().unwrap_or_else(Instant::now);
            tokio::select! {
                _ = &mut closing => break,
                message = self.messages.next() => match message {
                    Some(message) => self.take_in(message).await,
                    // The client was closed for good.
                    None => break,
                },
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    // Requests are forgotten with the connection.
                    let now = Instant::now();
                    self.requests.values_mut().for_each(|request| request.again = now);
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
        self.give_back().await;
    }

    /// Gives back what is here and what still comes for what was asked for.
    ///
    /// It goes on listening until the requests are done or forgotten: the server takes one that stands for a listener, and
    /// what it sends to somebody who has just left waits for its whole visibility.
    async fn give_back(mut self) {
        let left = self.shared.window().release(self.hold);
        // Whatever of this does not reach the server comes again after its visibility.
        for message in left {
            let _ = message.ack_with(AckKind::Nak(None)).await;
        }
        let until = tokio::time::Instant::now() + LEAVE_WITHIN;
        while self.requests.values().any(|request| request.left > 0 && request.again > Instant::now()) {
            let Ok(Some(message)) = tokio::time::timeout_at(until, self.messages.next()).await else { break };
            let Some(partition) = partition_of(&message) else { continue };
            let Some(request) = self.requests.get_mut(&partition) else { continue };
            if message.status.is_some() {
                request.left = 0;
                continue;
            }
            request.left = request.left.saturating_sub(1);
            // While the request stands, it would come here again.
            let stands = (request.left > 0).then(|| request.again.saturating_duration_since(Instant::now()));
            let message = jetstream::Message { message, context: self.open.jetstream.clone() };
            // As above: what does not reach the server comes again after its visibility.
            let _ = message.ack_with(AckKind::Nak(stands)).await;
        }
        // Without a connection there is nothing to take back at the server.
        let _ = self.messages.unsubscribe().await;
        let _ = self.open.client.flush().await;
    }

    async fn ask_where_due(&mut self) {
        if self.open.client.connection_state() != async_nats::connection::State::Connected {
            let later = Instant::now() + ASK_AGAIN;
            self.requests.values_mut().for_each(|request| request.again = request.again.max(later));
            return;
        }
        let now = Instant::now();
        for (partition, request) in &mut self.requests {
            if request.again > now {
                continue;
            }
            let batch = match partition {
                Partition::Free => self.subscription.prefetch.max(1),
                // The server serves a request until it is done, so larger ones would leave nothing to other members.
                Partition::Keyed(_) => 1,
            };
            *request = Request { left: batch, again: now + LOST };
            let subject = format!(
                "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
                self.open.options.name,
                names::consumer(&self.subscription.group, *partition)
            );
            let body = json!({ "batch": batch, "expires": EXPIRES.as_nanos() }).to_string();
            let reply = format!("{}.{}", self.inbox, partition.word());
            // What is not sent is asked for again.
            let _ = self.open.client.publish_with_reply(subject, reply, Bytes::from(body)).await;
        }
    }

    async fn take_in(&mut self, message: async_nats::Message) {
        let Some(partition) = partition_of(&message) else { return };
        if let Some(status) = message.status {
            return self.told(partition, status, message.description.as_deref()).await;
        }
        self.pause.reset();
        if let Some(request) = self.requests.get_mut(&partition) {
            request.left = request.left.saturating_sub(1);
            if request.left == 0 {
                request.again = Instant::now();
            }
        }
        let message = Arc::new(jetstream::Message { message, context: self.open.jetstream.clone() });
        let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
        let texts = headers.filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str())));
        let read = match envelope::message(texts, PREFIX, &message.payload) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(group = &*self.subscription.group, %error, "what is no message of ours was left out");
                // Lost, it comes again, and is left out again.
                let _ = message.ack_with(AckKind::Term).await;
                return;
            }
        };
        if !self.wants(&read.topic).await {
            // Lost, it comes again, and is passed over again.
            let _ = message.ack().await;
            return;
        }
        let delivered = message.info().map_or(1, |info| info.delivered);
        let attempt = u32::try_from(delivered).unwrap_or(u32::MAX).max(1);
        {
            let mut window = self.shared.window();
            // It came too late for whoever has it here, and counts by its new delivery only.
            window.forget(read.id);
            window.arrived(self.hold, read, attempt, message);
        }
        self.shared.ring();
    }

    /// Returns whether the group wants a topic; asks whether another member has added it before saying no.
    async fn wants(&mut self, topic: &str) -> bool {
        if topic::fits_any(&self.topics, topic) {
            return true;
        }
        match consumers::topics(&self.open, &self.subscription.group).await {
            Ok(topics) => self.topics = topics,
            // One too many does less harm than one too few.
            Err(_) => return true,
        }
        topic::fits_any(&self.topics, topic)
    }

    async fn told(&mut self, partition: Partition, status: StatusCode, description: Option<&str>) {
        let Some(request) = self.requests.get_mut(&partition) else { return };
        request.again = Instant::now();
        if status == StatusCode::TIMEOUT {
            return;
        }
        request.again += ASK_AGAIN;
        let gone = status == StatusCode::NO_RESPONDERS || description.is_some_and(|text| text.contains("Deleted"));
        if gone {
            let pause = self.pause.next();
            let again = Instant::now() + pause;
            self.requests.values_mut().for_each(|request| request.again = request.again.max(again));
            self.mend().await;
        }
    }

    /// Makes the consumers again when they are gone, which nobody but a member can know.
    async fn mend(&mut self) {
        let group = &*self.subscription.group;
        match consumers::topics(&self.open, group).await {
            Ok(topics) if topics.is_empty() => {
                tracing::error!(group, "the group's consumers were removed from the server, and what was kept for it");
                if let Err(error) = consumers::make(&self.open, &self.subscription).await {
                    tracing::warn!(group, %error, "the consumers were not made again");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(group, %error, "the server does not answer yet"),
        }
    }
}

/// The partition of a message, or of what the server says: that comes under the subject of the request, a message under its
/// own.
fn partition_of(message: &async_nats::Message) -> Option<Partition> {
    let word = match message.status {
        Some(_) => message.subject.rsplit('.').next(),
        None => message.subject.split('.').nth(1),
    };
    word.and_then(Partition::of_word)
}
