//! Publishing, with confirmations of many messages awaited at once.

use std::collections::HashSet;
use std::future::IntoFuture as _;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use pgfleet_events::{Error, ErrorKind, Message, Published};

use super::link::{Link, Open};
use super::{BROKER, PARTITIONS, names};
use crate::envelope;
use crate::error::{behind, unavailable, unconfirmed};
use crate::partition::Partition;

/// How CloudEvents attributes are marked in headers of NATS.
pub(super) const PREFIX: &str = "ce-";

pub(super) async fn publish(link: &Link, messages: &[Message]) -> Result<Vec<Published>, Error> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let open = link.open().await?;
    let mut answers: Vec<Option<Published>> = messages.iter().map(|_| None).collect();
    let mut failed: HashSet<&str> = HashSet::new();
    let mut left: Vec<usize> = (0..messages.len()).collect();
    // Each round sends the next message of every key, and all without one.
    while !left.is_empty() {
        let (round, later) = next_round(messages, &left);
        left = later;
        for (at, answer) in round_of(&open, messages, round, &failed).await {
            if answer.is_err() {
                failed.extend(messages[at].key.as_deref());
            }
            answers[at] = Some(answer);
        }
    }
    Ok(answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|| Err(unconfirmed(BROKER, "publish it again"))))
        .collect())
}

/// Splits what is left into what can be sent at once, and the rest.
fn next_round(messages: &[Message], left: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut keys: HashSet<&str> = HashSet::new();
    left.iter().partition(|at| messages[**at].key.as_deref().is_none_or(|key| keys.insert(key)))
}

async fn round_of(
    open: &Open,
    messages: &[Message],
    round: Vec<usize>,
    failed: &HashSet<&str>,
) -> Vec<(usize, Published)> {
    let lost_before = open.changes.borrow().lost;
    let mut sent = Vec::with_capacity(round.len());
    for at in round {
        let message = &messages[at];
        sent.push((
            at,
            match message.key.as_deref().filter(|key| failed.contains(key)) {
                Some(key) => Err(behind(key)),
                None => send(open, message).await,
            },
        ));
    }
    let mut answers = Vec::with_capacity(sent.len());
    for (at, sent) in sent {
        let answer = match sent {
            Err(error) => Err(error),
            Ok(confirm) => tokio::select! {
                // Those that came before the connection was lost count.
                biased;
                confirmed = confirm.into_future() => match confirmed {
                    Ok(_) => Ok(()),
                    Err(error) => Err(refused(open, error).await),
                },
                // Nobody will answer any more, and waiting for the time limit would hold the caller up.
                () = lost(open, lost_before) => {
                    Err(unconfirmed(BROKER, "the connection was lost; it may have arrived, publish it again"))
                }
            },
        };
        answers.push((at, answer));
    }
    answers
}

/// Waits until the connection is lost once more than before.
async fn lost(open: &Open, before: u64) {
    // An error is the end of the client, which is a lost connection too.
    let _ = open.changes.clone().wait_for(|changes| changes.lost > before).await.map(drop);
}

async fn send(open: &Open, message: &Message) -> Result<PublishAckFuture, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in envelope::headers(message, PREFIX) {
        headers.insert(name.as_str(), value.as_str());
    }
    let publish = PublishMessage::build()
        .headers(headers)
        .message_id(message.id.to_string())
        .payload(message.data.as_str().to_owned().into());
    let subject = names::subject(&open.options.name, Partition::of(message, PARTITIONS), &message.topic);
    open.jetstream.send_publish(subject, publish).await.map_err(|error| match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            Error::invalid(format!("{BROKER}: the message {} is too large", message.id))
                .with_hint("raise max_payload of the server, or keep large data elsewhere and send where it is")
                .because(error)
        }
        _ => unavailable(BROKER, "the message was not sent", error),
    })
}

async fn refused(open: &Open, error: async_nats::jetstream::context::PublishError) -> Error {
    if error.kind() != PublishErrorKind::StreamNotFound {
        return unavailable(BROKER, "the message was not confirmed", error);
    }
    // Just now none of the cluster answers for it, or somebody removed it.
    let made = open.make_stream().await.map(drop);
    tracing::warn!(made = made.is_ok(), "the stream of NATS did not answer");
    Error::new(ErrorKind::Unavailable, format!("{BROKER}: the stream does not answer")).because(error)
}
