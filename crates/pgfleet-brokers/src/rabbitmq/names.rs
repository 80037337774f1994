//! Names of queues, and under which keys they are bound.

use std::time::Duration;

use pgfleet_events::{Error, Subscription};

use crate::connect::Options;
use crate::partition::Partition;
use crate::topic;

/// The longest name that AMQP has.
const LONGEST: usize = 255;

/// Returns the queue of a group's partition.
pub(super) fn queue(name: &str, group: &str, partition: Partition) -> String {
    format!("{name}.{group}.{}", partition.word())
}

/// Returns the routing key of a topic.
pub(super) fn routing_key(partition: Partition, topic: &str) -> Result<String, Error> {
    let key = format!("{}.{topic}", partition.word());
    if key.len() > LONGEST {
        return Err(Error::invalid(format!("the topic {topic} is too long for RabbitMQ"))
            .with_hint("topics may have up to 250 bytes"));
    }
    Ok(key)
}

/// A group, as one of its members knows it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) subscription: Subscription,
    exchange: String,
    /// Patterns of the broker, one per topic.
    patterns: Vec<String>,
    /// Whether some pattern fits more than its topic.
    is_wide: bool,
}

impl Group {
    pub(super) fn new(options: &Options, subscription: Subscription) -> Result<Self, Error> {
        let exchange = options.name.clone();
        if queue(&exchange, &subscription.group, Partition::Free).len() > LONGEST || subscription.group.is_empty() {
            return Err(Error::invalid(format!("{:?} is no name for a group", subscription.group)));
        }
        let (mut patterns, mut is_wide) = (Vec::new(), false);
        for topic in &subscription.topics {
            let (pattern, wide) = pattern(topic)?;
            patterns.push(pattern);
            is_wide |= wide;
        }
        Ok(Self { subscription, exchange, patterns, is_wide })
    }

    pub(super) fn exchange(&self) -> &str {
        &self.exchange
    }

    pub(super) fn name(&self) -> &str {
        &self.subscription.group
    }

    pub(super) fn queue(&self, partition: Partition) -> String {
        queue(&self.exchange, self.name(), partition)
    }

    /// Returns the keys under which a partition's queue is bound.
    pub(super) fn bindings(&self, partition: Partition) -> impl Iterator<Item = String> {
        let word = partition.word();
        self.patterns.iter().map(move |pattern| format!("{word}.{pattern}"))
    }

    /// Returns whether the group wants a message that the broker sent.
    pub(super) fn wants(&self, topic: &str) -> bool {
        !self.is_wide || topic::fits_any(&self.subscription.topics, topic)
    }

    /// Returns how many unacknowledged messages the broker may send of a partition.
    ///
    /// Those without keys any member can take, so nobody takes more than he may hand out. Of those with keys only one
    /// member has any use, and some of them wait for their keys.
    pub(super) fn prefetch(&self, partition: Partition) -> u16 {
        let most = match partition {
            Partition::Free => self.subscription.prefetch.max(1),
            Partition::Keyed(_) => self.subscription.prefetch.max(32),
        };
        u16::try_from(most).unwrap_or(u16::MAX)
    }

    pub(super) fn visibility(&self) -> Duration {
        self.subscription.visibility
    }
}

/// Turns a topic into a pattern of the broker, and says whether that fits more.
fn pattern(topic: &str) -> Result<(String, bool), Error> {
    let (fixed, any) = match topic.strip_suffix('*') {
        Some(fixed) => (fixed, true),
        None => (topic, false),
    };
    if topic.is_empty() || topic.len() > 240 || fixed.split('.').any(|word| word == "*" || word == "#") {
        return Err(Error::invalid(format!("{topic:?} is no topic"))
            .with_hint("words with dots between them; a `*` only at the end stands for all that begin so"));
    }
    if !any {
        return Ok((fixed.to_owned(), false));
    }
    // `*` is one word of any text and `#` any number of words, so this is one word or more.
    Ok(match fixed.rsplit_once('.') {
        None if fixed.is_empty() => ("#".to_owned(), false),
        None => ("#".to_owned(), true),
        Some((words, "")) => (format!("{words}.*.#"), false),
        Some((words, _)) => (format!("{words}.*.#"), true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_become_patterns_of_the_broker() {
        for (topic, expected, wide) in [
            ("trip.booked", "trip.booked", false),
            ("trip.*", "trip.*.#", false),
            ("trip.bo*", "trip.*.#", true),
            ("tr*", "#", true),
            ("*", "#", false),
        ] {
            assert_eq!(pattern(topic).unwrap(), (expected.to_owned(), wide), "{topic}");
        }
        for topic in ["", "trip.#", "*.booked"] {
            assert!(pattern(topic).is_err(), "{topic}");
        }
    }

    #[test]
    fn what_a_wide_pattern_lets_in_is_left_out() {
        let group = Group::new(&Options::default(), Subscription::new("g", ["trip.bo*", "user.made"])).unwrap();
        assert!(group.wants("trip.booked") && group.wants("user.made"));
        assert!(!group.wants("trip.ended"));
    }
}
