//! Queues in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Queue, parse};
use super::{Look, Memory};
use crate::answer::Answer;
use crate::config::StreamConfig;
use crate::error::{Error, ErrorKind};
use crate::moment::Moment;
use crate::queue::{
    DeadLetter, Delivery, Enqueued, InFlight, Nack, NewItem, QueueInfo, QueueStore, Receipt, Redrive, Settled,
};

#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) by_name: BTreeMap<Arc<str>, Queue>,
    /// The number of the last delivery: no two have the same, so an old receipt never fits.
    tokens: u64,
}

impl Memory {
    /// Does something with a queue that exists, after what time demands was done.
    fn with_queue<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Queue, &mut u64, &StreamConfig, Moment) -> T,
    ) -> Option<T> {
        let config = self.queue_config(name);
        let now = self.inner.clock.now();
        let mut queues = self.queues();
        let Queues { by_name, tokens } = &mut *queues;
        let queue = by_name.get_mut(name)?;
        queue.expire(&config, now);
        Some(work(queue, tokens, &config, now))
    }

    fn enqueue_now(&self, name: &str, items: Vec<NewItem>) -> Result<Vec<Enqueued>, Error> {
        if name.is_empty() {
            return Err(Error::invalid("a queue needs a name"));
        }
        let config = self.queue_config(name);
        if config.closed {
            return Err(Error::new(ErrorKind::Refused, format!("queue {name} is closed")));
        }
        let now = self.inner.clock.now();
        let mut queues = self.queues();
        let queue = match queues.by_name.get_mut(name) {
            Some(queue) => queue,
            None => queues.by_name.entry(name.into()).or_insert_with(|| Queue::new(name)),
        };
        queue.expire(&config, now);
        let length = queue.waiting() as u64 + queue.new_ones(&items) as u64;
        if config.max_length > 0 && length > config.max_length {
            return Err(Error::new(ErrorKind::Refused, format!("queue {name} is full"))
                .with_hint("try again when some of its messages are done")
                .retryable(true));
        }
        let answers = items.into_iter().map(|item| queue.put(item, &config, now)).collect();
        drop(queues);
        self.inner.enqueued.notify_waiters();
        Ok(answers)
    }

    fn settle(&self, receipts: &[Receipt], mut end: impl FnMut(&mut Queue, u64, &StreamConfig, Moment)) -> Settled {
        let mut settled = Settled::default();
        for receipt in receipts {
            let held = parse(receipt).and_then(|(name, place, token)| {
                self.with_queue(name, |queue, _, config, now| {
                    let held = queue.holds(place, token, now);
                    if held {
                        end(queue, place, config, now);
                    }
                    held
                })
            });
            if held == Some(true) {
                settled.done += 1;
            } else {
                settled.fenced += 1;
            }
        }
        // What was ended may let the next one of its key go.
        self.inner.enqueued.notify_waiters();
        settled
    }
}

impl QueueStore for Memory {
    fn enqueue<'a>(&'a self, queue: &'a str, items: Vec<NewItem>) -> Answer<'a, Vec<Enqueued>> {
        Box::pin(async move { self.enqueue_now(queue, items) })
    }

    fn dequeue<'a>(
        &'a self,
        queue: &'a str,
        consumer: &'a str,
        max: usize,
        visibility: Duration,
    ) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            let taken = self.with_queue(queue, |queue, tokens, config, now| {
                let visibility = if visibility.is_zero() { config.visibility } else { visibility };
                queue.take(&consumer.into(), max, now.after(visibility), now, tokens)
            });
            Ok(taken.unwrap_or_default())
        })
    }

    fn acknowledge<'a>(&'a self, receipts: &'a [Receipt]) -> Answer<'a, Settled> {
        Box::pin(async move { Ok(self.settle(receipts, Queue::done)) })
    }

    fn negative_acknowledge<'a>(&'a self, receipts: &'a [Receipt], nack: &'a Nack) -> Answer<'a, Settled> {
        Box::pin(async move {
            Ok(self.settle(receipts, |queue, place, config, now| {
                queue.back(place, config, now, nack.delay, nack.requeue, &nack.reason);
            }))
        })
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt, visibility: Duration) -> Answer<'a, Receipt> {
        Box::pin(async move {
            let extended = parse(receipt).and_then(|(name, place, token)| {
                self.with_queue(name, |queue, tokens, config, now| {
                    let visibility = if visibility.is_zero() { config.visibility } else { visibility };
                    queue.holds(place, token, now).then(|| queue.extend(place, now.after(visibility), tokens))
                })
            });
            extended.flatten().ok_or_else(|| Error::fenced("the delivery"))
        })
    }

    fn wait<'a>(&'a self, queue: &'a str, most: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let look = || match self.with_queue(queue, |queue, _, _, now| (queue.next_due(now), now)) {
                Some((Some(at), now)) if at <= now => Look::There,
                Some((Some(at), _)) => Look::At(at),
                Some((None, _)) | None => Look::Nothing,
            };
            self.wait_for(&self.inner.enqueued, most, look).await;
            Ok(())
        })
    }

    fn peek<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<Delivery>> {
        Box::pin(
            async move { Ok(self.with_queue(queue, |queue, _, _, now| queue.peek(limit, now)).unwrap_or_default()) },
        )
    }

    fn in_flight<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<InFlight>> {
        Box::pin(async move { Ok(self.with_queue(queue, |queue, _, _, _| queue.in_flight(limit)).unwrap_or_default()) })
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, limit: usize) -> Answer<'a, Vec<DeadLetter>> {
        Box::pin(
            async move { Ok(self.with_queue(queue, |queue, _, _, _| queue.dead_letters(limit)).unwrap_or_default()) },
        )
    }

    fn redrive<'a>(&'a self, queue: &'a str, which: &'a Redrive) -> Answer<'a, u64> {
        Box::pin(async move {
            let count = self.with_queue(queue, |queue, _, config, now| queue.redrive(which, config, now));
            self.inner.enqueued.notify_waiters();
            Ok(count.unwrap_or(0))
        })
    }

    fn purge<'a>(&'a self, queue: &'a str, only_dead: bool) -> Answer<'a, u64> {
        Box::pin(async move {
            let count = self.with_queue(queue, |queue, _, config, now| queue.purge(only_dead, config, now));
            self.inner.enqueued.notify_waiters();
            Ok(count.unwrap_or(0))
        })
    }

    fn info<'a>(&'a self, queue: &'a str) -> Answer<'a, Option<QueueInfo>> {
        Box::pin(async move { Ok(self.with_queue(queue, |queue, _, _, _| queue.info())) })
    }

    fn list(&self) -> Answer<'_, Vec<QueueInfo>> {
        Box::pin(async move {
            let names: Vec<Arc<str>> = self.queues().by_name.keys().cloned().collect();
            Ok(names.iter().filter_map(|name| self.with_queue(name, |queue, _, _, _| queue.info())).collect())
        })
    }

    fn sweep(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let names: Vec<Arc<str>> = self.queues().by_name.keys().cloned().collect();
            for name in names {
                self.with_queue(&name, |_, _, _, _| ());
            }
            Ok(())
        })
    }
}
