//! Looking: what the histories say, and what may be done about it.

use pgfleet_postgres::Connection;

use super::units::difference;
use super::{Run, Verb};

use crate::error::{Error, ErrorKind};
use crate::history::Row;
use crate::options::Options;
use crate::path::PathPlan;
use crate::plan::{State, Step};
use crate::set::Set;
use crate::store;
use crate::target::Target;
use crate::unit::Action;

/// What one look led to.
pub(super) struct Looked {
    pub(super) plan: PathPlan,
    /// Seeds to run: the number of the set, and of the seed in it.
    pub(super) seeds: Vec<(usize, usize)>,
    /// For each set the rows of its history.
    pub(super) rows: Vec<Vec<Row>>,
    pub(super) has_history: Vec<bool>,
    pub(super) there: Vec<store::There>,
}

impl Looked {
    pub(super) fn is_empty(&self) -> bool {
        self.plan.is_empty() && self.seeds.is_empty()
    }
}

impl Run<'_> {
    /// Makes the schemas and tables that the run writes to.
    pub(super) async fn make_room(&self, connection: &Connection, looked: &Looked) -> Result<(), Error> {
        if !looked.has_history[self.path.sets().len() - 1] {
            refuse_other_history(connection, self.target, self.path.own(), self.verb.word()).await?;
        }
        for (at, set) in self.path.sets().iter().enumerate() {
            let seeds = looked.seeds.iter().any(|(of, _)| *of == at);
            if looked.plan.plans[at].is_empty() && !seeds {
                continue;
            }
            if !looked.has_history[at]
                && let Some(schema) = set.schema.as_ref().or(self.target.schema.as_ref())
            {
                store::ensure_schema(connection, schema).await.map_err(|error| {
                    Error::connection(format!("cannot make the schema {schema} in {}", self.target.name), error)
                })?;
            }
            let attempts = any_without_transaction(set, &looked.plan.plans[at].steps);
            let backfills = any_backfill(set, &looked.plan.plans[at].steps);
            let shared = self.target.guest().is_some();
            let beside =
                store::Beside { seeds: seeds && !shared, seeds_by_tenant: seeds && shared, attempts, backfills };
            if looked.there[at].suffices(&set.history, beside) {
                continue;
            }
            store::ensure(connection, &set.history, beside).await.map_err(|error| {
                Error::connection(format!("cannot make the history in {}", self.target.name), error)
            })?;
        }
        Ok(())
    }

    pub(super) async fn look(&self, connection: &Connection) -> Result<Looked, Error> {
        let failed = |error| Error::connection(format!("cannot read the history of {}", self.target.name), error);
        let record = self.target.guest().map_or(store::Record::Whole, store::Record::Guest);
        let record = (!self.options.always_seed).then_some(record);
        let looks = store::look_all(connection, self.path, record).await.map_err(failed)?;
        Ok(self.looked(looks))
    }

    /// Makes the plan of what was found.
    pub(super) fn looked(&self, looks: Vec<store::Look>) -> Looked {
        let mut rows = Vec::with_capacity(looks.len());
        let mut has_history = Vec::with_capacity(looks.len());
        let mut there = Vec::with_capacity(looks.len());
        let mut seeds = Vec::new();
        for (at, look) in looks.into_iter().enumerate() {
            let set = &self.path.sets()[at];
            has_history.push(look.rows.is_some());
            there.push(look.there);
            rows.push(look.rows.unwrap_or_default());
            let chosen = self.options.set.as_ref().is_none_or(|chosen| *chosen == set.name);
            // Seeds need the schema of the newest version: a run that stops below it runs none.
            if chosen && self.options.to.is_none() {
                let pending = set.seeds.pending(&look.seeds, self.options.always_seed, self.target.guest().is_some());
                seeds.extend(pending.into_iter().map(|seed| (at, seed)));
            }
        }
        let plan = PathPlan::new(self.path, &rows, self.options);
        Looked { plan, seeds, rows, has_history, there }
    }

    /// What the histories hold when all that was planned is applied, as far as announcing needs it.
    pub(super) fn rows_after(&self, looked: &Looked) -> Vec<Vec<Row>> {
        let mut rows = looked.rows.clone();
        for &(at, step) in &looked.plan.order {
            let set = &self.path.sets()[at];
            let version = match step {
                Step::Migration(index) => set.migrations[index].version.to_string(),
                Step::Repeatable(index) => {
                    let version = format!("R__{}", set.repeatables[index].description);
                    rows[at].retain(|row| row.version != version);
                    version
                }
            };
            rows[at].push(Row { version, run: self.id.clone(), ..Row::default() });
        }
        rows
    }

    /// Applies the user's choices to what was found, and brings it into its order.
    pub(super) fn check_plans(&self, looked: &mut Looked) -> Result<(), Error> {
        let sentence = format!("cannot {} {}", self.verb.word(), self.target.name);
        self.path.chosen(self.options.set.as_deref(), &sentence)?;
        for (at, set) in self.path.sets().iter().enumerate() {
            let bounded = self.options.set.as_ref().map_or(at + 1 == self.path.sets().len(), |name| *name == set.name);
            if bounded || self.options.to.is_none() {
                looked.plan.plans[at].check(set, &self.target.name, self.options)?;
            } else {
                let unbounded = Options { to: None, ..self.options.clone() };
                looked.plan.plans[at].check(set, &self.target.name, &unbounded)?;
            }
        }
        looked.plan.put_in_order(self.path, &looked.rows, &self.target.name)?;
        if self.verb == Verb::Seed && !looked.plan.is_empty() {
            let pending = looked.plan.pending(self.path);
            let count = match pending.as_slice() {
                [one] => format!("the migration {one} is pending"),
                [first, ..] => format!("{} migrations are pending, {first} first", pending.len()),
                [] => "a migration is pending".to_owned(),
            };
            return Err(Error::new(ErrorKind::Findings, sentence)
                .cause(count)
                .hinted("pgfleet migrate applies them and seeds"));
        }
        Ok(())
    }

    /// Applies the user's choices to what was found, and shows what was edited.
    pub(super) async fn check(&self, connection: &Connection, looked: &mut Looked) -> Result<(), Error> {
        let Err(mut error) = self.check_plans(looked) else { return Ok(()) };
        for (at, set) in self.path.sets().iter().enumerate() {
            for entry in looked.plan.plans[at].entries.iter().filter(|entry| entry.state == State::Edited) {
                let Ok(version) = set.layout.version(&entry.version) else { continue };
                let Some(migration) = set.find(&version) else { continue };
                // The difference is a help; without it the error stands as it is.
                let recorded = entry.recorded.as_deref().unwrap_or(&entry.version);
                if let Ok(Some((applied, _))) = store::texts(connection, &set.history, recorded).await {
                    error = error.cause(difference(&applied, &migration.up.text));
                }
            }
        }
        Err(error)
    }

    /// Returns which of the pending migrations without a transaction stopped in the middle: the
    /// set, the version and the statement.
    pub(super) async fn interrupted(
        &self,
        connection: &Connection,
        looked: &Looked,
    ) -> Result<Vec<(usize, String, i32)>, Error> {
        let mut found = Vec::new();
        for (at, set) in self.path.sets().iter().enumerate() {
            if !looked.has_history[at] || !any_without_transaction(set, &looked.plan.plans[at].steps) {
                continue;
            }
            let stopped = store::interrupted(connection, &set.history).await.map_err(|error| {
                Error::connection(format!("cannot read the attempts in {}", self.target.name), error)
            })?;
            found.extend(stopped.into_iter().map(|(version, statement)| (at, version, statement)));
        }
        Ok(found)
    }

    /// Notes where unfinished backfills stand.
    pub(super) async fn note_backfills(&self, connection: &Connection, looked: &mut Looked) -> Result<(), Error> {
        for (at, set) in self.path.sets().iter().enumerate() {
            let plan = &mut looked.plan.plans[at];
            if !looked.has_history[at] || !any_backfill(set, &plan.steps) {
                continue;
            }
            let standing = store::standing(connection, &set.history).await.map_err(|error| {
                Error::connection(format!("cannot read where backfills stand in {}", self.target.name), error)
            })?;
            plan.notes.extend(standing.iter().map(|standing| {
                format!(
                    "{}: {} rows in {} batches are done; the next run goes on behind them",
                    self.path.label(at, &standing.version),
                    standing.rows,
                    standing.batches
                )
            }));
        }
        Ok(())
    }

    /// Takes the lock; returns what was found when another run did the work while we waited.
    pub(super) async fn lock(&self, connection: &Connection) -> Result<Option<Looked>, Error> {
        crate::lock::acquire(connection, self.target, self.options, self.observer, || async {
            let looked = self.look(connection).await?;
            let entries = || looked.plan.plans.iter().flat_map(|plan| &plan.entries);
            let unsettled =
                entries().any(|entry| matches!(entry.state, State::Edited | State::OutOfOrder | State::Missing));
            let enough = self.options.enough.as_ref().is_some_and(|enough| {
                looked.rows.last().is_some_and(|rows| {
                    rows.iter().any(|row| row.parsed(self.path.own().layout).as_ref() == Some(enough))
                })
            });
            let done = enough || (looked.is_empty() && !unsettled);
            Ok(done.then_some(looked))
        })
        .await
    }
}

/// The newest version of a set when its steps are applied.
pub(super) fn newest_after(set: &Set, looked: &Looked, at: usize) -> Option<String> {
    let plan = &looked.plan.plans[at];
    let newest = plan.steps.iter().rev().find_map(|step| match step {
        Step::Migration(index) => Some(set.migrations[*index].version.clone()),
        Step::Repeatable(_) => None,
    });
    // An out-of-order migration does not lower the version.
    let before = plan.current.as_ref().and_then(|current| set.layout.version(current).ok());
    newest.max(before).map(|version| version.to_string())
}

/// Whether a step has no transaction, and so needs a journal.
pub(super) fn any_without_transaction(set: &Set, steps: &[Step]) -> bool {
    steps.iter().any(|step| match *step {
        Step::Migration(index) => set.migrations[index].annotations.no_transaction,
        Step::Repeatable(index) => set.repeatables[index].annotations.no_transaction,
    })
}

/// Whether a step works in batches, and so keeps where it stands.
pub(super) fn any_backfill(set: &Set, steps: &[Step]) -> bool {
    steps.iter().any(|step| match *step {
        Step::Migration(index) => set.code_of(&set.migrations[index]).is_some_and(crate::code::Code::is_backfill),
        Step::Repeatable(_) => false,
    })
}

/// Refuses to begin a second history by accident: with no set named and another set's history in
/// the database, what is pending here is most likely applied there.
pub(crate) async fn refuse_other_history(
    connection: &Connection,
    target: &Target,
    set: &Set,
    verb: &str,
) -> Result<(), Error> {
    if set.named {
        return Ok(());
    }
    let failed = |error| Error::connection(format!("cannot read the histories in {}", target.name), error);
    let known = store::histories(connection).await.map_err(failed)?;
    let Some(first) = known.first() else { return Ok(()) };
    Err(Error::new(ErrorKind::Findings, format!("cannot {verb} {}: which set is meant?", target.name))
        .cause(format!("the database has the history of {}", known.join(", ")))
        .hinted(format!("say `--set {first}`, or `--set {}` for a set of its own", set.name)))
}

/// The error about a file without a transaction that an earlier run left half done.
pub(crate) fn stopped_in_the_middle(
    action: Action,
    label: &str,
    version: &str,
    target: &Target,
    set: &Set,
    statement: i32,
) -> Error {
    Error::new(ErrorKind::Interrupted, action.sentence(label, &target.name))
        .cause(format!("it has no transaction and stopped at statement {statement}; pgfleet.attempts has the error"))
        .hinted(crate::repair::mend(version, &target.name, &set.name))
}

/// Returns the options under which a run only looks: what would stop it is in the report.
pub fn looking(options: &Options) -> Options {
    Options { look_only: true, ..options.clone() }
}
