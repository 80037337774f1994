//! Publishing with confirms.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind, PublisherConfirm};
use pgfleet_events::{Error, Message, Published};
use tokio::sync::Mutex;

use super::link::Link;
use super::{BROKER, PARTITIONS, names};
use crate::envelope;
use crate::error::{behind, keep_order, unavailable, unconfirmed};
use crate::partition::Partition;
use crate::pause::Pause;

/// How CloudEvents attributes are marked in headers of AMQP.
pub(super) const PREFIX: &str = "cloudEvents:";

const PERSISTENT: u8 = 2;

const HINT: &str = "it may have arrived; publish it again. A broker that is short of memory or disk takes nothing: see its \
                    alarms (rabbitmqctl status)";

/// One channel for all that this process publishes: what goes over one channel reaches a queue in its order.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Arc<Link>,
    slot: Mutex<Slot>,
    unrouted: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    open: Option<Open>,
    pause: Pause,
    /// When connecting may be tried again, and what it failed by.
    closed_until: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    channel: Channel,
}

impl Open {
    fn is_alive(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, slot: Mutex::default(), unrouted: AtomicU64::new(0) }
    }

    pub(super) fn unrouted(&self) -> u64 {
        self.unrouted.load(Ordering::Relaxed)
    }

    pub(super) async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let sent = self.send(messages).await?;
        let deadline = tokio::time::Instant::now() + self.link.options.confirm_within;
        let mut answers = Vec::with_capacity(messages.len());
        let mut lost = false;
        for (message, sent) in messages.iter().zip(sent) {
            let answer = match sent {
                Err(error) => Err(error),
                Ok(confirm) => match tokio::time::timeout_at(deadline, confirm).await {
                    Ok(Ok(confirmation)) => self.judge(message, &confirmation),
                    Ok(Err(error)) => {
                        lost = true;
                        Err(unavailable(BROKER, "the connection was lost before the message was confirmed", error))
                    }
                    Err(_) => {
                        lost = true;
                        Err(unconfirmed(BROKER, HINT))
                    }
                },
            };
            answers.push(answer);
        }
        if lost {
            // Nothing more is sent behind what may be lost.
            self.slot.lock().await.open = None;
        }
        keep_order(messages, &mut answers);
        Ok(answers)
    }

    fn judge(&self, message: &Message, confirmation: &Confirmation) -> Published {
        match confirmation {
            Confirmation::Ack(returned) => {
                if returned.is_some() {
                    let count = self.unrouted.fetch_add(1, Ordering::Relaxed) + 1;
                    tracing::debug!(topic = %message.topic, id = %message.id, count, "nobody has subscribed to a message");
                }
                Ok(())
            }
            Confirmation::Nack(_) => Err(unconfirmed(BROKER, "the broker refused it: see its log; publish it again")),
            Confirmation::NotRequested => Err(unconfirmed(BROKER, "the channel confirms nothing")),
        }
    }

    /// Sends all, in their order; what comes after a failure is not sent.
    async fn send(&self, messages: &[Message]) -> Result<Vec<Result<PublisherConfirm, Error>>, Error> {
        let mut slot = self.slot.lock().await;
        let channel = self.channel(&mut slot).await?;
        let mut sent = Vec::with_capacity(messages.len());
        let mut refused: Vec<&str> = Vec::new();
        for message in messages {
            if let Some(key) = message.key.as_deref().filter(|key| refused.contains(key)) {
                sent.push(Err(behind(key)));
                continue;
            }
            let confirm = match names::routing_key(Partition::of(message, PARTITIONS), &message.topic) {
                Ok(key) => self.send_one(&channel, &key, message).await,
                Err(error) => {
                    refused.extend(message.key.as_deref());
                    sent.push(Err(error));
                    continue;
                }
            };
            match confirm {
                Ok(confirm) => sent.push(Ok(confirm)),
                Err(error) => {
                    sent.push(Err(unavailable(BROKER, "the connection was lost", error)));
                    slot.open = None;
                    break;
                }
            }
        }
        let missing = messages.len() - sent.len();
        let unsent =
            || Err(Error::new(pgfleet_events::ErrorKind::Unavailable, format!("{BROKER}: the connection was lost")));
        sent.extend(std::iter::repeat_with(unsent).take(missing));
        Ok(sent)
    }

    async fn send_one(
        &self,
        channel: &Channel,
        key: &str,
        message: &Message,
    ) -> Result<PublisherConfirm, lapin::Error> {
        let mut headers = FieldTable::default();
        for (name, value) in envelope::headers(message, PREFIX) {
            headers.insert(name.as_str().into(), AMQPValue::LongString(value.into()));
        }
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(message.id.to_string().as_str().into())
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let exchange = self.link.options.name.as_str().into();
        channel.basic_publish(exchange, key.into(), options, message.data.as_str().as_bytes(), properties).await
    }

    async fn channel(&self, slot: &mut Slot) -> Result<Channel, Error> {
        if let Some(open) = slot.open.as_ref().filter(|open| open.is_alive()) {
            return Ok(open.channel.clone());
        }
        slot.open = None;
        if let Some((until, why)) = &slot.closed_until
            && *until > Instant::now()
        {
            return Err(unavailable(BROKER, &format!("not connected ({})", self.link.at()), why.clone()));
        }
        match self.open().await {
            Ok(open) => {
                slot.pause.reset();
                slot.closed_until = None;
                Ok(slot.open.insert(open).channel.clone())
            }
            Err(error) => {
                slot.closed_until = Some((Instant::now() + slot.pause.next(), error.to_string()));
                Err(error)
            }
        }
    }

    async fn open(&self) -> Result<Open, Error> {
        let connection = self.link.connect("publish").await?;
        let opened = async {
            let channel = connection.create_channel().await?;
            declare_exchange(&channel, &self.link.options.name).await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        match opened.await {
            Ok(channel) => Ok(Open { connection, channel }),
            Err(error) => Err(self.link.failed("cannot publish", error)),
        }
    }
}

pub(super) async fn declare_exchange(channel: &Channel, name: &str) -> Result<(), lapin::Error> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default()).await
}
