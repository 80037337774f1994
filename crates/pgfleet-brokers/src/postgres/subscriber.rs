//! A member of a group that receives from its queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{Answer, Delivered, Nack, QueueStore as _, Receipt, Subscriber, Subscription};
use pgfleet_events_postgres::Store;
use tokio::time::Instant;
use uuid::Uuid;

use super::item;

#[derive(Debug)]
pub(super) struct Member {
    store: Store,
    queue: String,
    /// Which member it is, in the list of what is out.
    name: String,
    subscription: Subscription,
    /// What was handed out and has not come back.
    out: HashSet<Arc<str>>,
}

impl Member {
    pub(super) fn new(store: Store, queue: String, subscription: Subscription) -> Self {
        let name = Uuid::now_v7().simple().to_string();
        Self { store, queue, name, subscription, out: HashSet::new() }
    }

    async fn take(&mut self, max: usize) -> Result<Vec<Delivered>, pgfleet_events::Error> {
        let visibility = self.subscription.visibility;
        let taken = self.store.dequeue(&self.queue, &self.name, max, visibility).await?;
        let mut delivered = Vec::with_capacity(taken.len());
        for taken in taken {
            let (receipt, attempt) = (taken.receipt.clone(), taken.attempt);
            if let Some(message) = item::message(taken) {
                self.out.insert(receipt.0.clone());
                delivered.push(Delivered { message, attempt, receipt: receipt.0 });
            } else {
                // Somebody put it in who knows nothing of the bus; it would come again for ever.
                let nack = Nack::dead("it is no message of a bus");
                self.store.negative_acknowledge(&[receipt], &nack).await?;
            }
        }
        Ok(delivered)
    }
}

impl Subscriber for Member {
    fn receive(&mut self, max: usize, most: Duration) -> Answer<'_, Vec<Delivered>> {
        Box::pin(async move {
            let deadline = Instant::now() + most;
            loop {
                let room = max.min(self.subscription.prefetch.saturating_sub(self.out.len()));
                let delivered = if room == 0 { Vec::new() } else { self.take(room).await? };
                let left = deadline.saturating_duration_since(Instant::now());
                if !delivered.is_empty() || left.is_zero() {
                    return Ok(delivered);
                }
                self.store.wait(&self.queue, left).await?;
            }
        })
    }

    fn acknowledge<'a>(&'a mut self, delivered: &'a [Delivered]) -> Answer<'a, ()> {
        Box::pin(async move {
            let receipts: Vec<Receipt> = delivered.iter().map(|one| Receipt(one.receipt.clone())).collect();
            // What was too late comes again, and the inbox knows it.
            self.store.acknowledge(&receipts).await?;
            for one in delivered {
                self.out.remove(&one.receipt);
            }
            Ok(())
        })
    }

    fn give_back<'a>(&'a mut self, delivered: &'a Delivered, delay: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let nack = Nack::later(delay, "given back");
            self.store.negative_acknowledge(&[Receipt(delivered.receipt.clone())], &nack).await?;
            self.out.remove(&delivered.receipt);
            Ok(())
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let receipts: Vec<Receipt> = self.out.drain().map(Receipt).collect();
        let store = self.store.clone();
        // Without a runtime the program ends; then it comes again after its visibility.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.negative_acknowledge(&receipts, &Nack::requeue("given back")).await {
                    tracing::debug!(target: "pgfleet::bus", %error, "what was out comes again after its visibility");
                }
            });
        }
    }
}
