//! The worker that takes messages from a broker and has them handled.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use pgfleet_events::{Delivered, Error, ErrorKind, Message, Subscriber};
use pgfleet_postgres::retry;
use tokio::time::Instant;

use super::databases::{Databases, Work};
use super::handler::{Erased, Failure, Handler};
use super::inbox::{Begun, Inbox};
use super::options::ConsumerOptions;
use super::stats::{ConsumerStats, Counters, add};

/// What is written with a message that is too old.
const TOO_OLD: &str = "it is older than what the inbox remembers, so whether it was handled is not known";

/// Takes messages from a broker and has each handled once, in its handler's transaction.
///
/// Several may run for one consumer, in one process or many, each with a subscriber of its own.
pub struct Consumer<D: Databases> {
    inbox: Inbox,
    databases: Arc<D>,
    handlers: HashMap<Arc<str>, Box<dyn Erased<D::Tx>>>,
    options: ConsumerOptions,
    counters: Counters,
}

impl<D: Databases> fmt::Debug for Consumer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("consumer", &self.inbox.consumer())
            .field("handles", &self.handlers.keys())
            .finish_non_exhaustive()
    }
}

/// Why a transaction with messages failed.
enum Trouble {
    /// A handler.
    Handler(Failure),
    /// The database, before or after.
    Database(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

/// What a transaction did.
#[derive(Debug, Default)]
struct Done {
    handled: u64,
    duplicates: u64,
    unhandled: u64,
    parked: u64,
    refused: u64,
}

/// When which database is looked at for what was put aside.
struct Aside {
    due: HashMap<Option<Arc<str>>, Instant>,
    rescan: Instant,
    forget: Instant,
}

impl<D: Databases> Consumer<D> {
    /// A consumer with nothing that it handles yet.
    pub fn new(inbox: Inbox, databases: Arc<D>, options: ConsumerOptions) -> Self {
        Self { inbox, databases, handlers: HashMap::new(), options, counters: Counters::default() }
    }

    /// Has messages of a type handled.
    ///
    /// Messages of other types that arrive are noted as handled, and counted.
    #[must_use]
    pub fn on(mut self, kind: impl Into<Arc<str>>, handler: impl Handler<D::Tx>) -> Self {
        self.handlers.insert(kind.into(), Box::new(handler));
        self
    }

    /// Returns what it has done.
    pub fn stats(&self) -> ConsumerStats {
        self.counters.read()
    }

    /// Takes and handles messages until `stop` is ready; what is being handled is ended first.
    ///
    /// Errors are logged and tried again, for ever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: what was not acknowledged comes again, and what was handled is known by then.
    pub async fn run(&self, mut subscriber: Box<dyn Subscriber>, stop: impl Future<Output = ()> + Send) {
        let mut stop = std::pin::pin!(stop);
        let now = Instant::now();
        let mut aside = Aside { due: HashMap::new(), rescan: now, forget: now };
        let mut failures = 0;
        loop {
            self.look_aside(&mut aside).await;
            let next = aside.due.values().min().copied().unwrap_or(aside.rescan).min(aside.rescan);
            let wait = next.saturating_duration_since(Instant::now()).min(self.options.poll);
            let received = tokio::select! {
                biased;
                () = &mut stop => return,
                received = subscriber.receive(self.options.batch.max(1), wait.max(Duration::from_millis(1))) => received,
            };
            match received {
                Ok(delivered) => {
                    failures = 0;
                    self.take(subscriber.as_mut(), delivered, &mut aside).await;
                }
                Err(error) => {
                    failures += 1;
                    self.warn(&error, "messages cannot be received; trying again");
                    if pause(stop.as_mut(), retry::backoff(failures, self.options.backoff.0, self.options.backoff.1))
                        .await
                    {
                        return;
                    }
                }
            }
        }
    }

    fn warn(&self, error: &Error, what: &str) {
        let error: &dyn std::error::Error = error;
        tracing::warn!(target: "pgfleet::inbox", consumer = self.inbox.consumer(), error, "{what}");
    }

    /// Says that a message failed: it is in the tables from now on, and nobody looks there who was not told.
    fn warn_of(&self, message: &Message, failure: &Failure, wait: Option<Duration>) {
        let error: &dyn std::error::Error = failure.error();
        let (consumer, kind) = (self.inbox.consumer(), &*message.kind);
        let what = match wait {
            Some(_) => "a message could not be handled; it is tried again later",
            None => "a message could not be handled and is not tried again",
        };
        tracing::warn!(target: "pgfleet::inbox", consumer, message = %message.id, kind, ?wait, error, "{what}");
    }

    /// Handles what arrived, by database, each in the order in which it came.
    async fn take(&self, subscriber: &mut dyn Subscriber, delivered: Vec<Delivered>, aside: &mut Aside) {
        let mut groups: Vec<(Option<Arc<str>>, Vec<Delivered>)> = Vec::new();
        for one in delivered {
            add(&self.counters.redelivered, u64::from(one.attempt > 1));
            let tenant = one.message.meta.tenant.clone();
            match groups.iter_mut().find(|(place, _)| *place == tenant) {
                Some((_, group)) => group.push(one),
                None => groups.push((tenant, vec![one])),
            }
        }
        for (tenant, group) in groups {
            let ended = self.group(tenant.as_ref(), &group, aside).await;
            if ended > 0
                && let Err(error) = subscriber.acknowledge(&group[..ended]).await
            {
                // It comes again and is known.
                self.warn(&error, "handled messages cannot be acknowledged");
            }
            // The last first, so that each comes before later ones of its key.
            for one in group[ended..].iter().rev() {
                let delay = retry::backoff(one.attempt.max(1), self.options.backoff.0, self.options.backoff.1);
                if let Err(error) = subscriber.give_back(one, delay).await {
                    self.warn(&error, "messages cannot be given back");
                }
            }
        }
    }

    /// Handles messages of one database; returns how many from the first on are done with.
    async fn group(&self, tenant: Option<&Arc<str>>, group: &[Delivered], aside: &mut Aside) -> usize {
        let messages: Vec<&Message> = group.iter().map(|one| &one.message).collect();
        match self.together(tenant, &messages).await {
            Ok(()) => return group.len(),
            Err(Trouble::Database(error)) if error.kind() == ErrorKind::Unavailable => {
                self.warn(&error, "the database is away; messages go back");
                return 0;
            }
            Err(_) if group.len() > 1 => {}
            Err(trouble) => {
                let ended = self.alone(tenant, messages[0], Some(trouble), aside).await;
                return usize::from(ended);
            }
        }
        for (at, message) in messages.iter().enumerate() {
            if !self.alone(tenant, message, None, aside).await {
                return at;
            }
        }
        group.len()
    }

    /// Handles one message, and puts it aside when it fails; returns whether it is done with.
    async fn alone(
        &self,
        tenant: Option<&Arc<str>>,
        message: &Message,
        mut trouble: Option<Trouble>,
        aside: &mut Aside,
    ) -> bool {
        let mut tries = u32::from(trouble.is_some());
        let failure = loop {
            let met = match trouble.take() {
                Some(trouble) => trouble,
                None => match self.together(tenant, &[message]).await {
                    Ok(()) => return true,
                    Err(trouble) => {
                        tries += 1;
                        trouble
                    }
                },
            };
            let again = tries <= self.options.contention_tries;
            match met {
                Trouble::Handler(failure) if again && failure.is_contention() => {}
                Trouble::Handler(failure) => break failure,
                Trouble::Database(error) if error.kind() == ErrorKind::Unavailable => {
                    self.warn(&error, "the database is away; messages go back");
                    return false;
                }
                Trouble::Database(error) if again && error.is_retryable() => {}
                // What the commit refuses is the message's doing, as what the handler does is.
                Trouble::Database(error) => break Failure::from(error),
            }
            tokio::time::sleep(retry::backoff(tries, Duration::from_millis(2), Duration::from_millis(50))).await;
        };
        match self.put_aside(tenant, message, &failure).await {
            Ok(wait) => {
                self.warn_of(message, &failure, wait);
                if let Some(wait) = wait {
                    note(aside, tenant.cloned(), Instant::now() + wait);
                }
                true
            }
            Err(error) => {
                self.warn(&error, "a message can neither be handled nor put aside; it goes back");
                false
            }
        }
    }

    /// Handles messages in one transaction.
    async fn together(&self, tenant: Option<&Arc<str>>, messages: &[&Message]) -> Result<(), Trouble> {
        let mut tx = self.databases.begin(tenant.map(|tenant| &**tenant)).await?;
        let begun = self.inbox.begin_all(&mut tx, messages).await?;
        let mut done = Done::default();
        for (message, begun) in messages.iter().zip(begun) {
            match begun {
                Begun::Duplicate => done.duplicates += 1,
                Begun::Behind => {
                    self.inbox.park(&mut tx, message).await?;
                    done.parked += 1;
                }
                Begun::Refused => {
                    self.inbox.bury(&mut tx, message, 0, TOO_OLD).await?;
                    done.refused += 1;
                }
                Begun::New => match self.handle(&mut tx, message).await {
                    Ok(true) => done.handled += 1,
                    Ok(false) => done.unhandled += 1,
                    Err(failure) => {
                        add(&self.counters.failures, 1);
                        return Err(Trouble::Handler(failure));
                    }
                },
            }
        }
        tx.commit().await?;
        self.count(&done);
        Ok(())
    }

    fn count(&self, done: &Done) {
        add(&self.counters.transactions, 1);
        add(&self.counters.handled, done.handled);
        add(&self.counters.duplicates, done.duplicates);
        add(&self.counters.unhandled, done.unhandled);
        add(&self.counters.parked, done.parked);
        add(&self.counters.dead, done.refused);
    }

    /// Runs a message's handler; returns whether there is one.
    async fn handle(&self, tx: &mut D::Tx, message: &Message) -> Result<bool, Failure> {
        let Some(handler) = self.handlers.get(&message.kind) else { return Ok(false) };
        // A panic is the message's failure; the transaction that it left behind is rolled back.
        match AssertUnwindSafe(handler.handle(tx, message)).catch_unwind().await {
            Ok(result) => result.map(|()| true),
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().copied();
                let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
                Err(Failure::from(format!("the handler panicked: {said}")))
            }
        }
    }

    /// Stores a message that failed, in a transaction of its own; says how long until its next try.
    async fn put_aside(
        &self,
        tenant: Option<&Arc<str>>,
        message: &Message,
        failure: &Failure,
    ) -> Result<Option<Duration>, Error> {
        let mut tx = self.databases.begin(tenant.map(|tenant| &**tenant)).await?;
        let begun = self.inbox.begin(&mut tx, message).await?;
        let mut wait = None;
        match begun {
            Begun::Duplicate => {}
            Begun::Behind => self.inbox.park(&mut tx, message).await?,
            Begun::Refused => self.inbox.bury(&mut tx, message, 1, TOO_OLD).await?,
            Begun::New => wait = self.inbox.put_aside(&mut tx, message, failure, &self.options).await?,
        }
        tx.commit().await?;
        let dead = begun == Begun::Refused || (begun == Begun::New && wait.is_none());
        add(&self.counters.dead, u64::from(dead));
        add(&self.counters.parked, u64::from(begun == Begun::Behind || wait.is_some()));
        Ok(wait)
    }

    /// Looks after what was put aside, where something is due.
    async fn look_aside(&self, aside: &mut Aside) {
        let now = Instant::now();
        if aside.rescan <= now {
            aside.rescan = now + self.options.rescan;
            let forget = aside.forget <= now;
            if forget {
                aside.forget = now + Duration::from_mins(30);
            }
            match self.databases.places().await {
                Ok(places) => {
                    for place in places {
                        if forget && let Err(error) = self.forget(place.as_ref()).await {
                            self.warn(&error, "an inbox cannot be tended");
                        }
                        note(aside, place, now);
                    }
                }
                Err(error) => self.warn(&error, "the databases cannot be listed"),
            }
        }
        let due: Vec<_> = aside.due.iter().filter(|(_, at)| **at <= now).map(|(place, _)| place.clone()).collect();
        for place in due {
            let next = match self.retry(place.as_ref()).await {
                Ok(next) => next,
                Err(error) => {
                    self.warn(&error, "messages that were put aside cannot be tried again");
                    Some(retry::backoff(1, self.options.backoff.0, self.options.backoff.1))
                }
            };
            match next {
                Some(wait) => {
                    aside.due.insert(place, Instant::now() + wait);
                }
                None => {
                    aside.due.remove(&place);
                }
            }
        }
    }

    async fn forget(&self, tenant: Option<&Arc<str>>) -> Result<(), Error> {
        let mut tx = self.databases.begin(tenant.map(|tenant| &**tenant)).await?;
        self.inbox.forget(&mut tx).await?;
        tx.commit().await
    }

    /// Tries what is due in one database, up to a batch, so that what arrives has its turn; says when to look again.
    async fn retry(&self, tenant: Option<&Arc<str>>) -> Result<Option<Duration>, Error> {
        for _ in 0..self.options.batch.max(1) {
            let mut tx = self.databases.begin(tenant.map(|tenant| &**tenant)).await?;
            let Some(head) = self.inbox.due(&mut tx).await? else {
                let next = self.inbox.next_due(&mut tx).await?;
                tx.commit().await?;
                // What is due and was not to be had is in somebody else's hands.
                return Ok(next.map(|wait| wait.max(Duration::from_millis(20))));
            };
            let result = match self.handle(&mut tx, &head.message).await {
                Ok(_) => match self.inbox.done(&mut tx, &head).await {
                    Ok(()) => tx.commit().await.map_err(Trouble::from),
                    Err(error) => Err(Trouble::from(error)),
                },
                Err(failure) => {
                    drop(tx);
                    Err(Trouble::Handler(failure))
                }
            };
            let failure = match result {
                Ok(()) => {
                    self.count(&Done { handled: 1, ..Done::default() });
                    continue;
                }
                Err(Trouble::Database(error)) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(Trouble::Database(error)) => Failure::from(error),
                Err(Trouble::Handler(failure)) => failure,
            };
            add(&self.counters.failures, 1);
            let tx = self.databases.begin(tenant.map(|tenant| &**tenant)).await?;
            let dead = self.inbox.failed_again(tx, &head, &failure, &self.options).await?;
            // Each try but the last one is in the counters; a line for each would hide the others.
            if dead {
                self.warn_of(&head.message, &failure, None);
            }
            add(&self.counters.dead, u64::from(dead));
        }
        Ok(Some(Duration::ZERO))
    }
}

/// Notes that a database is to be looked at then, or before.
fn note(aside: &mut Aside, place: Option<Arc<str>>, at: Instant) {
    aside.due.entry(place).and_modify(|due| *due = (*due).min(at)).or_insert(at);
}

/// Waits, unless it is stopped: then it returns true.
async fn pause(stop: Pin<&mut (impl Future<Output = ()> + Send)>, wait: Duration) -> bool {
    tokio::select! {
        () = stop => true,
        () = tokio::time::sleep(wait) => false,
    }
}
