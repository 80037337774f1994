//! What a member has received from its broker and not ended yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgfleet_events::{Delivered, Message};
use tokio::sync::Notify;
use uuid::Uuid;

/// What one hold on a partition is known by; a partition that is taken anew has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hold(u64);

#[derive(Debug)]
struct Entry<T> {
    hold: Hold,
    message: Message,
    attempt: u32,
    state: State,
    arrived: Instant,
    /// What ends it at the broker.
    tag: T,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// It may be handed out, from a moment on when it was given back.
    Waiting(Option<Instant>),
    /// The caller has it since then.
    Out(Instant),
}

/// The messages of a member: those that wait here, and those that the caller has.
///
/// Of messages of one key the next are handed out when all are ended that were handed out before, and one that goes back
/// keeps its place before later ones. It stays here, not ended, while it waits: the broker cannot hand out a later one
/// first.
#[derive(Debug)]
pub(crate) struct Window<T> {
    entries: BTreeMap<u64, Entry<T>>,
    next: u64,
    holds: u64,
    /// The holds that were not released. The broker still sends while it is told that one is given up: what comes then
    /// goes to the next member, too, and here it would overtake what went back before it.
    live: HashSet<Hold>,
    /// How many of a key are out.
    out: HashMap<Arc<str>, usize>,
    out_in_all: usize,
    /// When messages that were given back may come again, and how often they were handed out: also when the broker sends
    /// them once more meanwhile, after a lost connection.
    delayed: HashMap<Uuid, (Instant, u32)>,
}

impl<T> Window<T> {
    fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            next: 0,
            holds: 0,
            live: HashSet::new(),
            out: HashMap::new(),
            out_in_all: 0,
            delayed: HashMap::new(),
        }
    }

    /// Begins a hold on a partition.
    pub(crate) fn hold(&mut self) -> Hold {
        self.holds += 1;
        let hold = Hold(self.holds);
        self.live.insert(hold);
        hold
    }

    /// Takes in what the broker sent; nothing by a hold that was released.
    pub(crate) fn arrived(&mut self, hold: Hold, message: Message, attempt: u32, tag: T) {
        if !self.live.contains(&hold) {
            return;
        }
        let (mut since, mut attempt) = (None, attempt);
        if let Some((until, before)) = self.delayed.get(&message.id) {
            since = Some(*until);
            attempt = attempt.max(*before);
        }
        let entry = Entry { hold, message, attempt, state: State::Waiting(since), arrived: Instant::now(), tag };
        self.entries.insert(self.next, entry);
        self.next += 1;
    }

    /// Hands out up to `max` messages, as long as no more than `most` are out.
    pub(crate) fn take(&mut self, max: usize, most: usize, now: Instant) -> Vec<Delivered> {
        let max = max.min(most.saturating_sub(self.out_in_all));
        let mut taken = Vec::new();
        if max == 0 {
            return taken;
        }
        let mut blocked: HashSet<Arc<str>> = self.out.keys().cloned().collect();
        for (number, entry) in &mut self.entries {
            let State::Waiting(since) = entry.state else { continue };
            let key = entry.message.key.as_ref();
            if key.is_some_and(|key| blocked.contains(key)) {
                continue;
            }
            if since.is_some_and(|since| since > now) {
                blocked.extend(key.cloned());
                continue;
            }
            entry.state = State::Out(now);
            if let Some(key) = key {
                *self.out.entry(key.clone()).or_default() += 1;
            }
            self.out_in_all += 1;
            taken.push(Delivered {
                message: entry.message.clone(),
                attempt: entry.attempt,
                receipt: number.to_string().into(),
            });
            if taken.len() == max {
                break;
            }
        }
        taken
    }

    /// Returns when the next message that was given back may be handed out.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = |entry: &Entry<T>| match entry.state {
            State::Waiting(since) => since,
            State::Out(_) => None,
        };
        self.entries.values().filter_map(since).min()
    }

    /// Ends what the caller has, and returns what ends it at the broker; none when he has it no more.
    pub(crate) fn end(&mut self, receipt: &str) -> Option<T> {
        let number = receipt.parse().ok()?;
        if !matches!(self.entries.get(&number)?.state, State::Out(_)) {
            return None;
        }
        let entry = self.entries.remove(&number)?;
        self.came_back(&entry);
        self.delayed.remove(&entry.message.id);
        Some(entry.tag)
    }

    /// Lets a message that the caller has wait here.
    pub(crate) fn give_back(&mut self, receipt: &str, delay: Duration, now: Instant) -> bool {
        let Ok(number) = receipt.parse::<u64>() else { return false };
        let Some(mut entry) = self.entries.remove(&number) else { return false };
        let was_out = matches!(entry.state, State::Out(_));
        if was_out {
            self.came_back(&entry);
            entry.attempt += 1;
            let since = (!delay.is_zero()).then(|| now + delay);
            entry.state = State::Waiting(since);
            self.delayed.retain(|_, (until, _)| *until > now);
            if let Some(since) = since {
                self.delayed.insert(entry.message.id, (since, entry.attempt));
            }
        }
        self.entries.insert(number, entry);
        was_out
    }

    fn came_back(&mut self, entry: &Entry<T>) {
        if !matches!(entry.state, State::Out(_)) {
            return;
        }
        self.out_in_all -= 1;
        if let Some(key) = &entry.message.key
            && let Some(count) = self.out.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                self.out.remove(key);
            }
        }
    }

    /// Forgets all that came by a hold, and takes in no more of it: the broker sends it again, to whoever has the
    /// partition then.
    pub(crate) fn release(&mut self, hold: Hold) -> Vec<T> {
        self.live.remove(&hold);
        self.remove(|entry| entry.hold == hold)
    }

    /// Forgets all that came by a hold, unless the caller has some of it.
    pub(crate) fn release_idle(&mut self, hold: Hold) -> bool {
        let idle = !self.entries.values().any(|entry| entry.hold == hold && matches!(entry.state, State::Out(_)));
        if idle {
            drop(self.release(hold));
        }
        idle
    }

    /// Forgets a message.
    #[cfg(feature = "nats")]
    pub(crate) fn forget(&mut self, id: Uuid) {
        drop(self.remove(|entry| entry.message.id == id));
    }

    /// Forgets what has waited here for so long and was not handed out, and what the caller has had for longer than its
    /// visibility: the broker sends it again, and until then it must not hold up others of its key.
    #[cfg(feature = "nats")]
    pub(crate) fn drop_old(&mut self, age: Duration, visibility: Duration, now: Instant) {
        let is_old = |entry: &Entry<T>| now.saturating_duration_since(entry.arrived) >= age;
        drop(self.remove(|entry| match entry.state {
            State::Waiting(_) => is_old(entry),
            State::Out(_) => entry.is_late(visibility, now),
        }));
    }

    /// Returns the tags of those among the messages that arrived so long ago.
    #[cfg(feature = "nats")]
    pub(crate) fn tags_older(&self, delivered: &[Delivered], age: Duration, now: Instant) -> Vec<T>
    where
        T: Clone,
    {
        let entries = delivered.iter().filter_map(|delivered| self.entries.get(&delivered.receipt.parse().ok()?));
        let old = entries.filter(|entry| now.saturating_duration_since(entry.arrived) >= age);
        old.map(|entry| entry.tag.clone()).collect()
    }

    /// Forgets everything, and takes in no more by the holds there are: the connection is gone.
    pub(crate) fn clear(&mut self) {
        self.live.clear();
        drop(self.remove(|_| true));
    }

    /// Returns whether the caller has had something for too long.
    pub(crate) fn is_overdue(&self, visibility: Duration, now: Instant) -> bool {
        self.entries.values().any(|entry| entry.is_late(visibility, now))
    }

    fn remove(&mut self, which: impl Fn(&Entry<T>) -> bool) -> Vec<T> {
        let numbers: Vec<u64> =
            self.entries.iter().filter(|(_, entry)| which(entry)).map(|(number, _)| *number).collect();
        let mut tags = Vec::with_capacity(numbers.len());
        for number in numbers {
            if let Some(entry) = self.entries.remove(&number) {
                self.came_back(&entry);
                tags.push(entry.tag);
            }
        }
        tags
    }
}

impl<T> Entry<T> {
    fn is_late(&self, visibility: Duration, now: Instant) -> bool {
        matches!(self.state, State::Out(since) if now.duration_since(since) >= visibility)
    }
}

/// A window, and a bell that rings when something arrives.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    window: Mutex<Window<T>>,
    changed: Notify,
    asked: Mutex<Option<Instant>>,
}

impl<T> Shared<T> {
    pub(crate) fn new() -> Self {
        Self { window: Mutex::new(Window::new()), changed: Notify::new(), asked: Mutex::default() }
    }

    /// Locks the window; held for moments only.
    pub(crate) fn window(&self) -> MutexGuard<'_, Window<T>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits in [`receive`](Self::receive).
    pub(crate) fn ring(&self) {
        self.changed.notify_one();
    }

    /// Returns whether the caller has asked for messages since then.
    pub(crate) fn asked_since(&self, since: Instant) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|asked| asked > since)
    }

    /// Hands out up to `max` messages, after waiting for the first at most so long.
    pub(crate) async fn receive(&self, max: usize, prefetch: usize, most: Duration) -> Vec<Delivered> {
        let began = Instant::now();
        let until = began + most;
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        loop {
            let now = Instant::now();
            let (taken, due) = {
                let mut window = self.window();
                (window.take(max, prefetch, now), window.due())
            };
            if !taken.is_empty() || now >= until {
                return taken;
            }
            // What is due and could not be taken waits for another to be ended, which rings.
            let wake = due.filter(|due| *due > now).map_or(until, |due| due.min(until));
            // Rung for or due: the loop looks either way.
            let _ = tokio::time::timeout_at(wake.into(), self.changed.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use pgfleet_events::{Json, Meta, Moment};

    use super::*;

    fn message(key: Option<&str>, text: &str) -> Message {
        Message {
            id: Uuid::now_v7(),
            topic: "t".into(),
            kind: text.into(),
            source: "s".into(),
            time: Moment::now(),
            key: key.map(Into::into),
            data: Json::trusted("{}"),
            meta: Meta::default(),
        }
    }

    fn filled(messages: &[(Option<&str>, &str)]) -> (Window<()>, Hold) {
        let mut window = Window::new();
        let hold = window.hold();
        for (key, text) in messages {
            let message = message(*key, text);
            window.arrived(hold, message, 1, ());
        }
        (window, hold)
    }

    fn kinds(taken: &[Delivered]) -> Vec<&str> {
        taken.iter().map(|delivered| &*delivered.message.kind).collect()
    }

    #[test]
    fn a_key_waits_for_what_is_out() {
        let (mut window, _) = filled(&[(Some("a"), "a1"), (Some("b"), "b1"), (Some("a"), "a2")]);
        let now = Instant::now();
        let first = window.take(1, 10, now);
        assert_eq!(kinds(&first), ["a1"]);
        assert_eq!(kinds(&window.take(9, 10, now)), ["b1"]);
        assert!(window.end(&first[0].receipt).is_some());
        assert!(window.end(&first[0].receipt).is_none());
        assert_eq!(kinds(&window.take(9, 10, now)), ["a2"]);
    }

    #[test]
    fn what_goes_back_keeps_its_place_and_holds_only_its_key() {
        let (mut window, _) = filled(&[(Some("a"), "a1"), (Some("a"), "a2"), (Some("b"), "b1"), (None, "c")]);
        let now = Instant::now();
        let first = window.take(1, 10, now);
        assert!(window.give_back(&first[0].receipt, Duration::from_secs(5), now));
        assert_eq!(kinds(&window.take(9, 10, now)), ["b1", "c"]);
        assert_eq!(window.due(), Some(now + Duration::from_secs(5)));
        let again = window.take(9, 10, now + Duration::from_secs(5));
        assert_eq!(kinds(&again), ["a1", "a2"]);
        assert_eq!((again[0].attempt, again[1].attempt), (2, 1));
    }

    #[test]
    fn no_more_are_out_than_may_be() {
        let (mut window, _) = filled(&[(None, "1"), (None, "2"), (None, "3")]);
        let now = Instant::now();
        let first = window.take(9, 2, now);
        assert_eq!(first.len(), 2);
        assert!(window.take(9, 2, now).is_empty());
        window.end(&first[0].receipt);
        assert_eq!(kinds(&window.take(9, 2, now)), ["3"]);
    }

    #[cfg(feature = "nats")]
    #[test]
    fn what_was_taken_and_forgotten_holds_up_its_key_no_longer_than_its_visibility() {
        let (mut window, _) = filled(&[(Some("a"), "a1"), (Some("a"), "a2")]);
        let (now, visibility) = (Instant::now(), Duration::from_secs(5));
        let lost = window.take(1, 10, now);
        window.drop_old(visibility * 2, visibility, now + Duration::from_secs(4));
        assert!(window.take(9, 10, now).is_empty());
        window.drop_old(visibility * 2, visibility, now + visibility);
        assert_eq!(kinds(&window.take(9, 10, now)), ["a2"]);
        assert!(window.end(&lost[0].receipt).is_none());
    }

    #[test]
    fn a_hold_with_something_out_is_not_idle() {
        let (mut window, hold) = filled(&[(Some("a"), "a1"), (Some("a"), "a2")]);
        let now = Instant::now();
        let first = window.take(1, 10, now);
        assert!(!window.release_idle(hold));
        assert!(!window.is_overdue(Duration::from_secs(1), now));
        assert!(window.is_overdue(Duration::from_secs(1), now + Duration::from_secs(1)));
        window.end(&first[0].receipt);
        assert!(window.release_idle(hold));
        assert!(window.take(9, 10, now).is_empty());
    }

    #[test]
    fn what_comes_by_a_hold_that_was_given_up_overtakes_nothing() {
        let (mut window, hold) = filled(&[(Some("a"), "a1"), (Some("a"), "a2")]);
        let (now, next) = (Instant::now(), window.hold());
        assert!(window.release_idle(hold));
        window.arrived(hold, message(Some("a"), "a3"), 1, ());
        assert!(window.take(9, 10, now).is_empty());
        window.arrived(next, message(Some("a"), "a1"), 2, ());
        window.clear();
        window.arrived(next, message(Some("a"), "a2"), 2, ());
        assert!(window.take(9, 10, now).is_empty());
        let hold = window.hold();
        window.arrived(hold, message(Some("a"), "a1"), 3, ());
        assert_eq!(kinds(&window.take(9, 10, now)), ["a1"]);
    }

    #[test]
    fn a_delay_holds_when_the_broker_sends_it_again() {
        let (mut window, hold) = filled(&[(Some("a"), "a1")]);
        let now = Instant::now();
        let first = window.take(1, 10, now);
        window.give_back(&first[0].receipt, Duration::from_secs(5), now);
        window.release(hold);
        let hold = window.hold();
        let message = first[0].message.clone();
        window.arrived(hold, message, 1, ());
        assert!(window.take(9, 10, now).is_empty());
        assert_eq!(window.take(9, 10, now + Duration::from_secs(5))[0].attempt, 2);
    }
}
