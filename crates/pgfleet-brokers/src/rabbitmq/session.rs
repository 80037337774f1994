//! A member's connection, and the partitions that it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use pgfleet_events::Error;
use rand::seq::SliceRandom as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::PARTITIONS;
use super::link::Link;
use super::names::Group;
use super::publisher::{PREFIX, declare_exchange};
use crate::envelope;
use crate::partition::Partition;
use crate::window::{Hold, Shared};

/// The header in which quorum queues count deliveries.
const DELIVERY_COUNT: &str = "x-delivery-count";

#[derive(Debug)]
pub(super) struct Session {
    link: Arc<Link>,
    group: Arc<Group>,
    shared: Arc<Shared<Acker>>,
    connection: Connection,
    control: Channel,
    claims: BTreeMap<Partition, Claim>,
    /// Since when it has no partitions, because the caller was too slow with what he had.
    stuck: Option<Instant>,
    ended: mpsc::UnboundedSender<(Partition, Hold)>,
    consumers: JoinSet<()>,
}

/// A partition that this member consumes, over a channel of its own: closing it gives back what was not acknowledged.
#[derive(Debug)]
struct Claim {
    channel: Channel,
    hold: Hold,
}

impl Session {
    /// Connects, makes what the group needs, and takes this member's share; says by the channel which claims ended.
    pub(super) async fn open(
        link: Arc<Link>,
        group: Arc<Group>,
        shared: Arc<Shared<Acker>>,
        again: bool,
    ) -> Result<(Self, mpsc::UnboundedReceiver<(Partition, Hold)>), Error> {
        let connection = link.connect(group.name()).await?;
        let opened = async {
            if again {
                warn_if_gone(&connection, &group).await?;
            }
            let control = connection.create_channel().await?;
            declare(&control, &group, link.options.quorum).await?;
            Ok(control)
        };
        let control = opened.await.map_err(|error| link.failed("cannot subscribe", error))?;
        let (ended, ends) = mpsc::unbounded_channel();
        let mut session = Self {
            link,
            group,
            shared,
            connection,
            control,
            claims: BTreeMap::new(),
            stuck: None,
            ended,
            consumers: JoinSet::new(),
        };
        // The one without keys first: by its consumers the others know how many members there are.
        session.claim(Partition::Free).await?;
        session.balance().await?;
        Ok((session, ends))
    }

    /// Returns how often to look after the partitions.
    pub(super) fn round(&self) -> Duration {
        self.link.options.balance_every.min(self.group.visibility() / 4).max(Duration::from_millis(10))
    }

    /// Returns whether a claim that ended was given up by this member itself.
    pub(super) fn expected(&self, partition: Partition, hold: Hold) -> bool {
        self.claims.get(&partition).is_none_or(|claim| claim.hold != hold)
    }

    pub(super) async fn close(self) {
        if let Err(error) = self.connection.close(200, "done".into()).await {
            tracing::debug!(%error, "a connection was not closed");
        }
    }

    /// Gives up what took too long, and brings the number of partitions to this member's share.
    pub(super) async fn balance(&mut self) -> Result<(), Error> {
        self.balanced().await.map_err(|error| self.link.failed("the partitions were not shared", error))
    }

    async fn balanced(&mut self) -> Result<(), lapin::Error> {
        if self.give_up_overdue().await? {
            return Ok(());
        }
        let members = self.consumers_of(Partition::Free).await?.max(1);
        let share = PARTITIONS.div_ceil(members);
        let mut keyed: Vec<Partition> = Partition::keyed(PARTITIONS).collect();
        keyed.shuffle(&mut rand::rng());
        let (mine, others): (Vec<Partition>, Vec<Partition>) =
            keyed.into_iter().partition(|partition| self.claims.contains_key(partition));
        for partition in mine.iter().take(mine.len().saturating_sub(share)) {
            self.release_idle(*partition).await?;
        }
        // Two members that looked at once both consume it, and one of them in vain: one goes away by chance.
        if members > 1
            && let Some(partition) = mine.last()
            && self.claims.contains_key(partition)
            && self.consumers_of(*partition).await? > 1
            && rand::random()
        {
            self.release_idle(*partition).await?;
        }
        let mut wanted = share.saturating_sub(mine.len());
        for partition in others {
            if wanted == 0 {
                break;
            }
            if self.consumers_of(partition).await? == 0 {
                self.consume(partition).await?;
                wanted -= 1;
            }
        }
        Ok(())
    }

    /// Gives everything up when the caller has something for too long: he hangs, and the others do his part until he asks
    /// for messages again. Returns whether he hangs.
    async fn give_up_overdue(&mut self) -> Result<bool, lapin::Error> {
        let now = Instant::now();
        if let Some(since) = self.stuck {
            if self.shared.asked_since(since) {
                self.stuck = None;
                self.consume(Partition::Free).await?;
            }
            return Ok(self.stuck.is_some());
        }
        if !self.shared.window().is_overdue(self.group.visibility(), now) {
            return Ok(false);
        }
        tracing::warn!(
            group = self.group.name(),
            "messages took longer than their visibility and go to another member"
        );
        self.stuck = Some(now);
        // First nothing of it is handed out any more, then the next member gets it.
        self.shared.window().clear();
        for claim in std::mem::take(&mut self.claims).into_values() {
            claim.channel.close(200, "too slow".into()).await?;
        }
        Ok(true)
    }

    async fn release_idle(&mut self, partition: Partition) -> Result<(), lapin::Error> {
        let Some(hold) = self.claims.get(&partition).map(|claim| claim.hold) else { return Ok(()) };
        // First nothing of it is handed out any more, then the next member gets it.
        if self.shared.window().release_idle(hold)
            && let Some(claim) = self.claims.remove(&partition)
        {
            claim.channel.close(200, "shared".into()).await?;
        }
        Ok(())
    }

    async fn consumers_of(&self, partition: Partition) -> Result<usize, lapin::Error> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.group.queue(partition);
        let queue = self.control.queue_declare(queue.as_str().into(), options, FieldTable::default()).await?;
        Ok(usize::try_from(queue.consumer_count()).unwrap_or(usize::MAX))
    }

    async fn claim(&mut self, partition: Partition) -> Result<(), Error> {
        self.consume(partition).await.map_err(|error| self.link.failed("cannot consume", error))
    }

    async fn consume(&mut self, partition: Partition) -> Result<(), lapin::Error> {
        let channel = self.connection.create_channel().await?;
        channel.basic_qos(self.group.prefetch(partition), BasicQosOptions::default()).await?;
        let hold = self.shared.window().hold();
        let queue = self.group.queue(partition);
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
        self.claims.insert(partition, Claim { channel, hold });
        let (group, shared, ended) = (self.group.clone(), self.shared.clone(), self.ended.clone());
        self.consumers.spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                take_in(&group, &shared, hold, delivery).await;
            }
            // Nobody listens when the session is over already.
            let _ = ended.send((partition, hold));
        });
        Ok(())
    }
}

async fn take_in(group: &Group, shared: &Shared<Acker>, hold: Hold, delivery: Delivery) {
    let headers = delivery.properties.headers().as_ref();
    let texts = headers.into_iter().flat_map(FieldTable::inner).filter_map(|(name, value)| match value {
        AMQPValue::LongString(text) => Some((name.as_str(), std::str::from_utf8(text.as_bytes()).ok()?)),
        _ => None,
    });
    let message = match envelope::message(texts, PREFIX, &delivery.data) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(group = group.name(), %error, "what is no message of ours was rejected");
            // With the channel gone it comes again, and is rejected again.
            let _ = delivery.acker.reject(BasicRejectOptions::default()).await;
            return;
        }
    };
    if !group.wants(&message.topic) {
        // With the channel gone it comes again, and is passed over again.
        let _ = delivery.acker.ack(BasicAckOptions::default()).await;
        return;
    }
    let counted = headers.and_then(|table| table.inner().get(DELIVERY_COUNT)).and_then(count);
    let attempt = counted.unwrap_or_else(|| u32::from(delivery.redelivered)) + 1;
    shared.window().arrived(hold, message, attempt, delivery.acker);
    shared.ring();
}

fn count(value: &AMQPValue) -> Option<u32> {
    match value {
        AMQPValue::LongLongInt(count) => u32::try_from(*count).ok(),
        AMQPValue::LongInt(count) => u32::try_from(*count).ok(),
        AMQPValue::ShortInt(count) => u32::try_from(*count).ok(),
        AMQPValue::ShortShortInt(count) => u32::try_from(*count).ok(),
        _ => None,
    }
}

/// Makes the exchange, the queues and their bindings, as far as they are not there.
async fn declare(channel: &Channel, group: &Group, quorum: bool) -> Result<(), lapin::Error> {
    declare_exchange(channel, group.exchange()).await?;
    let queues: Vec<(Partition, String)> =
        Partition::all(PARTITIONS).map(|partition| (partition, group.queue(partition))).collect();
    try_join_all(queues.iter().map(|(partition, queue)| {
        let mut arguments = FieldTable::default();
        let kind = if quorum { "quorum" } else { "classic" };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        if *partition != Partition::Free {
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), options, arguments)
    }))
    .await?;
    let exchange = group.exchange();
    let bindings = queues.iter().flat_map(|(partition, queue)| {
        group.bindings(*partition).map(move |key| {
            let (queue, exchange) = (queue.as_str().into(), exchange.into());
            channel.queue_bind(queue, exchange, key.as_str().into(), QueueBindOptions::default(), FieldTable::default())
        })
    });
    try_join_all(bindings).await?;
    Ok(())
}

/// Says so when the queues of a group have gone, which nobody but its members can know.
async fn warn_if_gone(connection: &Connection, group: &Group) -> Result<(), lapin::Error> {
    // A channel of its own: asking for what is not there ends it.
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = group.queue(Partition::Free);
    let asked = channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
    match asked {
        Ok(_) => channel.close(200, "done".into()).await,
        Err(error) if error.is_amqp_soft_error() => {
            tracing::error!(
                group = group.name(),
                "the group's queues were removed from the broker, and what was in them"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}
