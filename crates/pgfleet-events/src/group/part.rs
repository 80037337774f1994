//! A part: read, handed over, stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Group, GroupOptions, OnFailure, PartState, PartStatus, Shared};
use crate::backoff::Backoff;
use crate::consumer::Lease;
use crate::error::Error;
use crate::event::Event;
use crate::handler::Handler;
use crate::position::Position;
use crate::queue::NewItem;
use crate::store::GroupStore;
use crate::stream::Filter;

/// How long at most until it is looked again.
const WAIT: Duration = Duration::from_secs(10);

/// How often it is stored, at most, that a part has come further without an event of its own.
const EMPTY_COMMIT: Duration = Duration::from_secs(1);

/// Pauses where waits tell nothing.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// Why a part's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The member is leaving.
    Told,
    /// Somebody else has the part, or it was reset.
    Lost,
}

/// Why what a part does was broken off.
enum Halt {
    Ended(Ended),
    /// It cannot go on by itself.
    Stopped(Error),
}

impl From<Ended> for Halt {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

pub(super) struct Part {
    store: Arc<dyn GroupStore>,
    handler: Arc<dyn Handler>,
    options: Arc<GroupOptions>,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
    resumed: watch::Receiver<u64>,
    lease: Lease,
    filter: Filter,
    /// How far was read and handled.
    position: Position,
    /// How far was stored, and when.
    stored: (Position, Instant),
}

impl Part {
    pub(super) fn new(group: &Group, store: Arc<dyn GroupStore>, lease: Lease, stop: watch::Receiver<bool>) -> Self {
        let filter = Filter { part: Some((lease.part, lease.parts)), ..group.options.filter.clone() };
        let position = lease.position;
        let status = PartStatus {
            part: lease.part,
            epoch: lease.epoch,
            position,
            handled: 0,
            skipped: 0,
            state: PartState::CatchingUp,
        };
        group.shared.status.send_modify(|all| drop(all.insert(lease.part, status)));
        Self {
            store,
            handler: Arc::clone(&group.handler),
            options: Arc::clone(&group.options),
            shared: Arc::clone(&group.shared),
            stop,
            resumed: group.shared.resumed.subscribe(),
            lease,
            filter,
            position,
            stored: (position, Instant::now()),
        }
    }

    pub(super) async fn run(mut self) -> Ended {
        loop {
            let error = match self.work().await {
                Ok(never) => match never {},
                Err(Halt::Ended(ended)) => return ended,
                Err(Halt::Stopped(error)) => error,
            };
            tracing::warn!(
                target: "pgfleet::events",
                group = &*self.lease.group,
                part = self.lease.part,
                error = &error as &dyn std::error::Error,
                "a part has stopped"
            );
            self.resumed.mark_unchanged();
            self.set_state(PartState::Stopped { error: Arc::new(error) });
            tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return Ended::Told,
                _ = self.resumed.changed() => {}
            }
            self.set_state(PartState::CatchingUp);
        }
    }

    /// Reads, hands over and stores for as long as it can.
    async fn work(&mut self) -> Result<std::convert::Infallible, Halt> {
        let mut failures = Backoff::new(self.options.backoff);
        let mut idle = Backoff::new(POLL);
        let mut waited = None;
        loop {
            let (store, filter) = (Arc::clone(&self.store), self.filter.clone());
            let page = match self.unless_told(store.read_all(self.position, self.options.batch, &filter)).await? {
                Ok(page) => page,
                Err(error) => {
                    self.pause_after(&mut failures, error, "a part could not be read").await?;
                    continue;
                }
            };
            failures.reset();
            if !page.events.is_empty() {
                idle.reset();
                waited = None;
                self.hand_over(&page.events, page.next).await?;
                continue;
            }
            self.position = page.next;
            if self.stored.1.elapsed() >= EMPTY_COMMIT {
                self.store_position().await?;
            }
            if !page.at_end {
                continue;
            }
            self.set_state(PartState::Live);
            let most = if self.position == self.stored.0 { WAIT } else { EMPTY_COMMIT };
            let began = Instant::now();
            match self.unless_told(store.wait(self.position, most)).await? {
                Ok(()) if waited == Some(self.position) && began.elapsed() < most.min(Duration::from_millis(20)) => {
                    let pause = idle.pause();
                    self.unless_told(tokio::time::sleep(pause)).await?;
                }
                Ok(()) => {}
                Err(error) => self.pause_after(&mut failures, error, "a part could not wait").await?,
            }
            waited = Some(self.position);
        }
    }

    /// Hands events over all at once, and one by one when that fails, so that it is known which one is at fault.
    async fn hand_over(&mut self, events: &[Event], next: Position) -> Result<(), Halt> {
        self.set_state(PartState::CatchingUp);
        if events.len() > 1 {
            let Err(error) = self.handler.handle(events).await else {
                return self.done(next, events.len() as u64, 0).await;
            };
            self.warn(&error, "a batch could not be handled; trying event by event");
            self.set_state(PartState::Retrying { failures: 1, error: Arc::new(error) });
        }
        for (index, event) in events.iter().enumerate() {
            let behind = if index + 1 == events.len() { next } else { event.position.unwrap_or(self.position) };
            let skipped = u64::from(!self.hand_over_one(event).await?);
            self.done(behind, 1 - skipped, skipped).await?;
            if *self.stop.borrow() {
                return Err(Ended::Told.into());
            }
        }
        Ok(())
    }

    /// Hands an event over as often as is allowed; says whether it was handled, rather than left out.
    async fn hand_over_one(&mut self, event: &Event) -> Result<bool, Halt> {
        let mut failures = Backoff::new(self.options.backoff);
        let mut failed = 0;
        loop {
            let Err(error) = self.handler.handle(std::slice::from_ref(event)).await else { return Ok(true) };
            // An outage of what the handler needs is no fault of the event.
            failed += u32::from(!error.is_retryable());
            if failed >= self.options.attempts.max(1) {
                return self.give_up(event, error).await;
            }
            self.pause(&mut failures, error, "an event could not be handled").await?;
        }
    }

    async fn give_up(&mut self, event: &Event, error: Error) -> Result<bool, Halt> {
        let options = Arc::clone(&self.options);
        if let OnFailure::Stop = options.on_failure {
            return Err(Halt::Stopped(error));
        }
        // Storing the same place again asks whether the part is this member's still: one who has lost it must not say that
        // an event has failed which another one may have handled.
        let mut failures = Backoff::new(options.backoff);
        while let Err(error) = self.store.commit(&self.lease, self.position).await {
            self.lost_or_pause(&mut failures, error, "an offset could not be stored").await?;
        }
        match &options.on_failure {
            OnFailure::Stop => {}
            OnFailure::Skip(told) => told(event, &error),
            OnFailure::DeadLetter { store, queue } => {
                let mut failures = Backoff::new(options.backoff);
                let item = self.dead_letter(event, &error);
                while let Err(error) = store.enqueue(queue, vec![item.clone()]).await {
                    self.pause_after(&mut failures, error, "an event could not be put into its queue").await?;
                }
            }
        }
        self.warn(&error, "an event was left out");
        Ok(false)
    }

    fn dead_letter(&self, event: &Event, error: &Error) -> NewItem {
        // The same event of the same group is there once, however often storing the offset behind it fails.
        let mut item = NewItem::from(event).dedup_id(format!("{}/{}", self.lease.group, event.id));
        let said = [
            ("failure", error.to_string()),
            ("stream", event.stream.to_string()),
            ("version", event.version.to_string()),
            ("group", self.lease.group.to_string()),
        ];
        item.meta.headers.extend(said.map(|(name, value)| (name.to_owned(), value)));
        item
    }

    /// Stores that everything up to a position was handled.
    async fn done(&mut self, position: Position, handled: u64, skipped: u64) -> Result<(), Halt> {
        self.position = position;
        self.store_position().await?;
        self.update(|status| {
            status.handled += handled;
            status.skipped += skipped;
        });
        Ok(())
    }

    async fn store_position(&mut self) -> Result<(), Halt> {
        let mut failures = Backoff::new(self.options.backoff);
        while self.stored.0 != self.position {
            match self.store.commit(&self.lease, self.position).await {
                Ok(()) => self.stored = (self.position, Instant::now()),
                Err(error) => self.lost_or_pause(&mut failures, error, "an offset could not be stored").await?,
            }
        }
        let position = self.position;
        self.update(|status| status.position = position);
        Ok(())
    }

    /// Does what can be broken off at any time, unless the member is leaving.
    async fn unless_told<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => Err(Ended::Told.into()),
            done = work => Ok(done),
        }
    }

    /// Pauses after a failure of the store that may pass.
    async fn pause_after(&mut self, failures: &mut Backoff, error: Error, what: &str) -> Result<(), Halt> {
        if !error.is_retryable() {
            return Err(Halt::Stopped(error));
        }
        self.pause(failures, error, what).await
    }

    /// The same for what the lease is needed for.
    async fn lost_or_pause(&mut self, failures: &mut Backoff, error: Error, what: &str) -> Result<(), Halt> {
        if error.is_fenced() {
            return Err(Ended::Lost.into());
        }
        self.pause_after(failures, error, what).await
    }

    async fn pause(&mut self, failures: &mut Backoff, error: Error, what: &str) -> Result<(), Halt> {
        let pause = failures.pause();
        self.warn(&error, what);
        self.set_state(PartState::Retrying { failures: failures.tries(), error: Arc::new(error) });
        self.unless_told(tokio::time::sleep(pause)).await
    }

    fn set_state(&self, state: PartState) {
        self.update(|status| status.state = state);
    }

    /// Changes what is said about the part, for as long as it is this lease's.
    fn update(&self, change: impl FnOnce(&mut PartStatus)) {
        self.shared.status.send_if_modified(|all| {
            let status = all.get_mut(&self.lease.part).filter(|status| status.epoch == self.lease.epoch);
            status.map(change).is_some()
        });
    }

    fn warn(&self, error: &Error, what: &str) {
        tracing::warn!(
            target: "pgfleet::events",
            group = &*self.lease.group,
            part = self.lease.part,
            error = error as &dyn std::error::Error,
            "{what}"
        );
    }
}
