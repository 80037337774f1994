//! The consumers of a group.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use futures_util::future::try_join_all;
use pgfleet_events::{Error, Subscription};

use super::link::Open;
use super::{BROKER, PARTITIONS, names};
use crate::error::unavailable;
use crate::partition::Partition;

/// How many messages without keys may be out among all members.
const MOST_OUT: i64 = 10_000;

/// Makes the consumers of a group, or lets them take in more topics; returns all topics of the group.
pub(super) async fn make(open: &Open, subscription: &Subscription) -> Result<Vec<Arc<str>>, Error> {
    let group = &subscription.group;
    if group.is_empty() || subscription.topics.iter().any(|topic| topic.is_empty()) {
        return Err(Error::invalid(format!("{group:?} and {:?} are no group and topics", subscription.topics)));
    }
    let stream = open.make_stream().await?;
    let mut topics = topics(open, group).await?;
    for topic in &subscription.topics {
        if !topics.contains(topic) {
            topics.push(topic.clone());
        }
    }
    let description = serde_json::to_string(&topics.iter().map(|topic| &**topic).collect::<Vec<_>>())
        .map_err(|error| Error::invalid("the topics cannot be written").because(error))?;
    try_join_all(Partition::all(PARTITIONS).map(|partition| {
        let config = config(open, subscription, partition, &topics, &description);
        stream.create_consumer(config)
    }))
    .await
    .map_err(|error| {
        unavailable(BROKER, &format!("the consumers of {group} cannot be made"), error)
            .with_hint("a group of the same name that was made otherwise must be removed first (nats consumer rm)")
    })?;
    Ok(topics)
}

/// Returns the topics of a group as all its members made them; none when it does not exist.
pub(super) async fn topics(open: &Open, group: &str) -> Result<Vec<Arc<str>>, Error> {
    let name = names::consumer(group, Partition::Free);
    let stream = open.jetstream.get_stream_no_info(&open.options.name).await;
    let stream = stream.map_err(|error| unavailable(BROKER, "the stream does not answer", error))?;
    match stream.consumer_info(name).await {
        Ok(info) => {
            // Taken for a group without topics, those of all its members would be written over.
            let text = info.config.description.unwrap_or_default();
            let topics: Vec<String> = serde_json::from_str(&text).map_err(|error| {
                Error::invalid(format!("{BROKER}: the consumers of {group} do not say which topics they are for"))
                    .with_hint("somebody else made them; remove them (nats consumer rm), or name the group otherwise")
                    .because(error)
            })?;
            Ok(topics.into_iter().map(Arc::from).collect())
        }
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unavailable(BROKER, &format!("nothing is known of the group {group}"), error)),
    }
}

/// Removes the consumers of a group.
pub(super) async fn remove(open: &Open, group: &str) -> Result<(), Error> {
    let stream = open.make_stream().await?;
    let stream = &stream;
    try_join_all(Partition::all(PARTITIONS).map(|partition| async move {
        let name = names::consumer(group, partition);
        let Err(error) = stream.delete_consumer(&name).await else { return Ok(()) };
        // It is not there: nothing to forget.
        match stream.consumer_info(&name).await {
            Err(info) if info.kind() == ConsumerInfoErrorKind::NotFound => Ok(()),
            _ => Err(unavailable(BROKER, &format!("the group {group} was not forgotten"), error)),
        }
    }))
    .await
    .map(drop)
}

fn config(
    open: &Open,
    subscription: &Subscription,
    partition: Partition,
    topics: &[Arc<str>],
    description: &str,
) -> pull::Config {
    pull::Config {
        durable_name: Some(names::consumer(&subscription.group, partition)),
        description: Some(description.to_owned()),
        // What was published before is for those who were there.
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::Explicit,
        ack_wait: subscription.visibility.max(Duration::from_millis(100)),
        max_deliver: -1,
        max_ack_pending: if partition == Partition::Free { MOST_OUT } else { 1 },
        filter_subject: names::filter(&open.options.name, partition, topics),
        ..pull::Config::default()
    }
}
