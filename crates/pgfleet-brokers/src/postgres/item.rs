//! A message as an item of a queue: what an item has no place for is in headers.

use std::sync::Arc;

use pgfleet_events::{Delivery, Json, Message, Moment, NewItem};

const ID: &str = "ce-id";
const SOURCE: &str = "ce-source";
const TIME: &str = "ce-time";
const TOPIC: &str = "ce-topic";

/// The data is a text in the item: a queue keeps what JSON means, a transport carries it as it was written.
pub(super) fn of(message: &Message) -> NewItem {
    let data = Json::from(serde_json::Value::from(message.data.as_str()));
    let mut item = NewItem::new(message.kind.clone(), data);
    item.key.clone_from(&message.key);
    item.meta = message.meta.clone();
    let headers = &mut item.meta.headers;
    headers.insert(ID.to_owned(), message.id.to_string());
    headers.insert(SOURCE.to_owned(), message.source.to_string());
    headers.insert(TIME.to_owned(), message.time.micros().to_string());
    headers.insert(TOPIC.to_owned(), message.topic.to_string());
    item
}

/// The message of an item; none when it is no message of a bus.
pub(super) fn message(delivery: Delivery) -> Option<Message> {
    let mut meta = delivery.meta;
    let mut take = |name: &str| meta.headers.remove(name);
    let id = take(ID)?.parse().ok()?;
    let source: Arc<str> = take(SOURCE)?.into();
    let time = Moment::from_micros(take(TIME)?.parse().ok()?);
    let topic: Arc<str> = take(TOPIC)?.into();
    let data = Json::trusted(delivery.data.to::<String>().ok()?);
    Some(Message { id, topic, kind: delivery.kind, source, time, key: delivery.key, data, meta })
}
