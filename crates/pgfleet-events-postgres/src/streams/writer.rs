//! Group commit: appends that come at once go to the server as one statement.
//!
//! Whoever appends puts his append into a queue. A few tasks at most take what is in it, all that there is, and send it as
//! one transaction; while that is flushed to disk, the next lot gathers. An append is answered when its transaction is
//! committed. What one append does wrong is answered to it alone.
//!
//! The tasks live as long as there is something in the queue, so an idle store has none, and dropping an append's future
//! leaves a lot half-way nowhere. Who comes when nobody waits sends by himself.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use pgfleet_events::{Append, Appended, Error, ErrorKind};
use tokio::sync::oneshot;

use super::batch::{self, Outcome};
use crate::store::Inner;

/// The most that goes into one transaction.
const APPENDS: usize = 256;
const EVENTS: usize = 2_000;

/// An append, and who waits for its answer.
#[derive(Debug)]
struct Job {
    append: Append,
    answer: oneshot::Sender<Result<Appended, Error>>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Tasks that send.
    senders: usize,
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    queue: Mutex<Queue>,
}

/// What an append does next.
enum Place {
    /// Nobody waits, and there is room for one more who sends.
    First(Append),
    /// Behind others.
    Behind(oneshot::Receiver<Result<Appended, Error>>),
}

/// Appends, by itself or with those who wait.
pub(super) async fn append(store: &Arc<Inner>, append: Append) -> Result<Appended, Error> {
    let place = {
        let mut queue = store.streams.writer.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.jobs.is_empty() && queue.senders < store.options.writers.max(1) {
            queue.senders += 1;
            Place::First(append)
        } else {
            let (answer, answered) = oneshot::channel();
            queue.jobs.push_back(Job { append, answer });
            Place::Behind(answered)
        }
    };
    match place {
        Place::First(append) => {
            // In the caller's own task: another one costs a turn of the scheduler there and one back.
            let _turn = Turn(store);
            one(store, &append).await
        }
        Place::Behind(answered) => match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "the task that appends has ended")),
        },
    }
}

/// Somebody's turn to send; when it is over, also by being dropped, those who wait are sent.
struct Turn<'a>(&'a Arc<Inner>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.streams.writer.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a runtime there is nobody who could still wait.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !queue.jobs.is_empty() => drop(runtime.spawn(send(Arc::clone(self.0)))),
            _ => queue.senders -= 1,
        }
    }
}

/// Sends until the queue is empty.
async fn send(store: Arc<Inner>) {
    loop {
        let jobs = {
            let mut queue = store.streams.writer.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let jobs = take(&mut queue.jobs);
            if jobs.is_empty() {
                queue.senders -= 1;
                return;
            }
            jobs
        };
        lot(&store, jobs).await;
    }
}

/// Takes what goes together: of each stream one append, since the next one's fate hangs on it.
fn take(queue: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut taken, mut left): (Vec<Job>, VecDeque<Job>) = (Vec::new(), VecDeque::new());
    let mut streams = HashSet::new();
    let mut events = 0;
    while let Some(job) = queue.pop_front() {
        let fits = taken.is_empty() || events + job.append.events.len() <= EVENTS;
        // Behind one that stays, those of the same stream stay too: its name is noted either way.
        if streams.insert(Arc::clone(&job.append.stream)) && fits {
            events += job.append.events.len();
            taken.push(job);
        } else {
            left.push_back(job);
        }
        if taken.len() >= APPENDS || events >= EVENTS || left.len() >= APPENDS {
            break;
        }
    }
    left.append(queue);
    *queue = left;
    taken
}

async fn lot(store: &Arc<Inner>, mut jobs: Vec<Job>) {
    if let [_] = jobs[..] {
        let job = jobs.remove(0);
        // Nobody else waits behind it, but in the queue: those the other tasks can take.
        return alone(store, job).await;
    }
    let appends: Vec<&Append> = jobs.iter().map(|job| &job.append).collect();
    let answer = match store.connection().await {
        Ok(db) => batch::run(&db, &store.streams.sql, &appends, false, false).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(outcomes) => {
            store.appended();
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                if outcome == Outcome::Busy {
                    // Somebody's transaction holds the stream. Its append waits for that by itself.
                    tokio::spawn(alone_of(Arc::clone(store), job));
                } else {
                    let answer = outcome.answer(&job.append);
                    let _gone = job.answer.send(answer);
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::Failed => {
            // One of them has something that the server does not take. Nothing is appended, so each is tried alone.
            for job in jobs {
                alone(store, job).await;
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for job in jobs {
                let told = Error::new(error.kind(), "events could not be appended")
                    .retryable(error.is_retryable())
                    .because(Shared(Arc::clone(&error)));
                let _gone = job.answer.send(Err(told));
            }
        }
    }
}

async fn alone_of(store: Arc<Inner>, job: Job) {
    alone(&store, job).await;
}

async fn alone(store: &Arc<Inner>, job: Job) {
    let answer = one(store, &job.append).await;
    let _gone = job.answer.send(answer);
}

/// Sends one append.
async fn one(store: &Arc<Inner>, append: &Append) -> Result<Appended, Error> {
    let db = store.connection().await?;
    let outcome = match batch::event(&db, &store.streams.sql, append).await? {
        Some(outcome) => outcome,
        None => batch::run(&db, &store.streams.sql, &[append], false, true).await?[0],
    };
    let answer = outcome.answer(append);
    if answer.is_ok() {
        store.appended();
    }
    answer
}

/// One error that several are told of.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
