//! The end of a run: what is flushed, announced and reported.

use std::time::Instant;

use pgfleet_postgres::Connection;

use super::Run;
use super::look::Looked;

use crate::announce::{Due, What};
use crate::error::Error;
use crate::history::Row;
use crate::options::Durability;
use crate::path::{PathPlan, SetPath};
use crate::report::{Outcome, Report, SetReport};
use crate::set::Set;
use crate::{announce, store};

impl Run<'_> {
    /// Reports what a run would do, or what would stop it.
    pub(super) async fn only_looked(
        &self,
        connection: &Connection,
        mut looked: Looked,
        created: bool,
        began: Instant,
    ) -> Result<Report, Error> {
        let mut blocked = None;
        if self.options.dry_run {
            self.check(connection, &mut looked).await?;
            self.units(&looked, &[])?;
        } else {
            // A look tells what would stop a run instead of stopping.
            blocked =
                self.check_plans(&mut looked).err().map(|error| format!("{error}: {}", error.causes().join(", ")));
            for (at, set, stopped) in self.interrupted(connection, &looked).await? {
                looked.plan.plans[at].mark_interrupted(&[(set, stopped)]);
            }
            self.note_backfills(connection, &mut looked).await?;
        }
        let outcome = if looked.is_empty() { Outcome::UpToDate } else { Outcome::Pending };
        let mut report = self.report(outcome, &looked, created, began);
        report.entries = entries(self.path, looked.plan);
        report.blocked = blocked;
        Ok(report)
    }

    /// Ends a run whose work another did while it waited.
    pub(super) async fn done_by_another(
        &self,
        connection: &Connection,
        looked: &Looked,
        created: bool,
        began: Instant,
    ) -> Result<Report, Error> {
        self.flush(connection).await?;
        let mut report = self.report(Outcome::DoneByAnother, looked, created, began);
        // The other one announces what it did.
        if self.forced().is_some() {
            self.announce(connection, &looked.rows, None, &mut report).await;
        }
        Ok(report)
    }

    /// Puts on disk what another run committed, before this one says that it is there.
    pub(super) async fn flush(&self, connection: &Connection) -> Result<(), Error> {
        if self.options.durability == Durability::Each {
            return Ok(());
        }
        let failed = |error| Error::connection(format!("cannot {} {}", self.verb.word(), self.target.name), error);
        store::flush(connection).await.map_err(failed)
    }

    /// The run's id, when it is announced whatever it did.
    pub(super) fn forced(&self) -> Option<&str> {
        self.options.always_seed.then_some(self.id.as_str())
    }

    /// Whether there is something to tell where a look found nothing to do.
    pub(super) fn has_to_announce(&self, rows: &[Vec<Row>]) -> bool {
        let left = self.target.guest().is_none() && announce::is_due(rows, Due::Unstamped);
        self.options.announcer.is_some() && (left || self.forced().is_some())
    }

    /// Tells what is on disk to whom it concerns; failing to is no failure of the run.
    pub(super) async fn announce(
        &self,
        connection: &Connection,
        rows: &[Vec<Row>],
        due: Option<Due<'_>>,
        report: &mut Report,
    ) {
        let Some(announcer) = &self.options.announcer else { return };
        // What was applied to a database that tenants share is the host's to tell.
        let due = due.filter(|_| self.target.guest().is_none());
        let what = What { rows, due, forced: self.forced(), known: self.target.known.as_ref() };
        if let Err(error) = announce::announce(announcer, connection, &self.target.name, self.path, what).await {
            report.notes.push(format!("the run is not announced yet, the next one tries again: {error}"));
        }
    }

    /// What was applied under this run's id before: by a process that was cut off.
    pub(super) fn earlier(&self, looked: &Looked) -> Vec<String> {
        if self.options.run.is_none() {
            return Vec::new();
        }
        let mut labels = Vec::new();
        for (at, rows) in looked.rows.iter().enumerate() {
            let layout = self.path.sets()[at].layout;
            let mut rows: Vec<_> = rows.iter().filter(|row| row.run == self.id).collect();
            rows.sort_by_key(|row| (row.is_repeatable(), row.parsed(layout)));
            labels.extend(rows.iter().map(|row| {
                let label = if row.is_repeatable() { row.version.clone() } else { crate::revert::label(row) };
                self.path.label(at, &label)
            }));
        }
        labels
    }

    /// The newest version of a set without what was applied under this run's id.
    pub(super) fn before(&self, looked: &Looked, at: usize) -> Option<String> {
        let layout = self.path.sets()[at].layout;
        let others = looked.rows[at].iter().filter(|row| row.run != self.id);
        others.filter_map(|row| row.parsed(layout)).max().map(|version| version.to_string())
    }

    pub(super) fn report(&self, outcome: Outcome, looked: &Looked, created: bool, began: Instant) -> Report {
        let plans = &looked.plan.plans;
        let current = plans.last().and_then(|plan| plan.current.clone());
        let sets = self.path.sets();
        let earlier = self.earlier(looked);
        let from = |at: usize| if earlier.is_empty() { plans[at].current.clone() } else { self.before(looked, at) };
        let of_set = |(at, set): (usize, &Set)| SetReport {
            set: set.name.clone(),
            from: from(at),
            to: plans[at].current.clone(),
        };
        Report {
            target: self.target.name.clone(),
            set: self.path.own().name.clone(),
            outcome,
            from: from(sets.len() - 1),
            to: current,
            sets: if sets.len() > 1 { sets.iter().enumerate().map(of_set).collect() } else { Vec::new() },
            applied: earlier,
            seeded: Vec::new(),
            pending: looked.plan.pending(self.path),
            pending_seeds: looked
                .seeds
                .iter()
                .map(|&(at, seed)| self.path.label(at, &sets[at].seeds.files[seed].name))
                .collect(),
            notes: plans.iter().flat_map(|plan| plan.notes.iter().cloned()).collect(),
            blocked: None,
            created,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            entries: Vec::new(),
        }
    }
}

/// Every migration of every set with its state.
pub(super) fn entries(path: &SetPath, plan: PathPlan) -> Vec<crate::plan::Entry> {
    let own = path.sets().len() - 1;
    let mut all = Vec::new();
    for (at, plan) in plan.plans.into_iter().enumerate() {
        all.extend(plan.entries.into_iter().map(|mut entry| {
            entry.set = (at != own).then(|| path.sets()[at].name.clone());
            entry
        }));
    }
    all
}
