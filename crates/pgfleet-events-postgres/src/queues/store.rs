//! The interface of queues.

use std::time::Duration;

use pgfleet_events::{
    Answer, DeadLetter, Delivery, Enqueued, InFlight, Nack, NewItem, QueueInfo, QueueStore, Receipt, Redrive, Settled,
};

use crate::Store;

impl QueueStore for Store {
    fn enqueue<'a>(&'a self, queue: &'a str, items: Vec<NewItem>) -> Answer<'a, Vec<Enqueued>> {
        Box::pin(self.0.enqueue(queue, items))
    }

    fn dequeue<'a>(
        &'a self,
        queue: &'a str,
        consumer: &'a str,
        max: usize,
        visibility: Duration,
    ) -> Answer<'a, Vec<Delivery>> {
        Box::pin(self.0.dequeue(queue, consumer, max, visibility))
    }

    fn acknowledge<'a>(&'a self, receipts: &'a [Receipt]) -> Answer<'a, Settled> {
        Box::pin(self.0.acknowledge(receipts))
    }

    fn negative_acknowledge<'a>(&'a self, receipts: &'a [Receipt], nack: &'a Nack) -> Answer<'a, Settled> {
        Box::pin(self.0.give_back(receipts, nack))
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt, visibility: Duration) -> Answer<'a, Receipt> {
        Box::pin(self.0.extend(receipt, visibility))
    }

    fn wait<'a>(&'a self, queue: &'a str, most: Duration) -> Answer<'a, ()> {
        Box::pin(self.0.wait_for(queue, most))
    }

    fn peek<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<Delivery>> {
        Box::pin(self.0.peek(queue, limit))
    }

    fn in_flight<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<InFlight>> {
        Box::pin(self.0.in_flight(queue, limit))
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<DeadLetter>> {
        Box::pin(self.0.dead_letters(queue, limit))
    }

    fn redrive<'a>(&'a self, queue: &'a str, which: &'a Redrive) -> Answer<'a, u64> {
        Box::pin(self.0.redrive(queue, which))
    }

    fn purge<'a>(&'a self, queue: &'a str, only_dead: bool) -> Answer<'a, u64> {
        Box::pin(self.0.purge(queue, only_dead))
    }

    fn info<'a>(&'a self, queue: &'a str) -> Answer<'a, Option<QueueInfo>> {
        Box::pin(async move { Ok(self.0.queue_infos(Some(queue)).await?.pop()) })
    }

    fn list(&self) -> Answer<'_, Vec<QueueInfo>> {
        Box::pin(self.0.queue_infos(None))
    }

    fn sweep(&self) -> Answer<'_, ()> {
        Box::pin(self.0.sweep())
    }
}
