//! Stores against a model: chance decides what is done, and a model so simple that it is right says what must be seen.
//!
//! A run is given by its seed; a failure names it, and [`streams`] or [`queues`] with that seed does the same again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::{LONG, events, eventually, item, number, unique};
use crate::config::{ConfigStore, StreamConfig, StreamKind};
use crate::error::ErrorKind;
use crate::position::Position;
use crate::queue::{Delivery, Nack, QueueStore, Redrive, Settled};
use crate::stream::{Append, Direction, Expected, Filter, StreamStore};

/// Makes a `#[test]` of each comparison with a model.
///
/// The argument is an async function that returns a store of streams, queues and configurations, and what must live as long.
#[macro_export]
macro_rules! model_conformance {
    ($make:expr) => {
        $crate::conformance_rules!($make, model: streams_agree_with_the_model queues_agree_with_the_model);
    };
}

/// How many runs of how many steps a rule makes.
const RUNS: u64 = 12;
const STEPS: usize = 60;

/// Streams do what the model of streams does.
pub async fn streams_agree_with_the_model<S: StreamStore>(store: Arc<S>) {
    for seed in 0..RUNS {
        streams(&*store, seed, STEPS).await;
    }
}

/// Queues do what the model of queues does.
pub async fn queues_agree_with_the_model<S: QueueStore + ConfigStore>(store: Arc<S>) {
    for seed in 0..RUNS {
        queues(&*store, seed, STEPS).await;
    }
}

#[derive(Debug, Default, Clone)]
struct ModelStream {
    last: u64,
    archived: bool,
    /// Version and id of what can be read, and the step that appended it.
    events: Vec<(u64, Uuid, usize)>,
}

impl ModelStream {
    /// What an append must be answered with.
    fn refuses(&self, expected: Expected) -> Option<ErrorKind> {
        if self.archived {
            return Some(ErrorKind::Refused);
        }
        // One that was deleted is as good as none.
        if self.events.is_empty() && expected.allows(0) {
            return None;
        }
        (!expected.allows(self.last)).then_some(ErrorKind::WrongVersion { actual: self.last })
    }

    fn remove(&mut self, before: u64) -> u64 {
        let length = self.events.len();
        self.events.retain(|(version, ..)| *version >= before);
        // Without events it is no stream, and not an archived one.
        self.archived &= !self.events.is_empty();
        (length - self.events.len()) as u64
    }
}

/// Does so many things by chance to a few streams, and compares all that can be read with the model after each.
pub async fn streams<S: StreamStore + ?Sized>(store: &S, seed: u64, steps: usize) {
    let mut chance = StdRng::seed_from_u64(seed);
    let prefix = unique("model");
    let names: Vec<Arc<str>> = (0..4).map(|number| format!("{prefix}-{number}").into()).collect();
    let mut model: Vec<ModelStream> = vec![ModelStream::default(); names.len()];
    for step in 0..steps {
        let at = format!("seed {seed}, step {step}");
        let which = chance.random_range(0..names.len());
        match chance.random_range(0..10) {
            0..=5 => {
                let count = if chance.random_bool(0.3) { chance.random_range(2..=names.len()) } else { 1 };
                let appends: Vec<Append> = (0..count)
                    .map(|offset| {
                        let of = (which + offset) % names.len();
                        let expected = match chance.random_range(0..6) {
                            0 => Expected::NoStream,
                            1 => Expected::Exact(model[of].last + 1),
                            2 | 3 => Expected::Exact(model[of].last),
                            _ => Expected::Any,
                        };
                        let events = events(chance.random_range(1..=3));
                        Append { stream: Arc::clone(&names[of]), expected, events }
                    })
                    .collect();
                let of = |name: &Arc<str>| names.iter().position(|one| one == name).expect("it is one of them");
                let wanted = appends.iter().find_map(|one| model[of(&one.stream)].refuses(one.expected));
                let ids: Vec<Vec<Uuid>> =
                    appends.iter().map(|one| one.events.iter().map(|event| event.id).collect()).collect();
                let places: Vec<usize> = appends.iter().map(|one| of(&one.stream)).collect();
                let answer = if let [one] = &appends[..] {
                    store.append(&one.stream, one.expected, one.events.clone()).await.map(|appended| vec![appended])
                } else {
                    store.append_several(appends).await
                };
                match (answer, wanted) {
                    (Err(error), Some(wanted)) => assert_eq!(error.kind(), wanted, "{at}"),
                    (Ok(appended), None) => {
                        for ((place, ids), appended) in places.into_iter().zip(ids).zip(appended) {
                            let stream = &mut model[place];
                            assert_eq!(appended.first, stream.last + 1, "{at}");
                            for id in ids {
                                stream.last += 1;
                                stream.events.push((stream.last, id, step));
                            }
                            assert_eq!(appended.last, stream.last, "{at}");
                        }
                    }
                    (answer, wanted) => panic!("{at}: {answer:?}, and the model says {wanted:?}"),
                }
            }
            6 => {
                let before = chance.random_range(0..=model[which].last + 2);
                let removed = store.truncate(&names[which], before).await.unwrap();
                assert_eq!(removed, model[which].remove(before), "{at}: truncated before {before}");
            }
            7 => {
                let expected = if chance.random_bool(0.5) { Expected::Any } else { Expected::Exact(2) };
                let answer = store.delete(&names[which], expected).await;
                if expected.allows(model[which].last) {
                    assert_eq!(answer.unwrap(), model[which].remove(u64::MAX), "{at}: deleted");
                } else {
                    let wanted = ErrorKind::WrongVersion { actual: model[which].last };
                    assert_eq!(answer.unwrap_err().kind(), wanted, "{at}: deleted");
                }
            }
            _ => {
                let archived = chance.random_bool(0.4);
                let answer = store.archive(&names[which], archived).await;
                if model[which].events.is_empty() {
                    assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotFound, "{at}: archived");
                } else {
                    answer.unwrap();
                    model[which].archived = archived;
                }
            }
        }
        compare(store, &prefix, &names, &model, &mut chance, &at).await;
    }
}

async fn compare<S: StreamStore + ?Sized>(
    store: &S,
    prefix: &str,
    names: &[Arc<str>],
    model: &[ModelStream],
    chance: &mut StdRng,
    at: &str,
) {
    let which = chance.random_range(0..names.len());
    let (name, stream) = (&names[which], &model[which]);
    let info = store.info(name).await.unwrap();
    let known = info.map(|info| (info.length, info.first, info.last, info.archived));
    let wanted = stream.events.first().map(|first| (stream.events.len() as u64, first.0, stream.last, stream.archived));
    assert_eq!(known, wanted, "{at}");
    let (from, limit) = (chance.random_range(0..=stream.last + 1), chance.random_range(1..6));
    let direction = if chance.random_bool(0.5) { Direction::Forward } else { Direction::Backward };
    let read = store.read(name, from, direction, limit).await.unwrap();
    let wanted: Vec<_> = match direction {
        Direction::Forward => stream.events.iter().filter(|one| one.0 >= from).take(limit).collect(),
        Direction::Backward => stream.events.iter().rev().filter(|one| one.0 <= from).take(limit).collect(),
    };
    let read: Vec<_> = read.iter().map(|event| (event.version, event.id)).collect();
    let wanted: Vec<_> = wanted.iter().map(|one| (one.0, one.1)).collect();
    assert_eq!(read, wanted, "{at}: {direction:?} from {from}");
    // The common order: of each stream as it is, and of steps as they were made.
    let filter = Filter { stream_prefix: Some(prefix.into()), ..Filter::default() };
    let limit = [1, 3, 1_000][chance.random_range(0..3)];
    let (mut after, mut all) = (Position::START, Vec::new());
    loop {
        let page = store.read_all(after, limit, &filter).await.unwrap();
        after = page.next;
        all.extend(page.events);
        if page.at_end {
            break;
        }
    }
    let steps: HashMap<Uuid, usize> = model.iter().flat_map(|one| &one.events).map(|one| (one.1, one.2)).collect();
    let order: Vec<_> = all.iter().map(|event| steps.get(&event.id).copied()).collect();
    assert!(order.iter().all(Option::is_some), "{at}: an event that is gone was read");
    assert!(order.is_sorted(), "{at}: the common order is {order:?}");
    for (name, stream) in names.iter().zip(model) {
        let read: Vec<_> = all.iter().filter(|event| event.stream == *name).map(|e| (e.version, e.id)).collect();
        assert_eq!(read, stream.events.iter().map(|one| (one.0, one.1)).collect::<Vec<_>>(), "{at}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Delayed,
    Out,
    Dead,
}

#[derive(Debug)]
struct ModelItem {
    key: Option<usize>,
    state: State,
    attempts: u32,
}

/// Messages by their numbers, in the order in which they were put in.
#[derive(Debug, Default)]
struct ModelQueue(BTreeMap<usize, ModelItem>);

impl ModelQueue {
    /// What may be handed out: of each key only the first, and nothing behind a dead letter.
    fn free(&self) -> BTreeSet<usize> {
        let mut keys = BTreeSet::new();
        let first = |(number, item): (&usize, &ModelItem)| {
            let first = item.key.is_none_or(|key| keys.insert(key));
            (first && item.state == State::Waits).then_some(*number)
        };
        self.0.iter().filter_map(first).collect()
    }

    fn count(&self, state: State) -> u64 {
        self.0.values().filter(|item| item.state == state).count() as u64
    }
}

/// How often the queues of a run deliver a message.
const ATTEMPTS: u32 = 3;

/// Does so many things by chance to a queue, and compares what is handed out and counted with the model after each.
pub async fn queues<S: QueueStore + ConfigStore + ?Sized>(store: &S, seed: u64, steps: usize) {
    let mut chance = StdRng::seed_from_u64(seed);
    let queue = unique("model");
    let config = StreamConfig { max_attempts: ATTEMPTS, ..StreamConfig::new(queue.as_str(), StreamKind::Queue) };
    store.configure(&config).await.unwrap();
    let mut model = ModelQueue::default();
    let mut out: Vec<Delivery> = Vec::new();
    let mut last = 0;
    for step in 0..steps {
        let at = format!("seed {seed}, step {step}");
        match chance.random_range(0..12) {
            0..=3 => {
                let mut items = Vec::new();
                for _ in 0..chance.random_range(1..5) {
                    last += 1;
                    let key = chance.random_bool(0.7).then(|| chance.random_range(0..3));
                    let is_delayed = key.is_none() && chance.random_bool(0.2);
                    let mut new = item(last);
                    new.key = key.map(|key| format!("key-{key}").into());
                    new.delay = if is_delayed { LONG } else { std::time::Duration::ZERO };
                    items.push(new);
                    let state = if is_delayed { State::Delayed } else { State::Waits };
                    model.0.insert(last, ModelItem { key, state, attempts: 0 });
                }
                store.enqueue(&queue, items).await.unwrap();
            }
            4..=6 => {
                let (max, free) = (chance.random_range(1..6), model.free());
                let count = max.min(free.len());
                let mut taken = store.dequeue(&queue, "model", max, LONG).await.unwrap();
                // A store may hand out fewer at a time than there are.
                while taken.len() < count {
                    let what = format!("{at}: {count} of {free:?} are handed out");
                    let more = eventually(&what, || async {
                        let more = store.dequeue(&queue, "model", count - taken.len(), LONG).await.unwrap();
                        (!more.is_empty()).then_some(more)
                    });
                    let more = more.await;
                    taken.extend(more);
                }
                let numbers: BTreeSet<_> = taken.iter().map(|one| number(&one.data)).collect();
                assert_eq!(numbers.len(), count, "{at}: {numbers:?} of {free:?}");
                assert!(numbers.is_subset(&free), "{at}: {numbers:?} of {free:?}");
                for one in taken {
                    let known = model.0.get_mut(&number(&one.data)).unwrap();
                    known.attempts += 1;
                    known.state = State::Out;
                    assert_eq!(one.attempt, known.attempts, "{at}");
                    out.push(one);
                }
            }
            7 | 8 if !out.is_empty() => {
                let one = out.swap_remove(chance.random_range(0..out.len()));
                let receipts = [one.receipt.clone(), one.receipt.clone()];
                let settled = store.acknowledge(&receipts[..1]).await.unwrap();
                assert_eq!(settled, Settled { done: 1, fenced: 0 }, "{at}");
                let again = store.acknowledge(&receipts[1..]).await.unwrap();
                assert_eq!(again, Settled { done: 0, fenced: 1 }, "{at}");
                model.0.remove(&number(&one.data));
            }
            9 if !out.is_empty() => {
                let one = out.swap_remove(chance.random_range(0..out.len()));
                let nack = if chance.random_bool(0.7) { Nack::requeue("again") } else { Nack::dead("no") };
                let receipts = std::slice::from_ref(&one.receipt);
                let settled = store.negative_acknowledge(receipts, &nack).await.unwrap();
                assert_eq!(settled, Settled { done: 1, fenced: 0 }, "{at}");
                let known = model.0.get_mut(&number(&one.data)).unwrap();
                known.state = if nack.requeue && known.attempts < ATTEMPTS { State::Waits } else { State::Dead };
            }
            10 => {
                let key = chance.random_range(0..4);
                let which = if key == 3 { Redrive::All } else { Redrive::Key(format!("key-{key}").into()) };
                let mut count = 0;
                for known in model.0.values_mut().filter(|known| known.state == State::Dead) {
                    if key == 3 || known.key == Some(key) {
                        known.state = State::Waits;
                        known.attempts = 0;
                        count += 1;
                    }
                }
                assert_eq!(store.redrive(&queue, &which).await.unwrap(), count, "{at}: {which:?}");
            }
            11 if chance.random_bool(0.3) => {
                let only_dead = chance.random_bool(0.6);
                let length = model.0.len();
                model.0.retain(|_, known| known.state == State::Out || (only_dead && known.state != State::Dead));
                let purged = store.purge(&queue, only_dead).await.unwrap();
                assert_eq!(purged, (length - model.0.len()) as u64, "{at}: purged, {only_dead}");
            }
            _ if !out.is_empty() => {
                let place = chance.random_range(0..out.len());
                let receipt = store.extend(&out[place].receipt, LONG).await.unwrap();
                assert!(store.extend(&out[place].receipt, LONG).await.unwrap_err().is_fenced(), "{at}");
                out[place].receipt = receipt;
            }
            _ => {}
        }
        let Some(info) = store.info(&queue).await.unwrap() else {
            assert_eq!(last, 0, "{at}: the queue is known once something was put in");
            continue;
        };
        let known = (info.in_flight, info.dead, info.delayed);
        let wanted = (model.count(State::Out), model.count(State::Dead), model.count(State::Delayed));
        assert_eq!(known, wanted, "{at}: in flight, dead, delayed");
        let dead = store.dead_letters(&queue, 1_000).await.unwrap();
        let dead: BTreeSet<_> = dead.iter().map(|one| number(&one.data)).collect();
        let wanted = model.0.iter().filter(|(_, known)| known.state == State::Dead).map(|(number, _)| *number);
        assert_eq!(dead, wanted.collect(), "{at}");
    }
}
