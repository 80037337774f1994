//! Messages as CloudEvents 1.0, in the structured mode as JSON.
//!
//! | CloudEvents | message |
//! |---|---|
//! | `id`, `source`, `type`, `time` | id, source, type, time |
//! | `datacontenttype`, `data` | `application/json`, the data as it is |
//! | `partitionkey`, and `subject` beside it | the key |
//! | `topic` | the topic; without it the type's name |
//! | `correlationid`, `causationid`, `tenant` | what is said about it, by name |
//! | `traceparent`, `tracestate` | the trace, as the extension for distributed tracing has it |
//! | other extension attributes | the headers of their names |
//! | `otherheaders` | headers whose names are none of an attribute, as the text of a JSON object |
//!
//! What comes from elsewhere may hold extension attributes that are numbers or booleans; they become headers of their text.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error::Error;
use crate::event::Meta;
use crate::json::Json;
use crate::message::Message;
use crate::moment::Moment;

/// The media type of one event in the structured mode.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Headers whose names are none of an attribute.
const OTHER_HEADERS: &str = "otherheaders";

/// Attributes that are no headers.
const TAKEN: [&str; 16] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "datacontenttype",
    "data",
    "subject",
    "partitionkey",
    "topic",
    "correlationid",
    "causationid",
    "tenant",
    "traceparent",
    "tracestate",
    OTHER_HEADERS,
];

/// The longest name of an attribute that the specification calls portable.
const LONGEST_NAME: usize = 20;

/// The first moment of year 0 and that of year 10000: RFC 3339 has four digits for a year.
const YEARS: (i64, i64) = (-62_167_219_200_000_000, 253_402_300_800_000_000);

/// Writes a message as a CloudEvent.
///
/// ```
/// use pgfleet_events::{Json, Message, Meta, Moment, cloudevents};
///
/// # fn main() -> Result<(), pgfleet_events::Error> {
/// let message = Message {
///     id: "0192c5f8-0000-7000-8000-000000000001".parse().unwrap(),
///     topic: "booked".into(),
///     kind: "SeatBooked".into(),
///     source: "trip".into(),
///     time: Moment::from_micros(0),
///     key: Some("trip-1".into()),
///     data: Json::parse(r#"{"seat":12}"#)?,
///     meta: Meta::default(),
/// };
/// let event = cloudevents::write(&message)?;
/// assert!(event.as_str().starts_with(r#"{"specversion":"1.0","#));
/// assert_eq!(cloudevents::read(event.as_str())?, message);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Invalid`](crate::ErrorKind::Invalid) for what CloudEvents have no way to say: a source that is no URI reference, an
/// empty type, topic or key, a year before 0 or after 9999.
pub fn write(message: &Message) -> Result<Json, Error> {
    let Message { id, topic, kind, source, time, key, data, meta } = message;
    if !is_uri_reference(source) {
        return Err(Error::invalid(format!("source {source:?} of a message is no URI reference"))
            .with_hint("use letters, digits and -._~/: only"));
    }
    let filled =
        [("type", Some(kind)), ("topic", Some(topic)), ("key", key.as_ref()), ("tenant", meta.tenant.as_ref())];
    if let Some((what, _)) = filled.iter().find(|(_, text)| text.is_some_and(|text| text.is_empty())) {
        return Err(Error::invalid(format!("the {what} of message {id} is empty")));
    }
    if !(YEARS.0..YEARS.1).contains(&time.micros()) {
        return Err(Error::invalid(format!("the time of message {id} has a year that is not 0 to 9999")));
    }
    let mut out = String::from(r#"{"specversion":"1.0""#);
    let mut put = |name: &str, value: &str| -> Result<(), Error> {
        out.push_str(&format!(r#","{name}":{}"#, Json::of(value)?));
        Ok(())
    };
    put("id", &id.to_string())?;
    put("source", source)?;
    put("type", kind)?;
    put("time", &time.to_string())?;
    if *topic != *kind {
        put("topic", topic)?;
    }
    let optional = [
        ("subject", key),
        ("partitionkey", key),
        ("correlationid", &meta.correlation_id),
        ("causationid", &meta.causation_id),
        ("traceparent", &meta.traceparent),
        ("tracestate", &meta.tracestate),
        ("tenant", &meta.tenant),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value)?;
        }
    }
    let (named, other): (BTreeMap<_, _>, BTreeMap<_, _>) = meta.headers.iter().partition(|(name, _)| is_free(name));
    for (name, value) in named {
        put(name, value)?;
    }
    if !other.is_empty() {
        put(OTHER_HEADERS, Json::of(&other)?.as_str())?;
    }
    put("datacontenttype", "application/json")?;
    out.push_str(&format!(r#","data":{data}}}"#));
    Ok(Json::trusted(out))
}

/// Reads a message of a CloudEvent.
///
/// # Errors
///
/// [`Invalid`](crate::ErrorKind::Invalid) for text that is no JSON object; without `specversion`, `id`, `source`, `type` or
/// `time`, or with empty ones; with another version than 1.0, an `id` that is no UUID, data that is not JSON, or attributes
/// that are no text, number or boolean or whose names are none.
pub fn read(text: &str) -> Result<Message, Error> {
    let attributes: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(|error| Error::invalid("the text is no CloudEvent").because(error))?;
    let mut attributes = Attributes(attributes);
    let version = attributes.required("specversion")?;
    if version != "1.0" {
        return Err(
            Error::invalid(format!("a CloudEvent of version {version:?} cannot be read")).with_hint("version 1.0 can")
        );
    }
    let id = attributes.required("id")?;
    let id: Uuid = id.parse().map_err(|error| {
        Error::invalid(format!("the id {id:?} of a CloudEvent is no UUID"))
            .with_hint("have the source give its events UUIDs")
            .because(error)
    })?;
    let (source, kind): (Arc<str>, Arc<str>) =
        (attributes.required("source")?.into(), attributes.required("type")?.into());
    if !is_uri_reference(&source) {
        return Err(Error::invalid(format!("the source {source:?} of CloudEvent {id} is no URI reference")));
    }
    let time: Moment = attributes.required("time")?.parse()?;
    let topic = attributes.optional("topic")?.map_or_else(|| Arc::clone(&kind), Arc::from);
    // Who sets only one of them sets the subject; of both, the key is what is meant to keep order.
    let subject = attributes.optional("subject")?;
    let key = attributes.optional("partitionkey")?.or(subject).map(Arc::from);
    let data = attributes.data()?;
    let mut meta = Meta {
        correlation_id: attributes.optional("correlationid")?.map(Arc::from),
        causation_id: attributes.optional("causationid")?.map(Arc::from),
        traceparent: attributes.optional("traceparent")?.map(Arc::from),
        tracestate: attributes.optional("tracestate")?.map(Arc::from),
        tenant: attributes.optional("tenant")?.map(Arc::from),
        headers: match attributes.optional(OTHER_HEADERS)? {
            Some(headers) => serde_json::from_str(&headers).map_err(|error| {
                let why = format!("the attribute {OTHER_HEADERS} of CloudEvent {id} is no JSON object of texts");
                Error::invalid(why).because(error)
            })?,
            None => BTreeMap::new(),
        },
    };
    meta.headers.extend(attributes.rest()?);
    Ok(Message { id, topic, kind, source, time, key, data, meta })
}

/// The attributes that were not taken yet.
struct Attributes(BTreeMap<String, Box<RawValue>>);

impl Attributes {
    fn required(&mut self, name: &str) -> Result<String, Error> {
        match self.optional(name)? {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(Error::invalid(format!("the attribute {name} of a CloudEvent is empty"))),
            None => Err(Error::invalid(format!("a CloudEvent has no attribute {name}"))),
        }
    }

    fn optional(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.0.remove(name).map_or(Ok(None), |value| text(name, &value))
    }

    fn data(&mut self) -> Result<Json, Error> {
        if self.0.contains_key("data_base64") {
            return Err(Error::invalid("the data of a CloudEvent is binary").with_hint("only JSON is carried"));
        }
        let kind = self.optional("datacontenttype")?.unwrap_or_else(|| "application/json".to_owned());
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !essence.ends_with("+json") {
            return Err(Error::invalid(format!("the data of a CloudEvent is {kind}")).with_hint("only JSON is carried"));
        }
        Ok(self.0.remove("data").map_or_else(|| Json::trusted("null"), |data| Json::trusted(data.get())))
    }

    /// Returns the extension attributes.
    fn rest(self) -> Result<Vec<(String, String)>, Error> {
        let mut rest = Vec::new();
        for (name, value) in self.0 {
            if !is_name(&name) {
                return Err(Error::invalid(format!("{name:?} is no name of an attribute of a CloudEvent"))
                    .with_hint("names are lower-case letters and digits"));
            }
            if let Some(value) = text(&name, &value)? {
                rest.push((name, value));
            }
        }
        Ok(rest)
    }
}

/// Returns the text of an attribute; none when it is null, which is the same as none.
fn text(name: &str, value: &RawValue) -> Result<Option<String>, Error> {
    match Json::trusted(value.get()).to()? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Bool(_) | Value::Number(_) => Ok(Some(value.get().to_owned())),
        Value::Array(_) | Value::Object(_) => {
            Err(Error::invalid(format!("the attribute {name} of a CloudEvent is no text, number or boolean")))
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Whether a header can be an attribute of its own.
fn is_free(name: &str) -> bool {
    is_name(name) && name.len() <= LONGEST_NAME && !TAKEN.contains(&name)
}

/// Whether all characters are those of a URI, and percent signs are followed by two digits.
fn is_uri_reference(text: &str) -> bool {
    let bytes = text.as_bytes();
    let fits = |at: usize, byte: u8| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        _ => byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&byte),
    };
    !text.is_empty() && bytes.iter().enumerate().all(|(at, byte)| fits(at, *byte))
}
