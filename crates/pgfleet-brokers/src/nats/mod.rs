//! NATS JetStream: one stream, and for each group a durable pull consumer per partition.
//!
//! * A message is stored under `<name>.<partition>.m.<topic>`, with its id as `Nats-Msg-Id`, by which the server leaves out
//!   what it has stored already within its window. Of one key the next is sent when the server has confirmed the one before,
//!   so that no failure in between can change their order; different keys are sent at once.
//! * A consumer of a partition with keys has one message out at a time among all members of the group (`max_ack_pending` 1):
//!   the order is kept by the server, whoever asks, ends or is killed. Keys are dealt to many partitions, so many messages
//!   are out at once; a message that goes back for a time holds the keys of its partition, not only its own.
//! * `ack_wait` is the subscription's visibility; a delay of a message that goes back is kept by the server.
//! * Topics of a group are kept in the description of its consumers and add up, since a server of 2.9 has one filter for each
//!   consumer; what the filter lets in and no member has asked for is left out.
//! * Confirmed is what the server has written to its file; on one machine it is flushed to disk every two minutes, so losing
//!   the power (not: the process) can lose some of it. A cluster with [`Options::replicas`] 3 does not.

mod consumers;
mod link;
mod names;
mod publisher;
mod pump;
mod subscriber;

use std::sync::Arc;

use pgfleet_events::{Answer, Error, Message, Published, Subscriber, Subscription, Transport};
use secrecy::SecretString;

use self::link::Link;
use crate::connect::Options;

/// The word in errors.
const BROKER: &str = "NATS";

/// How many partitions the keys are dealt to: so many messages with keys are out at once in a group.
const PARTITIONS: usize = 64;

/// A NATS server or cluster with JetStream.
#[derive(Debug)]
pub struct Nats {
    link: Arc<Link>,
}

impl Nats {
    /// Makes a transport over the server of a URL: `nats://user:password@host:port`, `tls://` with TLS; several of a
    /// cluster with commas between them. It connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`Invalid`](pgfleet_events::ErrorKind::Invalid) for a URL or a name that are none of NATS.
    pub fn new(url: &SecretString, options: Options) -> Result<Self, Error> {
        Ok(Self { link: Arc::new(Link::new(url, options)?) })
    }
}

impl Transport for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>> {
        Box::pin(publisher::publish(&self.link, messages))
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        Box::pin(async move {
            let subscriber = subscriber::Consumer::start(self.link.clone(), subscription).await?;
            Ok(Box::new(subscriber) as Box<dyn Subscriber>)
        })
    }

    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { consumers::remove(&*self.link.open().await?, group).await })
    }
}
