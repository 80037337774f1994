//! Messages as CloudEvents in header mode: what is said about the data in headers, the data as the body.

use std::sync::Arc;

use pgfleet_events::{Error, Json, Message, Meta, Moment};

/// Headers of ours that are not CloudEvents attributes: what services say by names of their own.
const OWN: &str = "pgfleet-";

/// Writes what is said about a message as headers; `prefix` is how the broker's headers mark attributes.
pub(crate) fn headers(message: &Message, prefix: &str) -> Vec<(String, String)> {
    let meta = &message.meta;
    let mut headers = vec![
        (format!("{prefix}specversion"), "1.0".to_owned()),
        (format!("{prefix}id"), message.id.to_string()),
        (format!("{prefix}source"), message.source.to_string()),
        (format!("{prefix}type"), message.kind.to_string()),
        (format!("{prefix}time"), message.time.to_string()),
        (format!("{prefix}topic"), message.topic.to_string()),
    ];
    let optional = [
        ("partitionkey", &message.key),
        ("correlationid", &meta.correlation_id),
        ("causationid", &meta.causation_id),
        ("traceparent", &meta.traceparent),
        ("tracestate", &meta.tracestate),
        ("tenantid", &meta.tenant),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            headers.push((format!("{prefix}{name}"), value.to_string()));
        }
    }
    headers.extend(meta.headers.iter().map(|(name, value)| (format!("{OWN}{name}"), value.clone())));
    headers
}

/// Reads a message from headers and a body.
pub(crate) fn message<'a>(
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    prefix: &str,
    body: &[u8],
) -> Result<Message, Error> {
    let (mut id, mut source, mut kind, mut time, mut topic, mut key) = (None, None, None, None, None, None);
    let mut meta = Meta::default();
    for (name, value) in headers {
        if let Some(own) = name.strip_prefix(OWN) {
            meta.headers.insert(own.to_owned(), value.to_owned());
            continue;
        }
        let Some(attribute) = name.strip_prefix(prefix) else { continue };
        let text: Arc<str> = value.into();
        match attribute {
            "id" => id = value.parse().ok(),
            "source" => source = Some(text),
            "type" => kind = Some(text),
            "time" => time = value.parse::<Moment>().ok(),
            "topic" => topic = Some(text),
            "partitionkey" => key = Some(text),
            "correlationid" => meta.correlation_id = Some(text),
            "causationid" => meta.causation_id = Some(text),
            "traceparent" => meta.traceparent = Some(text),
            "tracestate" => meta.tracestate = Some(text),
            "tenantid" => meta.tenant = Some(text),
            _ => {}
        }
    }
    let lacks = |what: &str| Error::invalid(format!("a message without {what} is no message of ours"));
    let kind = kind.ok_or_else(|| lacks("a type"))?;
    let body = std::str::from_utf8(body).map_err(|error| Error::invalid("the data is no text").because(error))?;
    Ok(Message {
        id: id.ok_or_else(|| lacks("an id that is a UUID"))?,
        topic: topic.unwrap_or_else(|| kind.clone()),
        kind,
        source: source.ok_or_else(|| lacks("a source"))?,
        time: time.unwrap_or_else(Moment::now),
        key,
        data: Json::parse(body)?,
        meta,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_message_is_written_and_read_again() {
        let text = |text: &str| Some(Arc::from(text));
        let message = Message {
            id: Uuid::now_v7(),
            topic: "trip.booked".into(),
            kind: "SeatBooked".into(),
            source: "trip".into(),
            time: Moment::now(),
            key: text("booking-1"),
            data: Json::trusted(r#"{"seat":12}"#),
            meta: Meta {
                correlation_id: text("c"),
                causation_id: text("d"),
                traceparent: text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                tracestate: text("a=b"),
                tenant: text("t_1"),
                headers: [("Colour".to_owned(), "grün".to_owned())].into(),
            },
        };
        let headers = headers(&message, "ce-");
        let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(super::message(pairs, "ce-", message.data.as_str().as_bytes()).unwrap(), message);
    }

    #[test]
    fn what_lacks_its_id_is_no_message() {
        let headers = [("ce-type", "A"), ("ce-source", "s"), ("ce-id", "1")];
        let error = message(headers.into_iter(), "ce-", b"{}").unwrap_err();
        assert!(error.to_string().contains("an id"), "{error}");
    }
}
