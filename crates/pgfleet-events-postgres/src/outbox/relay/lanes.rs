//! What becomes of keys that are tried again.

use std::time::Duration;

use pgfleet_events::{Error, Published};
use pgfleet_postgres::pool::Pooled;

use crate::carried::reason;
use crate::error::failed;
use crate::outbox::options::{AfterDead, RelayOptions};
use crate::outbox::row::Item;
use crate::outbox::settle::{Dead, backoff, is_hopeless, late, micros};
use crate::outbox::sql::Sql;

/// How many messages of a lane are tried at once.
pub(super) const OF_A_LANE: i64 = 100;

/// What becomes of lanes that were tried again.
#[derive(Default)]
pub(super) struct LaneChange {
    pub(super) sent: Vec<(String, i64)>,
    pub(super) dead: Vec<Dead>,
    /// Lanes in which nothing is left.
    pub(super) released: Vec<String>,
    /// Lane, attempts, wait, error.
    kept: Vec<(String, i64, Option<Duration>, Option<String>)>,
}

impl LaneChange {
    /// Judges one lane's messages; the answers are of those that were published, in order.
    pub(super) fn lane(
        &mut self,
        lane: &str,
        attempts: i64,
        found: &[Item],
        answers: &mut impl Iterator<Item = Published>,
        options: &RelayOptions,
    ) {
        let full = found.len() >= usize::try_from(OF_A_LANE).unwrap_or(usize::MAX);
        let mut failed: Option<(Error, i64)> = None;
        let mut tries = attempts;
        let mut stays = full;
        for item in found {
            if item.expired {
                if failed.is_none() {
                    tries = 0;
                }
                self.dead.push(late(item, attempts));
                continue;
            }
            match answers.next() {
                Some(Ok(())) => {
                    self.sent.push((lane.to_owned(), item.place.1));
                    if failed.is_none() {
                        tries = 0;
                    }
                }
                Some(Err(error)) if failed.is_none() => {
                    let now = tries + 1;
                    if is_hopeless(&error, now, options) {
                        self.dead.push(Dead {
                            place: item.place,
                            lane: lane.to_owned(),
                            attempts: now,
                            reason: reason(&error),
                        });
                        failed = Some((error, 0));
                        stays |= lane.starts_with('k') && options.after_dead == AfterDead::Wait;
                    } else {
                        failed = Some((error, now));
                        stays = true;
                    }
                }
                // Behind one that failed; or not answered for, which is the same.
                Some(Err(_)) | None => stays = true,
            }
        }
        match failed {
            _ if !stays => self.released.push(lane.to_owned()),
            None => self.kept.push((lane.to_owned(), 0, Some(Duration::ZERO), None)),
            Some((error, now)) => {
                let wait = match (now, options.after_dead) {
                    (0, AfterDead::Wait) => None,
                    (0, AfterDead::GoOn) => Some(Duration::ZERO),
                    _ => Some(backoff(now, options)),
                };
                self.kept.push((lane.to_owned(), now, wait, Some(reason(&error))));
            }
        }
    }

    pub(super) async fn write(&self, tx: &Pooled, sql: &Sql) -> Result<(), Error> {
        let doing = |error| failed("cannot store what became of messages that were put aside", error);
        if !self.sent.is_empty() {
            let lanes: Vec<_> = self.sent.iter().map(|(lane, _)| lane.as_str()).collect();
            let ords: Vec<_> = self.sent.iter().map(|(_, ord)| *ord).collect();
            tx.execute(&sql.unpark, &[&lanes, &ords]).await.map_err(doing)?;
        }
        if !self.dead.is_empty() {
            let lanes: Vec<_> = self.dead.iter().map(|dead| dead.lane.as_str()).collect();
            let ords: Vec<_> = self.dead.iter().map(|dead| dead.place.1).collect();
            let reasons: Vec<_> = self.dead.iter().map(|dead| dead.reason.as_str()).collect();
            let attempts: Vec<_> = self.dead.iter().map(|dead| dead.attempts).collect();
            tx.execute(&sql.bury_parked, &[&lanes, &ords, &reasons, &attempts]).await.map_err(doing)?;
        }
        if !self.released.is_empty() {
            tx.execute(&sql.release_key, &[&self.released]).await.map_err(doing)?;
        }
        if !self.kept.is_empty() {
            let lanes: Vec<_> = self.kept.iter().map(|(lane, ..)| lane.as_str()).collect();
            let attempts: Vec<_> = self.kept.iter().map(|(_, attempts, ..)| *attempts).collect();
            let waits: Vec<_> = self.kept.iter().map(|(_, _, wait, _)| micros(*wait)).collect();
            let errors: Vec<_> = self.kept.iter().map(|(.., error)| error.as_deref()).collect();
            tx.execute(&sql.retry_key, &[&lanes, &attempts, &waits, &errors]).await.map_err(doing)?;
        }
        Ok(())
    }
}
