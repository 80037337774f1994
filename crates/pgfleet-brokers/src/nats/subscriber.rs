//! What a member of a group holds in its hand.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use futures_util::future::join_all;
use pgfleet_events::{Answer, Delivered, Error, Subscriber, Subscription};
use tokio::sync::oneshot;

use super::link::Link;
use super::pump::{Pump, Tag};
use crate::window::Shared;

/// How long the server may take to say that it has an acknowledgement, before it is sent once more.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Consumer {
    subscription: Subscription,
    shared: Arc<Shared<Tag>>,
    /// Closed when this is dropped, which ends the member.
    _closing: oneshot::Sender<()>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

impl Consumer {
    pub(super) async fn start(link: Arc<Link>, subscription: Subscription) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new());
        let pump = Pump::start(link.open().await?, subscription.clone(), shared.clone()).await?;
        let (closing, closed) = oneshot::channel();
        tokio::spawn(pump.run(closed));
        Ok(Self { subscription, shared, _closing: closing })
    }
}

impl Subscriber for Consumer {
    fn receive(&mut self, max: usize, most: Duration) -> Answer<'_, Vec<Delivered>> {
        Box::pin(async move {
            let until = Instant::now() + most;
            loop {
                // The server's clock runs from when it sent them: those that waited here for long go to another member.
                let visibility = self.subscription.visibility;
                let (oldest, worn) = (visibility * 3 / 4, visibility / 4);
                self.shared.window().drop_old(oldest, visibility, Instant::now());
                let left = until.saturating_duration_since(Instant::now());
                let step = left.min((visibility / 4).max(Duration::from_millis(10)));
                let delivered = self.shared.receive(max, self.subscription.prefetch, step).await;
                if delivered.is_empty() && step < left {
                    continue;
                }
                // From the caller's hand the whole time counts.
                let waited = self.shared.window().tags_older(&delivered, worn, Instant::now());
                if !waited.is_empty() {
                    tokio::spawn(async move {
                        join_all(waited.iter().map(|tag| tag.ack_with(AckKind::Progress))).await;
                    });
                }
                return Ok(delivered);
            }
        })
    }

    fn acknowledge<'a>(&'a mut self, delivered: &'a [Delivered]) -> Answer<'a, ()> {
        Box::pin(async move {
            let tags: Vec<Tag> = {
                let mut window = self.shared.window();
                delivered.iter().filter_map(|delivered| window.end(&delivered.receipt)).collect()
            };
            // Confirmed by the server: one that was lost would hold up its keys until the message comes again.
            join_all(tags.iter().map(acknowledge)).await;
            self.shared.ring();
            Ok(())
        })
    }

    fn give_back<'a>(&'a mut self, delivered: &'a Delivered, delay: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let tag = self.shared.window().end(&delivered.receipt);
            if let Some(tag) = tag {
                let delay = (!delay.is_zero()).then_some(delay);
                if let Err(error) = tag.ack_with(AckKind::Nak(delay)).await {
                    tracing::debug!(%error, "a message was not given back, and comes again after its visibility");
                }
            }
            self.shared.ring();
            Ok(())
        })
    }
}

async fn acknowledge(tag: &Tag) {
    for _ in 0..2 {
        match tokio::time::timeout(CONFIRM_WITHIN, tag.double_ack()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::debug!(%error, "an acknowledgement was not confirmed"),
            Err(_) => tracing::debug!("an acknowledgement was not confirmed in time"),
        }
    }
}
