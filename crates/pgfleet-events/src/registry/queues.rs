//! Queues of several stores.
//!
//! A receipt says nothing of its queue, so those that are handed out here begin with the name of their store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Events;
use crate::answer::Answer;
use crate::error::Error;
use crate::queue::{
    DeadLetter, Delivery, Enqueued, InFlight, Nack, NewItem, QueueInfo, QueueStore, Receipt, Redrive, Settled,
};
use crate::store::EventStore;

impl Events {
    /// Marks receipts with the store of their queue.
    fn marked(&self, queue: &str, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
        let store = self.name_of(queue);
        for delivery in &mut deliveries {
            delivery.receipt = mark(store, &delivery.receipt);
        }
        deliveries
    }

    /// Returns the store and its own receipt of one that was handed out here.
    fn unmarked(&self, receipt: &Receipt) -> Option<(usize, Receipt)> {
        let (name, rest) = receipt.0.split_once('/')?;
        let index = self.0.stores.iter().position(|(known, _)| **known == *name)?;
        Some((index, Receipt(rest.into())))
    }

    /// Ends deliveries, store by store; what is none of ours counts as fenced, as in any store.
    async fn settle(
        &self,
        receipts: &[Receipt],
        end: impl for<'s> Fn(&'s dyn EventStore, &'s [Receipt]) -> Answer<'s, Settled> + Send + Sync,
    ) -> Result<Settled, Error> {
        let mut by_store: BTreeMap<usize, Vec<Receipt>> = BTreeMap::new();
        let mut settled = Settled::default();
        for receipt in receipts {
            match self.unmarked(receipt) {
                Some((index, receipt)) => by_store.entry(index).or_default().push(receipt),
                None => settled.fenced += 1,
            }
        }
        for (index, receipts) in by_store {
            let one = end(self.at(index), &receipts).await?;
            settled.done += one.done;
            settled.fenced += one.fenced;
        }
        Ok(settled)
    }
}

fn mark(store: &str, receipt: &Receipt) -> Receipt {
    Receipt(format!("{store}/{}", receipt.0).into())
}

impl QueueStore for Events {
    fn enqueue<'a>(&'a self, queue: &'a str, items: Vec<NewItem>) -> Answer<'a, Vec<Enqueued>> {
        self.of(queue).enqueue(queue, items)
    }

    fn dequeue<'a>(
        &'a self,
        queue: &'a str,
        consumer: &'a str,
        max: usize,
        visibility: Duration,
    ) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            let deliveries = self.of(queue).dequeue(queue, consumer, max, visibility).await?;
            Ok(self.marked(queue, deliveries))
        })
    }

    fn acknowledge<'a>(&'a self, receipts: &'a [Receipt]) -> Answer<'a, Settled> {
        Box::pin(self.settle(receipts, |store, receipts| store.acknowledge(receipts)))
    }

    fn negative_acknowledge<'a>(&'a self, receipts: &'a [Receipt], nack: &'a Nack) -> Answer<'a, Settled> {
        let nack = Arc::new(nack.clone());
        Box::pin(self.settle(receipts, move |store, receipts| {
            let nack = Arc::clone(&nack);
            Box::pin(async move { store.negative_acknowledge(receipts, &nack).await })
        }))
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt, visibility: Duration) -> Answer<'a, Receipt> {
        Box::pin(async move {
            let Some((index, own)) = self.unmarked(receipt) else { return Err(Error::fenced("the delivery")) };
            let extended = self.at(index).extend(&own, visibility).await?;
            Ok(mark(&self.0.stores[index].0, &extended))
        })
    }

    fn wait<'a>(&'a self, queue: &'a str, most: Duration) -> Answer<'a, ()> {
        QueueStore::wait(self.of(queue), queue, most)
    }

    fn peek<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            let deliveries = self.of(queue).peek(queue, limit).await?;
            Ok(self.marked(queue, deliveries))
        })
    }

    fn in_flight<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<InFlight>> {
        self.of(queue).in_flight(queue, limit)
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<DeadLetter>> {
        self.of(queue).dead_letters(queue, limit)
    }

    fn redrive<'a>(&'a self, queue: &'a str, which: &'a Redrive) -> Answer<'a, u64> {
        self.of(queue).redrive(queue, which)
    }

    fn purge<'a>(&'a self, queue: &'a str, only_dead: bool) -> Answer<'a, u64> {
        self.of(queue).purge(queue, only_dead)
    }

    fn info<'a>(&'a self, queue: &'a str) -> Answer<'a, Option<QueueInfo>> {
        QueueStore::info(self.of(queue), queue)
    }

    fn list(&self) -> Answer<'_, Vec<QueueInfo>> {
        Box::pin(async move {
            let mut all = Vec::new();
            for (index, store) in self.all().enumerate() {
                let queues = QueueStore::list(store).await?;
                all.extend(queues.into_iter().filter(|info| self.0.routes.of(&info.queue) == index));
            }
            all.sort_by(|a, b| a.queue.cmp(&b.queue));
            Ok(all)
        })
    }

    fn sweep(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            for store in self.all() {
                store.sweep().await?;
            }
            Ok(())
        })
    }
}
