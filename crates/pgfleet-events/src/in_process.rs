//! A transport within one process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::answer::Answer;
use crate::memory::Memory;
use crate::message::Message;
use crate::queue::{Nack, NewItem, QueueStore, Receipt};
use crate::transport::{Delivered, Published, Subscriber, Subscription, Transport};
use crate::{ConfigStore as _, StreamConfig, StreamKind};

/// Carries messages within one process: for one program that has several services in it, and for tests.
///
/// Each group has a queue of a [`Memory`]; what is in it ends with the program. Cheap to clone, and all clones are one.
#[derive(Debug, Clone, Default)]
pub struct InProcess(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queues: Memory,
    groups: Mutex<BTreeMap<Arc<str>, Vec<Arc<str>>>>,
    /// The messages that are on their way, with the number of queues that each is in; a queue holds their ids.
    messages: Mutex<HashMap<Uuid, (Message, usize)>>,
}

impl InProcess {
    /// A transport with nobody at it.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Inner {
    fn groups_of(&self, topic: &str) -> Vec<Arc<str>> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let wants = |topics: &Vec<Arc<str>>| {
            topics
                .iter()
                .any(|wanted| wanted.strip_suffix('*').map_or(&**wanted == topic, |all| topic.starts_with(all)))
        };
        groups.iter().filter(|(_, topics)| wants(topics)).map(|(group, _)| group.clone()).collect()
    }

    fn message(&self, id: Uuid) -> Option<Message> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.get(&id).map(|(message, _)| message.clone())
    }

    fn add(&self, message: &Message, queues: usize) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.entry(message.id).or_insert_with(|| (message.clone(), 0)).1 += queues;
    }

    /// One queue less has it.
    fn done(&self, id: Uuid) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, queues)) = messages.get_mut(&id) {
            *queues -= 1;
            if *queues == 0 {
                messages.remove(&id);
            }
        }
    }
}

impl Transport for InProcess {
    fn name(&self) -> &'static str {
        "in-process"
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>> {
        Box::pin(async move {
            for message in messages {
                let groups = self.0.groups_of(&message.topic);
                self.0.add(message, groups.len());
                for group in groups {
                    let mut item =
                        NewItem::new(message.kind.clone(), crate::Json::trusted(format!("\"{}\"", message.id)));
                    item.key.clone_from(&message.key);
                    self.0.queues.enqueue(&group, vec![item]).await?;
                }
            }
            // What nobody wants is not kept.
            let mut all = self.0.messages.lock().unwrap_or_else(PoisonError::into_inner);
            for message in messages {
                if all.get(&message.id).is_some_and(|(_, queues)| *queues == 0) {
                    all.remove(&message.id);
                }
            }
            Ok(messages.iter().map(|_| Ok(())).collect())
        })
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        Box::pin(async move {
            let mut config = StreamConfig::new(subscription.group.clone(), StreamKind::Queue);
            // Whoever receives decides when it is enough.
            config.max_attempts = 0;
            self.0.queues.configure(&config).await?;
            self.0
                .groups
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(subscription.group.clone(), subscription.topics.clone());
            let member = Member { inner: self.0.clone(), subscription, out: HashMap::new() };
            Ok(Box::new(member) as Box<dyn Subscriber>)
        })
    }

    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.0.groups.lock().unwrap_or_else(PoisonError::into_inner).remove(group);
            self.0.queues.purge(group, false).await?;
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Member {
    inner: Arc<Inner>,
    subscription: Subscription,
    /// What was handed out and has not come back, by receipt.
    out: HashMap<Arc<str>, Uuid>,
}

impl Subscriber for Member {
    fn receive(&mut self, max: usize, most: Duration) -> Answer<'_, Vec<Delivered>> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + most;
            loop {
                let max = max.min(self.subscription.prefetch.saturating_sub(self.out.len()));
                let Subscription { group, visibility, .. } = &self.subscription;
                let taken = self.inner.queues.dequeue(group, "member", max, *visibility).await?;
                let mut delivered = Vec::new();
                for taken in taken {
                    let Ok(id) = taken.data.as_str().trim_matches('"').parse::<Uuid>() else { continue };
                    // One that was unsubscribed meanwhile is known to nobody any more.
                    let Some(message) = self.inner.message(id) else { continue };
                    self.out.insert(taken.receipt.0.clone(), id);
                    delivered.push(Delivered { message, attempt: taken.attempt, receipt: taken.receipt.0 });
                }
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                if !delivered.is_empty() || left.is_zero() {
                    return Ok(delivered);
                }
                if max == 0 {
                    // Nothing can come back while this waits: whoever has all of it is the caller.
                    tokio::time::sleep(left).await;
                    return Ok(delivered);
                }
                // Deadlines that pass and delays that end wake nobody.
                self.inner.queues.wait(group, left.min(Duration::from_millis(20))).await?;
            }
        })
    }

    fn acknowledge<'a>(&'a mut self, delivered: &'a [Delivered]) -> Answer<'a, ()> {
        Box::pin(async move {
            for delivered in delivered {
                let settled = self.inner.queues.acknowledge(&[Receipt(delivered.receipt.clone())]).await?;
                if let Some(id) = self.out.remove(&delivered.receipt)
                    && settled.done == 1
                {
                    self.inner.done(id);
                }
            }
            Ok(())
        })
    }

    fn give_back<'a>(&'a mut self, delivered: &'a Delivered, delay: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            self.out.remove(&delivered.receipt);
            let nack = Nack::later(delay, "given back");
            self.inner.queues.negative_acknowledge(&[Receipt(delivered.receipt.clone())], &nack).await?;
            Ok(())
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let receipts: Vec<Receipt> = self.out.keys().map(|receipt| Receipt(receipt.clone())).collect();
        let nack = Nack::requeue("given back");
        // A store in memory has answered when it is asked the first time: there is nothing that it would wait for.
        let ended = self.inner.queues.negative_acknowledge(&receipts, &nack);
        let mut ended = std::pin::pin!(ended);
        let answered = ended.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        debug_assert!(answered.is_ready(), "a store in memory does not wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Json, Moment};

    fn message() -> Message {
        Message {
            id: Uuid::now_v7(),
            topic: "booked".into(),
            kind: "Booked".into(),
            source: "trip".into(),
            time: Moment::now(),
            key: None,
            data: Json::trusted("null"),
            meta: crate::Meta::default(),
        }
    }

    /// On one thread: whoever waits must let others work meanwhile.
    #[tokio::test]
    async fn a_member_with_all_that_it_may_have_waits_and_holds_nobody_up() {
        let bus = InProcess::new();
        let subscription = Subscription { prefetch: 1, ..Subscription::new("told", ["booked"]) };
        let mut member = bus.subscribe(subscription).await.unwrap();
        bus.publish(&[message(), message()]).await.unwrap();
        let first = member.receive(10, Duration::from_secs(5)).await.unwrap();
        assert_eq!(first.len(), 1);
        let others = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            "others work"
        };
        tokio::select! {
            biased;
            received = member.receive(10, Duration::from_mins(1)) => panic!("it waits no longer: {received:?}"),
            said = others => assert_eq!(said, "others work"),
        }
        member.acknowledge(&first).await.unwrap();
        assert_eq!(member.receive(10, Duration::from_secs(5)).await.unwrap().len(), 1);
    }
}
