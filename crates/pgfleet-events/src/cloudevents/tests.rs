use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

/// An event as the specification's own example has it, as far as it can be carried.
const EXAMPLE: &str = r#"{
    "specversion": "1.0",
    "type": "com.example.someevent",
    "source": "/mycontext/subcontext",
    "id": "C234AAAA-1234-1234-1234-000000000001",
    "time": "2018-04-05T17:31:00+02:00",
    "subject": "larger-context",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
    "unsetextension": null,
    "datacontenttype": "application/json; charset=utf-8",
    "data": {"appinfoA": 1.10, "b" : [12345678901234567890123]}
}"#;

fn broken(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Error {
    let mut example: Value = serde_json::from_str(EXAMPLE).unwrap();
    change(example.as_object_mut().unwrap());
    let error = read(&example.to_string()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error
}

#[test]
fn what_another_source_has_written_is_read() {
    let message = read(EXAMPLE).unwrap();
    assert_eq!((&*message.source, &*message.kind), ("/mycontext/subcontext", "com.example.someevent"));
    assert_eq!((&*message.topic, message.key.as_deref()), ("com.example.someevent", Some("larger-context")));
    assert_eq!(message.time.to_string(), "2018-04-05T15:31:00.000000Z");
    assert_eq!(message.meta.headers["comexampleothervalue"], "5");
    assert!(!message.meta.headers.contains_key("unsetextension"));
    assert_eq!(message.data.as_str(), r#"{"appinfoA": 1.10, "b" : [12345678901234567890123]}"#, "as it is");
    let again = read(write(&message).unwrap().as_str()).unwrap();
    assert_eq!(again, message);
}

#[test]
fn what_is_missing_or_empty_is_named() {
    for name in ["specversion", "id", "source", "type", "time"] {
        let missing = broken(|event| drop(event.remove(name)));
        assert_eq!(missing.to_string(), format!("a CloudEvent has no attribute {name}"));
        let empty = broken(|event| event[name] = "".into());
        assert_eq!(empty.to_string(), format!("the attribute {name} of a CloudEvent is empty"));
    }
    let without = serde_json::json!({
        "specversion": "1.0", "id": Uuid::nil().to_string(), "source": "a", "type": "b", "time": "2018-04-05"
    });
    assert_eq!(read(&without.to_string()).unwrap().data.as_str(), "null", "data is optional");
}

#[test]
fn what_cannot_be_carried_is_refused() {
    for (name, value, why) in [
        ("specversion", Value::from("0.3"), "version \"0.3\""),
        ("id", "A234-1234-1234".into(), "no UUID"),
        ("source", "a b".into(), "no URI reference"),
        ("time", "yesterday".into(), "no time"),
        ("datacontenttype", "text/xml".into(), "text/xml"),
        ("data_base64", "AAAA".into(), "binary"),
        ("extension", serde_json::json!({}), "no text, number or boolean"),
        ("Extension_1", "x".into(), "no name"),
        ("otherheaders", "x".into(), "no JSON object of texts"),
    ] {
        let error = broken(|event| drop(event.insert(name.to_owned(), value)));
        assert!(error.to_string().contains(why), "{name}: {error}");
    }
    for text in ["", "[]", "7", r#"{"specversion":"1.0""#] {
        assert_eq!(read(text).unwrap_err().to_string(), "the text is no CloudEvent");
    }
    let good = read(EXAMPLE).unwrap();
    for bad in [
        Message { source: "Zoë".into(), ..good.clone() },
        Message { source: "50%".into(), ..good.clone() },
        Message { key: Some("".into()), ..good.clone() },
        Message { kind: "".into(), ..good.clone() },
        Message { time: Moment::from_micros(YEARS.1), ..good },
    ] {
        assert_eq!(write(&bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
    }
}

#[test]
fn attributes_have_names_that_the_specification_allows() {
    let mut message = read(EXAMPLE).unwrap();
    let headers = [("Content-Type", "a"), ("id", "b"), ("averyveryverylongname", "c"), ("plain1", "d"), ("", "e")];
    message.meta.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let written: BTreeMap<String, Value> = write(&message).unwrap().to().unwrap();
    assert!(written.keys().all(|name| is_name(name) && name.len() <= LONGEST_NAME), "{written:?}");
    assert_eq!(written["plain1"], "d");
    assert_eq!(read(write(&message).unwrap().as_str()).unwrap(), message);
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[^\u{0}]{1,12}".prop_map(Arc::from)
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,4}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    value.prop_map(Json::from)
}

prop_compose! {
    fn meta()(
        correlation_id in option::of(text()),
        causation_id in option::of(text()),
        traceparent in option::of(text()),
        tracestate in option::of(".{0,12}".prop_map(Arc::from)),
        tenant in option::of(text()),
        headers in btree_map(prop_oneof!["[a-z0-9]{1,22}", ".{0,8}", "(id|type|topic|data|data_base64|otherheaders)"], ".{0,8}", 0..6),
    ) -> Meta {
        Meta { correlation_id, causation_id, traceparent, tracestate, tenant, headers }
    }
}

prop_compose! {
    fn message()(
        id in any::<u128>().prop_map(Uuid::from_u128),
        kind in text(),
        topic in option::of(text()),
        source in "([A-Za-z0-9/:._~-]|%[0-9A-F]{2}){1,16}",
        time in (YEARS.0..YEARS.1).prop_map(Moment::from_micros),
        key in option::of(text()),
        data in json(),
        meta in meta(),
    ) -> Message {
        let topic = topic.unwrap_or_else(|| Arc::clone(&kind));
        Message { id, topic, kind, source: source.into(), time, key, data, meta }
    }
}

proptest! {
    #[test]
    fn a_message_is_the_same_after_it_was_written_and_read(message in message()) {
        let written = write(&message).unwrap();
        let attributes: BTreeMap<String, Value> = written.to().unwrap();
        prop_assert!(attributes.keys().all(|name| is_name(name)));
        prop_assert_eq!(read(written.as_str()).unwrap(), message);
    }
}
