//! RabbitMQ: one topic exchange, and for each group a queue per partition.
//!
//! * A message goes to the exchange under `<partition>.<topic>`. The queues of the partitions with keys have a *single
//!   active consumer*: the broker sends what is in one to one member at a time, in order, and when that ends it sends what
//!   was not acknowledged to the next one, again in order. Closing a channel does all of this in one step inside the
//!   broker, so a partition changes hands by that.
//! * Queues are quorum queues unless told otherwise: replicated in a cluster, safe when one machine is lost.
//!   RabbitMQ 3.10 notes the name of a new one's log half a second later, so one that is killed within that time comes back
//!   with queues that never have a leader: they must be removed by hand (`rabbitmqctl delete_queue`).
//! * Messages are persistent and confirmed by the broker when all queues that they go to have them.
//! * A message that no queue wants is confirmed too: an event that nobody has subscribed to is no mistake. It is sent
//!   `mandatory`, so this is seen and counted ([`RabbitMq::unrouted`]) and told apart from one that was stored. That the
//!   queues of a group are gone is seen by its members, who say so in the log and make them again.
//! * A topic `a.b*` that ends within a word is bound as `a.#`, and members leave out what does not fit. All members of a
//!   group that uses such a topic must therefore subscribe to the same topics.

mod link;
mod member;
mod names;
mod publisher;
mod session;
mod subscriber;

use std::sync::Arc;

use lapin::options::QueueDeleteOptions;
use pgfleet_events::{Answer, Error, Message, Published, Subscriber, Subscription, Transport};
use secrecy::SecretString;

use self::link::Link;
use self::names::Group;
use self::publisher::Publisher;
use crate::connect::Options;
use crate::partition::Partition;

/// The word in errors.
const BROKER: &str = "RabbitMQ";

/// How many partitions the keys are dealt to: so many members of a group can work on messages with keys at once.
///
/// Publishers and subscribers must agree on it, so it is no setting.
const PARTITIONS: usize = 8;

/// A RabbitMQ broker or cluster.
#[derive(Debug)]
pub struct RabbitMq {
    link: Arc<Link>,
    publisher: Publisher,
}

impl RabbitMq {
    /// Makes a transport over the broker of a URL: `amqp://user:password@host:port/vhost`, `amqps://` with TLS. It connects
    /// when it is first used.
    ///
    /// # Errors
    ///
    /// [`Invalid`](pgfleet_events::ErrorKind::Invalid) for a URL that is none of RabbitMQ.
    pub fn new(url: &SecretString, options: Options) -> Result<Self, Error> {
        let link = Arc::new(Link::new(url, options)?);
        Ok(Self { publisher: Publisher::new(link.clone()), link })
    }

    /// Returns how many messages were published that no group has subscribed to.
    pub fn unrouted(&self) -> u64 {
        self.publisher.unrouted()
    }
}

impl Transport for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>> {
        Box::pin(self.publisher.publish(messages))
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        Box::pin(async move {
            let group = Group::new(&self.link.options, subscription)?;
            let subscriber = subscriber::Consumer::start(self.link.clone(), group).await?;
            Ok(Box::new(subscriber) as Box<dyn Subscriber>)
        })
    }

    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let connection = self.link.connect("unsubscribe").await?;
            let forgotten = async {
                let channel = connection.create_channel().await?;
                for partition in Partition::all(PARTITIONS) {
                    let queue = names::queue(&self.link.options.name, group, partition).as_str().into();
                    channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
                }
                connection.close(200, "done".into()).await
            };
            forgotten.await.map_err(|error| self.link.failed("the group was not forgotten", error))
        })
    }
}
