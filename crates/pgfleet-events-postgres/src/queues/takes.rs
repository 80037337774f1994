//! What many tasks ask for, taken together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgfleet_events::{Delivery, Error, ErrorKind};
use tokio::sync::oneshot;

use super::acks::again;
use crate::store::Inner;

/// How many are on their way at once for a queue; who asks meanwhile is asked for together in the next one. One: with two, most
/// takes are for one who asks, and each costs as much as one for many.
const SENDERS: usize = 1;

/// Who asks for more than so many asks for himself.
const FEW: usize = 16;

/// The most that are asked for at once.
const MOST: usize = 100;

/// Somebody who wants messages, and where they go.
#[derive(Debug)]
struct Asked {
    consumer: String,
    max: usize,
    visibility: Duration,
    answer: oneshot::Sender<Result<Vec<Delivery>, Arc<Error>>>,
}

#[derive(Debug, Default)]
pub(super) struct Takes(Mutex<HashMap<Arc<str>, Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    senders: usize,
    asked: VecDeque<Asked>,
}

impl Takes {
    /// Queues somebody; says whether a sender is to be begun.
    fn ask(&self, queue: &str, asked: Asked) -> bool {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = match queues.get_mut(queue) {
            Some(waiting) => waiting,
            None => queues.entry(Arc::from(queue)).or_default(),
        };
        waiting.asked.push_back(asked);
        let is_free = waiting.senders < SENDERS;
        waiting.senders += usize::from(is_free);
        is_free
    }

    /// Takes out those who can be asked for together; the sender has ended where there are none.
    fn next(&self, queue: &str) -> Vec<Asked> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = queues.get_mut(queue) else { return Vec::new() };
        let Some(first) = waiting.asked.pop_front() else {
            waiting.senders -= 1;
            return Vec::new();
        };
        let mut taken = vec![first];
        // For as many each: so each has a claim of his own, which ends with his acknowledgement.
        while let Some(next) = waiting.asked.front()
            && (taken.len() + 1) * next.max <= MOST
            && next.max == taken[0].max
            && next.visibility == taken[0].visibility
            && next.consumer == taken[0].consumer
        {
            taken.extend(waiting.asked.pop_front());
        }
        taken
    }
}

impl Inner {
    /// Takes messages; who asks for a few, while others of his name are asking, gets his part of what is taken for all.
    pub(super) async fn take_together(
        self: &Arc<Self>,
        queue: &str,
        consumer: &str,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>, Error> {
        if max > FEW {
            return self.take(queue, consumer, max, max, visibility).await;
        }
        let (answer, answered) = oneshot::channel();
        if self.queues.takes.ask(queue, Asked { consumer: consumer.to_owned(), max, visibility, answer }) {
            // A task of its own: whoever asks may be dropped.
            tokio::spawn(send(Arc::clone(self), Arc::from(queue)));
        }
        match answered.await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(error)) => Err(again(&error)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, format!("nothing could be taken from queue {queue}"))),
        }
    }
}

async fn send(store: Arc<Inner>, queue: Arc<str>) {
    loop {
        let lot = store.queues.takes.next(&queue);
        let Some(first) = lot.first() else { return };
        let sum = lot.iter().map(|asked| asked.max).sum();
        match store.take(&queue, &first.consumer, sum, first.max, first.visibility).await {
            Ok(taken) => share(lot, taken),
            Err(error) => {
                let error = Arc::new(error);
                for asked in lot {
                    // Who has gone does not need it.
                    let _ = asked.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

/// Gives each his part, in the order in which they asked. The part of one who has gone goes to those behind him; what nobody
/// wants any more is handed out again after its time, as what a consumer was given who died.
fn share(lot: Vec<Asked>, taken: Vec<Delivery>) {
    let mut left = taken.into_iter();
    let mut of_gone: Vec<Delivery> = Vec::new();
    for asked in lot {
        let mut part = Vec::with_capacity(asked.max);
        part.extend(of_gone.drain(..of_gone.len().min(asked.max)));
        let room = asked.max - part.len();
        part.extend(left.by_ref().take(room));
        if let Err(Ok(part)) = asked.answer.send(Ok(part)) {
            of_gone.extend(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answered = oneshot::Receiver<Result<Vec<Delivery>, Arc<Error>>>;

    fn asked(consumer: &str, max: usize) -> (Asked, Answered) {
        let (answer, answered) = oneshot::channel();
        (Asked { consumer: consumer.to_owned(), max, visibility: Duration::from_secs(1), answer }, answered)
    }

    fn delivery(number: u128) -> Delivery {
        Delivery {
            queue: "q".into(),
            id: uuid::Uuid::from_u128(number),
            receipt: pgfleet_events::Receipt("r".into()),
            attempt: 1,
            deadline: pgfleet_events::Moment::from_micros(0),
            enqueued_at: pgfleet_events::Moment::from_micros(0),
            key: None,
            priority: 0,
            kind: "k".into(),
            data: pgfleet_events::Json::trusted("1"),
            meta: pgfleet_events::Meta::default(),
        }
    }

    fn numbers(answered: &mut Answered) -> Vec<u128> {
        answered.try_recv().unwrap().unwrap().iter().map(|delivery| delivery.id.as_u128()).collect()
    }

    #[test]
    fn those_who_ask_for_the_same_are_asked_for_together_up_to_the_most() {
        let takes = Takes::default();
        let mut kept = Vec::new();
        for (consumer, max) in [("a", 16), ("a", 16), ("b", 1), ("a", 1)].into_iter().chain([("a", 16); 7]) {
            let (asked, answered) = asked(consumer, max);
            takes.ask("q", asked);
            kept.push(answered);
        }
        let lots = || {
            let lot = takes.next("q");
            lot.iter().map(|asked| asked.max).collect::<Vec<_>>()
        };
        assert_eq!(lots(), [16, 16]);
        assert_eq!(lots(), [1]);
        assert_eq!(lots(), [1]);
        assert_eq!(lots(), [16, 16, 16, 16, 16, 16]);
        assert_eq!(lots(), [16]);
        assert_eq!(lots(), [0_usize; 0]);
    }

    #[test]
    fn the_part_of_one_who_has_gone_goes_to_those_behind() {
        let ((first, gone), (second, mut b), (third, mut c)) = (asked("a", 2), asked("a", 1), asked("a", 2));
        drop(gone);
        share(vec![first, second, third], (1..=4).map(delivery).collect());
        assert_eq!(numbers(&mut b), [1]);
        assert_eq!(numbers(&mut c), [2, 3]);
    }

    #[test]
    fn who_comes_late_gets_what_is_left() {
        let ((first, mut a), (second, mut b)) = (asked("a", 2), asked("a", 2));
        share(vec![first, second], (1..=3).map(delivery).collect());
        assert_eq!(numbers(&mut a), [1, 2]);
        assert_eq!(numbers(&mut b), [3]);
    }
}
