//! Names of streams and consumers, and subjects.

use std::sync::Arc;

use pgfleet_events::Error;

use crate::partition::Partition;

/// Refuses what NATS does not take as the name of a stream and the first word of its subjects.
pub(super) fn check_stream(name: &str) -> Result<(), Error> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Ok(());
    }
    Err(Error::invalid(format!("{name:?} is no name for a stream of NATS")).with_hint("letters, digits, `-` and `_`"))
}

/// A word of every subject, for which every filter has a `*`: a server of 2.9 whose consumer gets another filter goes on to
/// compare as the first one was compared, so a consumer that began without a wildcard would find nothing by one with it.
const MARK: &str = "m";

/// Returns the subject of a message.
pub(super) fn subject(stream: &str, partition: Partition, topic: &str) -> String {
    let words: Vec<String> = topic.split('.').map(word).collect();
    format!("{stream}.{}.{MARK}.{}", partition.word(), words.join("."))
}

/// Returns the name of a group's consumer.
pub(super) fn consumer(group: &str, partition: Partition) -> String {
    format!("{}-{}", word(group), partition.word())
}

/// Returns the subjects that a consumer is for: as narrow as one pattern of NATS can be that fits all topics.
pub(super) fn filter(stream: &str, partition: Partition, topics: &[Arc<str>]) -> String {
    let patterns: Vec<(Vec<String>, bool)> = topics.iter().map(|topic| words(topic)).collect();
    let Some(((first, any), others)) = patterns.split_first() else {
        return format!("{stream}.{}.*.>", partition.word());
    };
    let is_one = !any && others.iter().all(|(words, any)| !any && words == first);
    let mut common = first.len();
    for (words, _) in others {
        common = first.iter().zip(words).take(common).take_while(|(one, other)| one == other).count();
    }
    // `a.>` does not fit `a` itself.
    if !is_one && patterns.iter().any(|(words, any)| !any && words.len() == common) {
        common -= 1;
    }
    let mut filter = vec![stream.to_owned(), partition.word(), "*".to_owned()];
    filter.extend_from_slice(&first[..common]);
    if !is_one {
        filter.push(">".to_owned());
    }
    filter.join(".")
}

/// Returns the words that a topic is or begins with, and whether more follow.
fn words(topic: &str) -> (Vec<String>, bool) {
    let Some(beginning) = topic.strip_suffix('*') else {
        return (topic.split('.').map(word).collect(), false);
    };
    let mut words: Vec<String> = beginning.split('.').map(word).collect();
    // The last one goes on in many ways.
    words.pop();
    (words, true)
}

/// Writes a word so that NATS takes it; the message itself says its topic as it is.
fn word(text: &str) -> String {
    use std::fmt::Write as _;
    if text.is_empty() {
        return "=".to_owned();
    }
    text.bytes().fold(String::with_capacity(text.len()), |mut word, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            word.push(char::from(byte));
        } else {
            let _ = write!(word, "={byte:02x}");
        }
        word
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nats_does_not_take_is_written_otherwise() {
        assert_eq!(subject("s", Partition::Keyed(3), "trip.booked"), "s.3.m.trip.booked");
        assert_eq!(subject("s", Partition::Free, "a b.*..>"), "s.any.m.a=20b.=2a.=.=3e");
        assert_eq!(consumer("user.service", Partition::Free), "user=2eservice-any");
    }

    #[test]
    fn a_filter_fits_all_topics() {
        for (topics, expected) in [
            (&["trip.booked"][..], "s.any.*.trip.booked"),
            (&["trip.*"], "s.any.*.trip.>"),
            (&["trip.bo*"], "s.any.*.trip.>"),
            (&["tr*"], "s.any.*.>"),
            (&["*"], "s.any.*.>"),
            (&["trip.booked", "trip.ended"], "s.any.*.trip.>"),
            (&["trip.booked", "user.made"], "s.any.*.>"),
            (&["trip", "trip.booked"], "s.any.*.>"),
            (&["trip.booked", "trip"], "s.any.*.>"),
            (&["trip.*", "trip.booked"], "s.any.*.trip.>"),
        ] {
            let topics: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
            assert_eq!(filter("s", Partition::Free, &topics), expected, "{topics:?}");
        }
    }

    #[test]
    fn names_of_streams_are_checked() {
        assert!(check_stream("pgfleet-1").is_ok());
        for name in ["", "a.b", "a b", ">"] {
            assert!(check_stream(name).is_err(), "{name}");
        }
    }
}
