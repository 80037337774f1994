//! One queue in memory: what state each message is in, and what follows what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config::StreamConfig;
use crate::moment::Moment;
use crate::queue::{DeadLetter, Delivery, Enqueued, InFlight, NewItem, QueueInfo, Receipt, Redrive};

/// A message's place: the order in which messages were put in first. It keeps it when it is handed out again or redriven.
pub(super) type Place = u64;

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    items: BTreeMap<Place, Item>,
    ready: BTreeSet<(Reverse<i16>, Place)>,
    delayed: BTreeSet<(Moment, Place)>,
    flight: BTreeSet<(Moment, Place)>,
    dead: BTreeSet<(Moment, Place)>,
    keys: HashMap<Arc<str>, Key>,
    /// Ids that must not come twice, and when each came.
    dedup: HashMap<Arc<str>, Moment>,
    dedup_order: VecDeque<(Moment, Arc<str>)>,
    last: Place,
    redelivered: u64,
}

#[derive(Debug)]
struct Item {
    id: Uuid,
    new: NewItem,
    at: Moment,
    /// From when it may be handed out.
    due: Moment,
    attempts: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Behind others of its key.
    Behind,
    Ready,
    Delayed,
    Out {
        token: u64,
        deadline: Moment,
        since: Moment,
        consumer: Arc<str>,
    },
    Dead {
        at: Moment,
        reason: Arc<str>,
    },
}

/// The messages of a key. At most one of them is ready, delayed or out; the others are behind it.
#[derive(Debug, Default)]
struct Key {
    live: BTreeSet<Place>,
    dead: BTreeSet<Place>,
    out: Option<Place>,
}

impl Queue {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            items: BTreeMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            flight: BTreeSet::new(),
            dead: BTreeSet::new(),
            keys: HashMap::new(),
            dedup: HashMap::new(),
            dedup_order: VecDeque::new(),
            last: 0,
            redelivered: 0,
        }
    }

    /// How many messages wait in it.
    pub(super) fn waiting(&self) -> usize {
        self.items.len() - self.flight.len() - self.dead.len()
    }

    /// How many of some messages are new: neither remembered nor there twice.
    pub(super) fn new_ones(&self, items: &[NewItem]) -> usize {
        let mut seen = std::collections::HashSet::new();
        let is_new = |id: &Arc<str>| !self.dedup.contains_key(id);
        items.iter().filter(|item| item.dedup_id.as_ref().is_none_or(|id| is_new(id) && seen.insert(id))).count()
    }

    pub(super) fn put(&mut self, item: NewItem, config: &StreamConfig, now: Moment) -> Enqueued {
        if let Some(id) = &item.dedup_id {
            if self.dedup.contains_key(id) {
                return Enqueued::Duplicate;
            }
            if !config.dedup_window.is_zero() {
                self.dedup.insert(Arc::clone(id), now);
                self.dedup_order.push_back((now, Arc::clone(id)));
            }
        }
        self.last += 1;
        let (place, id, key) = (self.last, Uuid::now_v7(), item.key.clone());
        let due = now.after(item.delay);
        self.items.insert(place, Item { id, new: item, at: now, due, attempts: 0, state: State::Behind });
        match key {
            Some(key) => {
                self.keys.entry(Arc::clone(&key)).or_default().live.insert(place);
                self.advance(&key, config, now);
            }
            None => self.offer(place, now),
        }
        Enqueued::New(id)
    }

    /// Makes a message ready, or delayed until it is due.
    fn offer(&mut self, place: Place, now: Moment) {
        let Some(item) = self.items.get_mut(&place) else { return };
        if item.due <= now {
            item.state = State::Ready;
            self.ready.insert((Reverse(item.new.priority), place));
        } else {
            item.state = State::Delayed;
            self.delayed.insert((item.due, place));
        }
    }

    /// Takes a message back behind others of its key.
    fn withdraw(&mut self, place: Place) {
        let Some(item) = self.items.get_mut(&place) else { return };
        match item.state {
            State::Ready => drop(self.ready.remove(&(Reverse(item.new.priority), place))),
            State::Delayed => drop(self.delayed.remove(&(item.due, place))),
            _ => return,
        }
        item.state = State::Behind;
    }

    /// Finds which message of a key is the next one.
    fn advance(&mut self, name: &Arc<str>, config: &StreamConfig, now: Moment) {
        let Some(key) = self.keys.get(name) else { return };
        if key.out.is_some() {
            return;
        }
        let parked = |place: Place| config.park_keys && key.dead.first().is_some_and(|dead| *dead < place);
        let next = key.live.first().copied().filter(|place| !parked(*place));
        let others: Vec<Place> = key
            .live
            .iter()
            .copied()
            .filter(|place| {
                Some(*place) != next
                    && self.items.get(place).is_some_and(|item| matches!(item.state, State::Ready | State::Delayed))
            })
            .collect();
        if key.live.is_empty() && key.dead.is_empty() {
            self.keys.remove(name);
        }
        for place in others {
            self.withdraw(place);
        }
        if let Some(place) = next
            && self.items.get(&place).is_some_and(|item| matches!(item.state, State::Behind))
        {
            self.offer(place, now);
        }
    }

    /// Does what time demands.
    pub(super) fn expire(&mut self, config: &StreamConfig, now: Moment) {
        while let Some((deadline, place)) = self.flight.first().copied()
            && deadline <= now
        {
            self.back(place, config, now, Duration::ZERO, true, &"the consumer did not answer in time".into());
        }
        while let Some((due, place)) = self.delayed.first().copied()
            && due <= now
        {
            self.delayed.remove(&(due, place));
            self.offer(place, now);
        }
        while let Some((at, id)) = self.dedup_order.front()
            && at.after(config.dedup_window) <= now
        {
            self.dedup.remove(id);
            self.dedup_order.pop_front();
        }
    }

    /// Whether something can be handed out, and else when.
    pub(super) fn next_due(&self, now: Moment) -> Option<Moment> {
        if !self.ready.is_empty() {
            return Some(now);
        }
        let first = |set: &BTreeSet<(Moment, Place)>| set.first().map(|(at, _)| *at);
        match (first(&self.delayed), first(&self.flight)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn take(
        &mut self,
        consumer: &Arc<str>,
        max: usize,
        deadline: Moment,
        now: Moment,
        tokens: &mut u64,
    ) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < max
            && let Some((_, place)) = self.ready.pop_first()
        {
            let Some(item) = self.items.get_mut(&place) else { continue };
            *tokens += 1;
            item.attempts += 1;
            item.state = State::Out { token: *tokens, deadline, since: now, consumer: Arc::clone(consumer) };
            self.redelivered += u64::from(item.attempts > 1);
            self.flight.insert((deadline, place));
            if let Some(key) = item.new.key.as_ref().and_then(|key| self.keys.get_mut(key)) {
                key.out = Some(place);
            }
            deliveries.push(delivery(&self.name, item, receipt(&self.name, place, *tokens), deadline, item.attempts));
        }
        deliveries
    }

    pub(super) fn peek(&self, limit: usize, now: Moment) -> Vec<Delivery> {
        let items = self.ready.iter().take(limit).filter_map(|(_, place)| self.items.get(place));
        items.map(|item| delivery(&self.name, item, Receipt("".into()), now, item.attempts + 1)).collect()
    }

    /// Whether a delivery is its consumer's still.
    pub(super) fn holds(&self, place: Place, token: u64, now: Moment) -> bool {
        self.items.get(&place).is_some_and(
            |item| matches!(item.state, State::Out { token: held, deadline, .. } if held == token && deadline > now),
        )
    }

    /// Takes a message out of the hands of its consumer.
    fn recall(&mut self, place: Place) -> Option<Arc<str>> {
        let item = self.items.get_mut(&place)?;
        if let State::Out { deadline, .. } = item.state {
            self.flight.remove(&(deadline, place));
        }
        item.state = State::Behind;
        let key = item.new.key.clone()?;
        if let Some(found) = self.keys.get_mut(&key) {
            found.out.take_if(|out| *out == place);
        }
        Some(key)
    }

    pub(super) fn done(&mut self, place: Place, config: &StreamConfig, now: Moment) {
        let key = self.recall(place);
        self.items.remove(&place);
        if let Some(key) = key {
            if let Some(found) = self.keys.get_mut(&key) {
                found.live.remove(&place);
            }
            self.advance(&key, config, now);
        }
    }

    /// Puts a message back that was out, or gives it up.
    pub(super) fn back(
        &mut self,
        place: Place,
        config: &StreamConfig,
        now: Moment,
        delay: Duration,
        requeue: bool,
        reason: &Arc<str>,
    ) {
        let key = self.recall(place);
        let Some(item) = self.items.get_mut(&place) else { return };
        let again = requeue && (config.max_attempts == 0 || item.attempts < config.max_attempts);
        if again {
            item.due = now.after(delay);
        } else {
            item.state = State::Dead { at: now, reason: Arc::clone(reason) };
            self.dead.insert((now, place));
        }
        match key {
            Some(key) => {
                if !again && let Some(found) = self.keys.get_mut(&key) {
                    found.live.remove(&place);
                    found.dead.insert(place);
                }
                self.advance(&key, config, now);
            }
            None if again => self.offer(place, now),
            None => {}
        }
    }

    pub(super) fn extend(&mut self, place: Place, until: Moment, tokens: &mut u64) -> Receipt {
        *tokens += 1;
        if let Some(Item { state: State::Out { token, deadline, .. }, .. }) = self.items.get_mut(&place) {
            self.flight.remove(&(*deadline, place));
            self.flight.insert((until, place));
            *token = *tokens;
            *deadline = until;
        }
        receipt(&self.name, place, *tokens)
    }

    pub(super) fn in_flight(&self, limit: usize) -> Vec<InFlight> {
        let items = self.flight.iter().filter_map(|(_, place)| self.items.get(place));
        items
            .filter_map(|item| match &item.state {
                State::Out { deadline, since, consumer, .. } => Some(InFlight {
                    id: item.id,
                    consumer: Arc::clone(consumer),
                    since: *since,
                    deadline: *deadline,
                    attempt: item.attempts,
                }),
                _ => None,
            })
            .take(limit)
            .collect()
    }

    pub(super) fn dead_letters(&self, limit: usize) -> Vec<DeadLetter> {
        let items = self.dead.iter().filter_map(|(_, place)| self.items.get(place));
        items
            .filter_map(|item| match &item.state {
                State::Dead { at, reason } => Some(DeadLetter {
                    id: item.id,
                    key: item.new.key.clone(),
                    reason: Arc::clone(reason),
                    attempts: item.attempts,
                    enqueued_at: item.at,
                    dead_at: *at,
                    kind: Arc::clone(&item.new.kind),
                    data: item.new.data.clone(),
                    meta: item.new.meta.clone(),
                }),
                _ => None,
            })
            .take(limit)
            .collect()
    }

    pub(super) fn redrive(&mut self, which: &Redrive, config: &StreamConfig, now: Moment) -> u64 {
        let wanted = |item: &Item| match which {
            Redrive::All => true,
            Redrive::Key(key) => item.new.key.as_ref() == Some(key),
            Redrive::Ids(ids) => ids.contains(&item.id),
        };
        let places: Vec<_> =
            self.dead.iter().copied().filter(|(_, place)| self.items.get(place).is_some_and(wanted)).collect();
        let mut keys = BTreeSet::new();
        for (at, place) in &places {
            self.dead.remove(&(*at, *place));
            let Some(item) = self.items.get_mut(place) else { continue };
            item.attempts = 0;
            item.due = now;
            item.state = State::Behind;
            match item.new.key.clone() {
                Some(key) => {
                    if let Some(found) = self.keys.get_mut(&key) {
                        found.dead.remove(place);
                        found.live.insert(*place);
                    }
                    keys.insert(key);
                }
                None => self.offer(*place, now),
            }
        }
        for key in keys {
            self.advance(&key, config, now);
        }
        places.len() as u64
    }

    /// Removes messages that are not out and that are wanted gone.
    fn remove_where(
        &mut self,
        config: &StreamConfig,
        now: Moment,
        goes: impl Fn(Moment, Option<Moment>) -> bool,
    ) -> u64 {
        let mut places = Vec::new();
        for (place, item) in &self.items {
            let dead_at = match item.state {
                State::Out { .. } => continue,
                State::Dead { at, .. } => Some(at),
                _ => None,
            };
            if goes(item.at, dead_at) {
                places.push(*place);
            }
        }
        let mut keys = BTreeSet::new();
        for place in &places {
            self.withdraw(*place);
            let Some(item) = self.items.remove(place) else { continue };
            if let State::Dead { at, .. } = item.state {
                self.dead.remove(&(at, *place));
            }
            if let Some(key) = item.new.key {
                if let Some(found) = self.keys.get_mut(&key) {
                    found.live.remove(place);
                    found.dead.remove(place);
                }
                keys.insert(key);
            }
        }
        for key in keys {
            self.advance(&key, config, now);
        }
        places.len() as u64
    }

    pub(super) fn purge(&mut self, only_dead: bool, config: &StreamConfig, now: Moment) -> u64 {
        self.remove_where(config, now, |_, dead| dead.is_some() || !only_dead)
    }

    /// Removes what goes beyond the configured retention.
    pub(super) fn retain(&mut self, config: &StreamConfig, now: Moment) -> u64 {
        let mut removed = self.remove_where(config, now, |at, dead| match dead {
            Some(dead) => !config.keep_dead.is_zero() && dead.after(config.keep_dead) < now,
            None => config.retention.max_age.is_some_and(|age| at.after(age) < now),
        });
        let waits = |item: &&Item| !matches!(item.state, State::Out { .. } | State::Dead { .. });
        let mut count = self.items.values().filter(waits).count() as u64;
        let size = |item: &Item| item.new.data.as_str().len() as u64;
        let mut bytes: u64 = self.items.values().filter(waits).map(size).sum();
        let mut cut = None;
        for item in self.items.values().filter(waits) {
            let over = config.retention.max_count.is_some_and(|max| count > max)
                || config.retention.max_bytes.is_some_and(|max| bytes > max);
            if !over {
                break;
            }
            count -= 1;
            bytes -= size(item);
            cut = Some(item.id);
        }
        if let Some(id) = cut {
            let last = self.items.iter().find(|(_, item)| item.id == id).map_or(0, |(place, _)| *place);
            let places: Vec<_> =
                self.items.range(..=last).filter(|(_, item)| waits(item)).map(|(place, _)| *place).collect();
            for place in &places {
                self.withdraw(*place);
                self.done(*place, config, now);
            }
            removed += places.len() as u64;
        }
        removed
    }

    pub(super) fn info(&self) -> QueueInfo {
        let behind = self.items.values().filter(|item| matches!(item.state, State::Behind)).count();
        let oldest = self.items.values().find(|item| matches!(item.state, State::Ready | State::Behind));
        QueueInfo {
            queue: Arc::clone(&self.name),
            ready: (self.ready.len() + behind) as u64,
            delayed: self.delayed.len() as u64,
            in_flight: self.flight.len() as u64,
            dead: self.dead.len() as u64,
            oldest: oldest.map(|item| item.at),
            redelivered: self.redelivered,
        }
    }
}

fn receipt(queue: &str, place: Place, token: u64) -> Receipt {
    Receipt(format!("{place}.{token}.{queue}").into())
}

/// The queue, place and token of a receipt.
pub(super) fn parse(receipt: &Receipt) -> Option<(&str, Place, u64)> {
    let (place, rest) = receipt.0.split_once('.')?;
    let (token, queue) = rest.split_once('.')?;
    Some((queue, place.parse().ok()?, token.parse().ok()?))
}

fn delivery(queue: &Arc<str>, item: &Item, receipt: Receipt, deadline: Moment, attempt: u32) -> Delivery {
    Delivery {
        queue: Arc::clone(queue),
        id: item.id,
        receipt,
        attempt,
        deadline,
        enqueued_at: item.at,
        key: item.new.key.clone(),
        priority: item.new.priority,
        kind: Arc::clone(&item.new.kind),
        data: item.new.data.clone(),
        meta: item.new.meta.clone(),
    }
}
