//! What many tasks have done, noted together.

use std::sync::{Arc, Mutex, PoisonError};

use pgfleet_events::{Error, ErrorKind, Receipt, Settled};
use tokio::sync::oneshot;

use super::receipt::Handle;
use crate::store::Inner;

/// How many are on their way at once; what comes meanwhile goes together in the next one.
const SENDERS: usize = 1;

/// What somebody says is done, and where the answer goes.
type Asked = (Vec<Handle>, oneshot::Sender<Result<usize, Arc<Error>>>);

#[derive(Debug, Default)]
pub(super) struct Acks(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    senders: usize,
    asked: Vec<Asked>,
}

impl Inner {
    /// Ends deliveries as done; answered when the server has answered.
    pub(super) async fn acknowledge(self: &Arc<Self>, receipts: &[Receipt]) -> Result<Settled, Error> {
        let handles = Handle::all(receipts);
        if handles.is_empty() {
            return Ok(Settled { done: 0, fenced: receipts.len() });
        }
        let settled = |done: usize| Settled { done, fenced: receipts.len().saturating_sub(done) };
        if handles.len() > 16 {
            return Ok(settled(self.done(&handles).await?.len()));
        }
        let (answer, answered) = oneshot::channel();
        let is_sender = {
            let mut waiting = self.queues.acks.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.asked.push((handles, answer));
            let free = waiting.senders < SENDERS;
            waiting.senders += usize::from(free);
            free
        };
        if is_sender {
            // A task of its own: whoever asks may be dropped.
            tokio::spawn(send(Arc::clone(self)));
        }
        match answered.await {
            Ok(Ok(done)) => Ok(settled(done)),
            Ok(Err(error)) => Err(again(&error)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "what is done could not be noted")),
        }
    }
}

async fn send(store: Arc<Inner>) {
    loop {
        let asked = {
            let mut waiting = store.queues.acks.0.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.asked.is_empty() {
                waiting.senders -= 1;
                return;
            }
            std::mem::take(&mut waiting.asked)
        };
        let mut all: Vec<Handle> = asked.iter().flat_map(|(handles, _)| handles).copied().collect();
        all.sort_unstable();
        all.dedup();
        let mut done = store.done(&all).await.map_err(Arc::new);
        for (handles, answer) in asked {
            let count = match &mut done {
                // What is counted is taken out: of the same receipt in two questions one is late.
                Ok(done) => Ok(count_out(&handles, done)),
                Err(error) => Err(Arc::clone(error)),
            };
            // Who has gone does not need it.
            let _ = answer.send(count);
        }
    }
}

/// Takes handles out of sorted ones, and returns how many were among them.
fn count_out(handles: &[Handle], of: &mut Vec<Handle>) -> usize {
    let mut count = 0;
    for handle in handles {
        if let Ok(place) = of.binary_search(handle) {
            of.remove(place);
            count += 1;
        }
    }
    count
}

/// The same error for each of those who asked.
pub(super) fn again(error: &Arc<Error>) -> Error {
    let made = Error::new(error.kind(), error.to_string()).retryable(error.is_retryable());
    let made = match error.hint() {
        Some(hint) => made.with_hint(hint.to_owned()),
        None => made,
    };
    made.because(Arc::clone(error))
}
