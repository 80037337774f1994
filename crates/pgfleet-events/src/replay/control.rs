//! Pausing, cancelling and watching.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Halt;
use super::pace::Pace;
use crate::event::Event;
use crate::position::Position;
use crate::reading::Start;

/// What a replay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// It has not begun.
    Waiting,
    /// It hands events over.
    Running,
    /// It was told to pause, and has.
    Paused,
    /// It has replayed everything.
    Done,
    /// It was told to end before that.
    Cancelled,
    /// It could not go on.
    Failed,
}

impl ReplayState {
    /// Returns whether it has ended.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }
}

/// How far a replay has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What it does.
    pub state: ReplayState,
    /// How many events were handed over.
    pub events: u64,
    /// The position of the last one, where the store has given it one.
    pub position: Option<Position>,
    /// How many there are to be, where it is known: for one stream, counted when it began.
    pub total: Option<u64>,
    /// Events a second, over the time in which it was not paused.
    pub rate: f64,
    /// Where another replay goes on.
    pub place: Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Go,
    Pause,
    Cancel,
}

#[derive(Debug)]
pub(super) struct Control {
    /// Written by the handles, read by the replay; the last wish counts.
    wish: watch::Sender<Wish>,
    /// Written by the replay.
    progress: watch::Sender<Progress>,
    /// When it began, later by all that it was paused.
    began: std::sync::Mutex<Option<Instant>>,
}

impl Control {
    pub(super) fn new(place: Start) -> Self {
        let progress =
            Progress { state: ReplayState::Waiting, events: 0, position: None, total: None, rate: 0.0, place };
        Self {
            wish: watch::Sender::new(Wish::Go),
            progress: watch::Sender::new(progress),
            began: std::sync::Mutex::default(),
        }
    }

    pub(super) fn handle(&self) -> ReplayHandle {
        ReplayHandle { wish: self.wish.clone(), progress: self.progress.subscribe() }
    }

    pub(super) fn begin(&self, total: Option<u64>) {
        self.set_began(Instant::now());
        self.progress.send_modify(|progress| {
            progress.state = ReplayState::Running;
            progress.total = total;
        });
    }

    fn began(&self) -> Instant {
        let began = self.began.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        began.unwrap_or_else(Instant::now)
    }

    fn set_began(&self, at: Instant) {
        *self.began.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(at);
    }

    /// Notes that events were handed over.
    pub(super) fn came(&self, events: usize, last: &Event, place: Start) {
        let took = self.began().elapsed();
        self.progress.send_modify(|progress| {
            progress.events += events as u64;
            progress.position = last.position.or(progress.position);
            progress.place = place;
            progress.rate = rate(progress.events, took);
        });
    }

    pub(super) fn end(&self, state: ReplayState) {
        self.progress.send_modify(|progress| progress.state = state);
    }

    /// Waits for as long as it is to pause.
    pub(super) async fn go(&self, pace: &mut Pace) -> Result<(), Halt> {
        let mut wishes = self.wish.subscribe();
        let wish = *wishes.borrow_and_update();
        match wish {
            Wish::Go => return Ok(()),
            Wish::Cancel => return Err(Halt::Cancelled),
            Wish::Pause => {}
        }
        let paused = Instant::now();
        self.progress.send_modify(|progress| progress.state = ReplayState::Paused);
        // The sender is in `self`, so this ends with a wish only.
        let wish = wishes.wait_for(|wish| *wish != Wish::Pause).await.map_or(Wish::Cancel, |wish| *wish);
        if wish == Wish::Cancel {
            return Err(Halt::Cancelled);
        }
        pace.paused();
        self.set_began(self.began() + paused.elapsed());
        self.progress.send_modify(|progress| progress.state = ReplayState::Running);
        Ok(())
    }

    /// Waits until a time, or until it is cancelled.
    pub(super) async fn unless_cancelled(&self, until: Instant) -> Result<(), Halt> {
        let mut wishes = self.wish.subscribe();
        tokio::select! {
            biased;
            _ = wishes.wait_for(|wish| *wish == Wish::Cancel) => Err(Halt::Cancelled),
            () = sleep_until(until) => Ok(()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people to look at")]
fn rate(events: u64, took: Duration) -> f64 {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 { events as f64 / seconds } else { 0.0 }
}

/// Pauses, resumes, cancels and watches a replay; cheap to clone.
#[derive(Debug, Clone)]
pub struct ReplayHandle {
    wish: watch::Sender<Wish>,
    progress: watch::Receiver<Progress>,
}

impl ReplayHandle {
    /// Has it pause, once what is being handed over is done.
    pub fn pause(&self) {
        self.wish.send_if_modified(|wish| {
            let changes = *wish == Wish::Go;
            if changes {
                *wish = Wish::Pause;
            }
            changes
        });
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.wish.send_if_modified(|wish| {
            let changes = *wish == Wish::Pause;
            if changes {
                *wish = Wish::Go;
            }
            changes
        });
    }

    /// Has it end, once what is being handed over is done. It cannot be resumed then.
    pub fn cancel(&self) {
        self.wish.send_replace(Wish::Cancel);
    }

    /// Returns how far it has come.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until its progress fulfils a condition, which may be so already; returns it, or the last one when the replay
    /// is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn until(&self, holds: impl FnMut(&Progress) -> bool) -> Progress {
        let mut progress = self.progress.clone();
        progress.wait_for(holds).await.map_or_else(|_| self.progress(), |progress| *progress)
    }
}
