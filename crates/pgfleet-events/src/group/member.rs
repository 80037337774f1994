//! A member: takes leases, renews them, and has a task for each part that he has.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::part::{Ended, Part};
use super::{Group, PartState, Status};
use crate::backoff::Backoff;
use crate::consumer::Lease;
use crate::error::{Error, ErrorKind};
use crate::position::Position;
use crate::store::GroupStore;

pub(super) struct Member<'a> {
    group: &'a Group,
    store: Arc<dyn GroupStore>,
    parts: HashMap<u32, Running>,
    tasks: JoinSet<Ended>,
    /// Says to the tasks that they end when they have finished what they do.
    stop: watch::Sender<bool>,
    /// Until when the leases are good for certain, by this machine's clock: counted from before they were asked for.
    good_until: Instant,
}

struct Running {
    epoch: u64,
    task: AbortHandle,
}

impl<'a> Member<'a> {
    pub(super) fn new(group: &'a Group, store: Arc<dyn GroupStore>) -> Self {
        let (parts, tasks, stop) = (HashMap::new(), JoinSet::new(), watch::Sender::new(false));
        Self { group, store, parts, tasks, stop, good_until: Instant::now() }
    }

    pub(super) async fn run(mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<(), Error> {
        let options = Arc::clone(&self.group.options);
        let every = options.lease / 3;
        let mut failures = Backoff::new((options.backoff.0.min(every), options.backoff.1.min(every)));
        let mut renew_at = Instant::now();
        let mut start = None;
        let outcome = loop {
            tokio::select! {
                biased;
                () = &mut stop => break Ok(()),
                Some(ended) = self.tasks.join_next_with_id() => {
                    if self.ended(&ended) {
                        // Whose it is now, and whether it is this member's again, only the store knows.
                        renew_at = renew_at.min(Instant::now() + failures.pause());
                    }
                }
                () = sleep_until(renew_at) => {
                    let renewed = tokio::select! {
                        biased;
                        () = &mut stop => break Ok(()),
                        renewed = self.renew(&mut start) => renewed,
                    };
                    match renewed {
                        Ok(()) => {
                            failures.reset();
                            renew_at = Instant::now() + every;
                        }
                        Err(error) if error.is_retryable() => {
                            self.warn(&error, "leases could not be renewed; trying again");
                            self.give_up_what_is_over();
                            renew_at = Instant::now() + failures.pause();
                            if !self.parts.is_empty() {
                                renew_at = renew_at.min(self.good_until);
                            }
                        }
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        self.leave(every).await;
        outcome
    }

    /// Takes and renews leases, and reads what is this member's now.
    async fn renew(&mut self, start: &mut Option<Position>) -> Result<(), Error> {
        let options = &self.group.options;
        let asked = Instant::now();
        // Somebody who hangs must not keep this member from noticing that his leases are over.
        let end = if self.parts.is_empty() { asked + options.lease } else { self.good_until.max(asked) };
        let Group { name, member, .. } = self.group;
        let lease = async {
            let from = match *start {
                Some(from) => from,
                None => *start.insert(options.start.position(&*self.store).await?),
            };
            self.store.lease(name, member, options.parts, from, options.lease).await
        };
        let Ok(leases) = timeout_at(end, lease).await else {
            return Err(Error::new(ErrorKind::Unavailable, format!("leases of group {name} take too long")));
        };
        let leases = leases?;
        self.good_until = asked + options.lease;
        self.assign(leases);
        Ok(())
    }

    fn assign(&mut self, leases: Vec<Lease>) {
        let held: HashMap<u32, u64> = leases.iter().map(|lease| (lease.part, lease.epoch)).collect();
        self.end_where(|part, running| held.get(&part) != Some(&running.epoch));
        for lease in leases {
            if self.parts.contains_key(&lease.part) {
                continue;
            }
            let (number, epoch) = (lease.part, lease.epoch);
            let part = Part::new(self.group, Arc::clone(&self.store), lease, self.stop.subscribe());
            let task = self.tasks.spawn(part.run());
            self.parts.insert(number, Running { epoch, task });
        }
    }

    /// Ends reading of parts that are somebody else's: what is being handled is aborted, since another one may have
    /// begun with it.
    fn end_where(&mut self, mut goes: impl FnMut(u32, &Running) -> bool) {
        let group = self.group;
        self.parts.retain(|part, running| {
            let goes = goes(*part, running);
            if goes {
                running.task.abort();
                group.shared.status.send_modify(|status| drop(status.remove(part)));
            }
            !goes
        });
    }

    fn give_up_what_is_over(&mut self) {
        if !self.parts.is_empty() && Instant::now() >= self.good_until {
            tracing::warn!(
                target: "pgfleet::events",
                group = &*self.group.name,
                member = &*self.group.member,
                parts = self.parts.len(),
                "leases have ended unrenewed; their parts are given up"
            );
            self.end_where(|_, _| true);
        }
    }

    /// Notes that a task has ended; says whether its part was lost, rather than told to end.
    fn ended(&mut self, ended: &Result<(Id, Ended), JoinError>) -> bool {
        let id = match ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        // One that was ended by this member is not among the parts any more.
        let Some(part) = self.parts.iter().find(|(_, running)| running.task.id() == id).map(|(part, _)| *part) else {
            return false;
        };
        match ended {
            Ok((_, Ended::Lost)) => {
                self.end_where(|number, _| number == part);
                true
            }
            Ok((_, Ended::Told)) => false,
            Err(_) => {
                // It stays this member's, and stopped: a panic would come again elsewhere, too.
                let error = Arc::new(Error::new(ErrorKind::Failed, format!("the handler of part {part} panicked")));
                self.warn(&error, "a part has stopped");
                self.group.shared.status.send_modify(|status| {
                    if let Some(status) = status.get_mut(&part) {
                        status.state = PartState::Stopped { error };
                    }
                });
                false
            }
        }
    }

    /// Lets the tasks finish what they do, for so long, and leaves the group.
    async fn leave(mut self, most: Duration) {
        self.stop.send_replace(true);
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if timeout_at(Instant::now() + most, finished).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.group.shared.status.send_modify(Status::clear);
        let Group { name, member, .. } = self.group;
        match timeout_at(Instant::now() + most, self.store.leave(name, member)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.warn(&error, "the group could not be left; others wait for the leases to end"),
            Err(_) => self.warn(
                &Error::new(ErrorKind::Unavailable, "the store does not answer"),
                "the group could not be left; others wait for the leases to end",
            ),
        }
    }

    fn warn(&self, error: &Error, what: &str) {
        tracing::warn!(
            target: "pgfleet::events",
            group = &*self.group.name,
            member = &*self.group.member,
            error = error as &dyn std::error::Error,
            "{what}"
        );
    }
}
