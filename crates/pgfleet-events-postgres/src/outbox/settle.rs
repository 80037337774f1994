//! What becomes of a batch.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use pgfleet_events::{Error, ErrorKind, Published};
use pgfleet_postgres::pool::Pooled;

use super::options::{AfterDead, RelayOptions};
use super::row::Item;
use super::sql::Sql;
use crate::carried::reason;
use crate::error::failed;

/// A key that is put aside, or whose next try is set.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) lane: String,
    pub(super) key: Option<String>,
    pub(super) attempts: i64,
    /// Until the next try; none to wait for a dead letter to be retried.
    pub(super) wait: Option<Duration>,
    pub(super) error: String,
}

/// A message that is given up.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) place: (i64, i64),
    pub(super) lane: String,
    pub(super) attempts: i64,
    pub(super) reason: String,
}

/// What becomes of messages of the log, or of those that were delayed.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) sent: usize,
    /// Put aside, in order.
    pub(super) park: Vec<((i64, i64), String)>,
    pub(super) keys: Vec<Parked>,
    pub(super) delay: Vec<(i64, i64)>,
    pub(super) dead: Vec<Dead>,
}

impl Outcome {
    pub(super) fn is_plain(&self) -> bool {
        self.park.is_empty() && self.keys.is_empty() && self.delay.is_empty() && self.dead.is_empty()
    }
}

/// Where the messages lie that an [`Outcome`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Log,
    Delayed,
}

/// Which of a batch are published now, by index, and what becomes of the others.
pub(super) fn sort(items: &[Item], lanes: &HashSet<String>, origin: Origin) -> (Vec<usize>, Outcome) {
    let (mut send, mut outcome) = (Vec::with_capacity(items.len()), Outcome::default());
    for (at, item) in items.iter().enumerate() {
        if item.expired {
            outcome.dead.push(late(item, 0));
        } else if origin == Origin::Log && !item.ready {
            outcome.delay.push(item.place);
        } else if lanes.contains(&item.lane) {
            outcome.park.push((item.place, item.lane.clone()));
        } else {
            send.push(at);
        }
    }
    (send, outcome)
}

pub(super) fn late(item: &Item, attempts: i64) -> Dead {
    Dead {
        place: item.place,
        lane: item.lane.clone(),
        attempts,
        reason: "its time had passed before it could be delivered".to_owned(),
    }
}

/// Whether the answers say that the broker is away, and nothing about the messages.
pub(super) fn is_outage(answers: &[Published]) -> bool {
    !answers.is_empty()
        && answers.iter().all(|answer| matches!(answer, Err(error) if error.kind() == ErrorKind::Unavailable))
}

/// Whether a message is given up after so many attempts, of which the last failed so.
pub(super) fn is_hopeless(error: &Error, attempts: i64, options: &RelayOptions) -> bool {
    error.kind() == ErrorKind::Invalid || attempts >= i64::from(options.max_attempts.max(1))
}

/// Adds to an outcome what the answers to the published ones mean.
pub(super) fn judge(items: &[Item], send: &[usize], answers: Vec<Published>, options: &RelayOptions, to: &mut Outcome) {
    // What happens to later ones of a lane in this batch: none yet, or they are put aside.
    let mut broken: HashSet<&str> = HashSet::new();
    let mut behind = Vec::new();
    for (&at, answer) in send.iter().zip(answers) {
        let item = &items[at];
        let error = match answer {
            Ok(()) => {
                to.sent += 1;
                continue;
            }
            Err(error) => error,
        };
        if broken.contains(item.lane.as_str()) {
            behind.push((item.place, item.lane.clone()));
            continue;
        }
        let text = reason(&error);
        let hopeless = is_hopeless(&error, 1, options);
        if hopeless {
            to.dead.push(Dead { place: item.place, lane: item.lane.clone(), attempts: 1, reason: text.clone() });
        } else {
            behind.push((item.place, item.lane.clone()));
        }
        let wait = match (hopeless, options.after_dead) {
            (false, _) => Some(backoff(1, options)),
            // Those behind it are tried soon; the lane is given back when it is empty.
            (true, AfterDead::GoOn) => Some(Duration::ZERO),
            (true, AfterDead::Wait) => None,
        };
        if !hopeless || item.message.key.is_some() {
            broken.insert(&item.lane);
            to.keys.push(Parked {
                lane: item.lane.clone(),
                key: item.message.key.as_deref().map(str::to_owned),
                attempts: i64::from(!hopeless),
                wait,
                error: text,
            });
        }
    }
    to.park.extend(behind);
    // In the order in which they lay.
    let order: HashMap<_, _> = items.iter().enumerate().map(|(nr, item)| (item.place, nr)).collect();
    to.park.sort_by_key(|(place, _)| order.get(place).copied());
}

/// How long a key waits after so many attempts.
pub(super) fn backoff(attempts: i64, options: &RelayOptions) -> Duration {
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    pgfleet_postgres::retry::backoff(attempts, options.backoff.0, options.backoff.1)
}

/// Writes what is not plain of an outcome, within the transaction of its step.
pub(super) async fn write(db: &Pooled, sql: &Sql, origin: Origin, outcome: &Outcome, due: i64) -> Result<(), Error> {
    let doing = |error| failed("cannot put messages of the outbox aside", error);
    if !outcome.delay.is_empty() {
        let (xids, seqs) = places(outcome.delay.iter().copied());
        db.execute(&sql.delay, &[&xids, &seqs, &due]).await.map_err(doing)?;
    }
    if !outcome.dead.is_empty() {
        let (first, second) = places(outcome.dead.iter().map(|dead| dead.place));
        let lanes: Vec<_> = outcome.dead.iter().map(|dead| dead.lane.as_str()).collect();
        let reasons: Vec<_> = outcome.dead.iter().map(|dead| dead.reason.as_str()).collect();
        let attempts: Vec<_> = outcome.dead.iter().map(|dead| dead.attempts).collect();
        let text = if origin == Origin::Log { &sql.bury } else { &sql.bury_delayed };
        db.execute(text, &[&first, &second, &lanes, &reasons, &attempts]).await.map_err(doing)?;
    }
    if !outcome.park.is_empty() {
        let (first, second) = places(outcome.park.iter().map(|(place, _)| *place));
        let lanes: Vec<_> = outcome.park.iter().map(|(_, lane)| lane.as_str()).collect();
        let text = if origin == Origin::Log { &sql.park } else { &sql.park_delayed };
        db.execute(text, &[&first, &second, &lanes]).await.map_err(doing)?;
    }
    park_keys(db, sql, &outcome.keys).await
}

/// Puts keys aside.
pub(super) async fn park_keys(db: &Pooled, sql: &Sql, keys: &[Parked]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let lanes: Vec<_> = keys.iter().map(|key| key.lane.as_str()).collect();
    let names: Vec<_> = keys.iter().map(|key| key.key.as_deref()).collect();
    let attempts: Vec<_> = keys.iter().map(|key| key.attempts).collect();
    let waits: Vec<_> = keys.iter().map(|key| micros(key.wait)).collect();
    let errors: Vec<_> = keys.iter().map(|key| key.error.as_str()).collect();
    db.execute(&sql.park_key, &[&lanes, &names, &attempts, &waits, &errors])
        .await
        .map_err(|error| failed("cannot put keys of the outbox aside", error))?;
    Ok(())
}

/// A wait as the statements take it: below zero for none.
pub(super) fn micros(wait: Option<Duration>) -> i64 {
    wait.map_or(-1, |wait| i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn places(of: impl Iterator<Item = (i64, i64)>) -> (Vec<i64>, Vec<i64>) {
    of.unzip()
}
