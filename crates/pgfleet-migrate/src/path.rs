//! The sets of one service in one database, and the order of their migrations.
//!
//! The order is that of the sets, and in each set that of the versions, except where a file says
//! `requires set@version`: then what is required comes first.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pgfleet_sql::annotation::Requirement;
use pgfleet_sql::version::Version;

use crate::error::{Error, ErrorKind};
use crate::history::Row;
use crate::options::Options;
use crate::plan::{Plan, Step};
use crate::seed::TENANT;
use crate::set::{Set, place};

/// A service's sets: those of its modules in their order, then its own.
#[derive(Debug, Clone)]
pub struct SetPath {
    sets: Vec<Set>,
}

impl From<Set> for SetPath {
    /// A path of one set. That a file of it requires something that is not there is found when
    /// the run is planned.
    fn from(set: Set) -> Self {
        Self { sets: vec![set] }
    }
}

impl SetPath {
    /// Makes a path of the modules' sets and the service's own, which comes last.
    ///
    /// # Errors
    ///
    /// Two sets of one name or with one history; a requirement that no set of the path can
    /// fulfil; requirements that go round in a circle. Each names the files.
    pub fn new(modules: Vec<Set>, own: Set) -> Result<Self, Error> {
        let path = Self::incomplete(modules, own);
        path.check()?;
        Ok(path)
    }

    /// Checks what was made with [`incomplete`](Self::incomplete) as if it were all there is.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn check(&self) -> Result<(), Error> {
        let sets = &self.sets;
        for (at, set) in sets.iter().enumerate() {
            let twice =
                |cause: String| Error::new(ErrorKind::Files, format!("cannot use the set {}", set.name)).cause(cause);
            if let Some(other) = sets[..at].iter().find(|other| other.name == set.name) {
                return Err(twice(format!("two sets of the path are called {}", other.name)));
            }
            if let Some(other) = sets[..at].iter().find(|other| other.history.quoted() == set.history.quoted()) {
                return Err(twice(format!("{} has the same history, {}", other.name, set.history.quoted()))
                    .hinted("give one of them another: history = \"schema.table\""));
            }
        }
        self.ordered(&self.everything(), &vec![Vec::new(); sets.len()], None)?;
        Ok(())
    }

    /// Makes a path whose sets lack what only the service's program has; nothing is looked at, which
    /// is done when the rest is put in.
    pub fn incomplete(modules: Vec<Set>, own: Set) -> Self {
        let mut sets = modules;
        sets.push(own);
        Self { sets }
    }

    /// Returns the sets in their order.
    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// Returns the sets for changing their seeds, schemas or placeholders.
    pub fn sets_mut(&mut self) -> &mut [Set] {
        &mut self.sets
    }

    /// Returns a copy in which a tenant's own values are laid over the properties of the seeds.
    ///
    /// The copy shares the texts. What uses one of these properties depends on the tenant from here
    /// on: it is what runs for a tenant that has no database of its own.
    #[must_use]
    pub fn with_properties(&self, values: &BTreeMap<String, String>) -> Self {
        self.laid_over(values, |_| true)
    }

    /// Returns a copy with values laid over the properties; `own` says which are the tenant's own.
    pub(crate) fn laid_over(&self, values: &BTreeMap<String, String>, own: impl Fn(&str) -> bool) -> Self {
        let mut path = self.clone();
        for set in &mut path.sets {
            set.seeds.lay_over(values, &own);
        }
        path
    }

    /// Binds the property that says for which tenant a run is.
    pub(crate) fn bound_to(&self, tenant: Option<&str>) -> Cow<'_, Self> {
        let tenant = tenant.unwrap_or_default();
        let is_bound = |set: &Set| {
            set.seeds.files.is_empty() || set.seeds.properties.get(TENANT).is_some_and(|bound| bound == tenant)
        };
        if self.sets.iter().all(is_bound) {
            return Cow::Borrowed(self);
        }
        Cow::Owned(self.laid_over(&BTreeMap::from([(TENANT.to_owned(), tenant.to_owned())]), |_| false))
    }

    /// Returns the service's own set.
    pub fn own(&self) -> &Set {
        // A path is never empty: both ways to make one put a set into it.
        &self.sets[self.sets.len() - 1]
    }

    /// Finds a set by its name.
    pub fn find(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// Returns the set of that name, the service's own when none is given.
    ///
    /// # Errors
    ///
    /// A name that no set of the path has; `sentence` is what cannot be done.
    pub fn chosen(&self, name: Option<&str>, sentence: &str) -> Result<&Set, Error> {
        let Some(name) = name else { return Ok(self.own()) };
        self.find(name).ok_or_else(|| {
            Error::new(ErrorKind::Findings, sentence)
                .cause(format!("its path has no set {name}"))
                .hinted(format!("the path has {}", self.names()))
        })
    }

    /// Returns whether something in it is code that only the service's program has.
    pub fn needs_program(&self) -> bool {
        self.sets.iter().any(Set::needs_program)
    }

    /// Returns what a message calls a migration: that of another set than the own with its set.
    pub(crate) fn label(&self, set: usize, label: &str) -> String {
        if set + 1 == self.sets.len() { label.to_owned() } else { format!("{}/{label}", self.sets[set].name) }
    }

    /// Returns the text of a migration or repeatable by its label in reports.
    pub fn text_of(&self, label: &str) -> Option<&str> {
        self.sets.iter().enumerate().find_map(|(at, set)| {
            let migration = set.migrations.iter().find(|migration| self.label(at, &migration.label()) == label);
            let repeatable = || {
                let named = |description: &str| self.label(at, &format!("R__{description}")) == label;
                set.repeatables.iter().find(|repeatable| named(&repeatable.description))
            };
            migration
                .map(|migration| migration.up.text.as_str())
                .or_else(|| repeatable().map(|repeatable| repeatable.script.text.as_str()))
        })
    }

    /// All steps of all sets.
    fn everything(&self) -> Vec<Vec<Step>> {
        let steps = |set: &Set| {
            let migrations = (0..set.migrations.len()).map(Step::Migration);
            migrations.chain((0..set.repeatables.len()).map(Step::Repeatable)).collect()
        };
        self.sets.iter().map(steps).collect()
    }

    /// Brings the steps of the sets into one order.
    ///
    /// `applied`: for each set the versions that are there already.
    ///
    /// # Errors
    ///
    /// A step whose requirement is neither applied nor among the steps, or requirements that go
    /// round in a circle.
    pub(crate) fn ordered(
        &self,
        steps: &[Vec<Step>],
        applied: &[Vec<Version>],
        target: Option<&str>,
    ) -> Result<Vec<(usize, Step)>, Error> {
        let count = steps.iter().map(Vec::len).sum();
        let mut order = Vec::with_capacity(count);
        let mut next = vec![0; steps.len()];
        while order.len() < count {
            // The first set whose next step may run; where nothing is required that is the order
            // of the sets.
            let ready = (0..steps.len()).find(|&set| {
                steps[set].get(next[set]).is_some_and(|step| {
                    self.requirements(set, *step)
                        .iter()
                        .all(|wanted| self.is_met(wanted, steps, &next, applied) == Met::Yes)
                })
            });
            let Some(set) = ready else { return Err(self.stuck(steps, &next, applied, target)) };
            order.push((set, steps[set][next[set]]));
            next[set] += 1;
        }
        Ok(order)
    }

    fn requirements(&self, set: usize, step: Step) -> &[Requirement] {
        match step {
            Step::Migration(index) => &self.sets[set].migrations[index].annotations.requires,
            Step::Repeatable(index) => &self.sets[set].repeatables[index].annotations.requires,
        }
    }

    fn is_met(&self, wanted: &Requirement, steps: &[Vec<Step>], next: &[usize], applied: &[Vec<Version>]) -> Met {
        let Some(set) = self.sets.iter().position(|set| set.name == wanted.set) else { return Met::NoSet };
        let Ok(version) = self.sets[set].layout.version(&wanted.version) else { return Met::NoVersion };
        if applied[set].contains(&version) {
            return Met::Yes;
        }
        let Some(index) = self.sets[set].migrations.iter().position(|migration| migration.version == version) else {
            return Met::NoVersion;
        };
        match steps[set].iter().position(|step| *step == Step::Migration(index)) {
            Some(at) if at < next[set] => Met::Yes,
            Some(_) => Met::Later,
            None => Met::LeftOut,
        }
    }

    /// Says why no step can be next.
    fn stuck(&self, steps: &[Vec<Step>], next: &[usize], applied: &[Vec<Version>], target: Option<&str>) -> Error {
        let mut waiting = Vec::new();
        for set in 0..steps.len() {
            let Some(step) = steps[set].get(next[set]) else { continue };
            let label = self.label(set, &self.step_label(set, *step));
            for wanted in self.requirements(set, *step) {
                let met = self.is_met(wanted, steps, next, applied);
                let name = format!("{}@{}", wanted.set, wanted.version);
                let (cause, hint) = match met {
                    Met::Yes => continue,
                    Met::Later => {
                        waiting.push(format!("{label} requires {name}"));
                        continue;
                    }
                    Met::NoSet => (
                        format!("it requires {name}, which is not in this path"),
                        format!("the path has {}", self.names()),
                    ),
                    Met::NoVersion => (
                        format!("it requires {name}, and {} has no such migration", wanted.set),
                        "name a version that is there".to_owned(),
                    ),
                    Met::LeftOut => (
                        format!("it requires {name}, which this run leaves out"),
                        "run without --to and --set, or apply that one first".to_owned(),
                    ),
                };
                return self.refused(&label, target).cause(cause).hinted(hint).at(self.place(set, *step));
            }
        }
        let (set, step) = (0..steps.len())
            .find_map(|set| steps[set].get(next[set]).map(|step| (set, *step)))
            .unwrap_or((0, Step::Migration(0)));
        let label = self.label(set, &self.step_label(set, step));
        let mut error = self.refused(&label, target).cause("requirements go round in a circle");
        for line in waiting {
            error = error.cause(line);
        }
        error.hinted("take one of the requirements away").at(self.place(set, step))
    }

    fn refused(&self, label: &str, target: Option<&str>) -> Error {
        Error::new(
            ErrorKind::Files,
            match target {
                Some(target) => format!("cannot apply {label} to {target}"),
                None => format!("cannot bring {label} into an order with the other sets of {}", self.own().name),
            },
        )
    }

    fn names(&self) -> String {
        self.sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn step_label(&self, set: usize, step: Step) -> String {
        match step {
            Step::Migration(index) => self.sets[set].migrations[index].label(),
            Step::Repeatable(index) => format!("R__{}", self.sets[set].repeatables[index].description),
        }
    }

    fn place(&self, set: usize, step: Step) -> crate::error::Place {
        match step {
            Step::Migration(index) => place(&self.sets[set].migrations[index].up, 0),
            Step::Repeatable(index) => place(&self.sets[set].repeatables[index].script, 0),
        }
    }
}

fn versions(set: &Set, rows: &[Row]) -> Vec<Version> {
    rows.iter().filter_map(|row| row.parsed(set.layout)).collect()
}

/// Whether a requirement is fulfilled.
#[derive(PartialEq, Eq)]
enum Met {
    Yes,
    /// By a step that has not had its turn.
    Later,
    /// It could be by a migration that this run does not apply.
    LeftOut,
    NoVersion,
    NoSet,
}

/// What is to be done in one target, over all sets.
#[derive(Debug, Clone)]
pub struct PathPlan {
    /// For each set of the path what is to be done.
    pub plans: Vec<Plan>,
    /// Steps of the sets, by their number in the path, in the order in which they run.
    pub(crate) order: Vec<(usize, Step)>,
}

impl PathPlan {
    /// Compares each set with its history; pure.
    pub(crate) fn new(path: &SetPath, rows: &[Vec<Row>], options: &Options) -> Self {
        let chosen = options.set.as_deref();
        let mut plans = Vec::with_capacity(path.sets.len());
        for (at, (set, rows)) in path.sets.iter().zip(rows).enumerate() {
            let is_own = at + 1 == path.sets.len();
            let bounded = chosen.map_or(is_own, |chosen| chosen == set.name);
            let mut plan = if bounded || options.to.is_none() {
                Plan::new(set, rows, options)
            } else {
                Plan::new(set, rows, &Options { to: None, ..options.clone() })
            };
            if chosen.is_some_and(|chosen| chosen != set.name) {
                plan.steps.clear();
            }
            plans.push(plan);
        }
        let order = Vec::new();
        Self { plans, order }
    }

    /// Brings the steps into their order; called when they are to be applied, so that a look at a
    /// database never fails by it.
    pub(crate) fn put_in_order(&mut self, path: &SetPath, rows: &[Vec<Row>], target: &str) -> Result<(), Error> {
        let steps: Vec<Vec<Step>> = self.plans.iter().map(|plan| plan.steps.clone()).collect();
        let applied: Vec<Vec<Version>> = path.sets.iter().zip(rows).map(|(set, rows)| versions(set, rows)).collect();
        self.order = path.ordered(&steps, &applied, Some(target))?;
        Ok(())
    }

    /// Returns whether nothing is to be applied.
    pub fn is_empty(&self) -> bool {
        self.plans.iter().all(Plan::is_empty)
    }

    /// Returns the labels of what would be applied.
    pub fn pending(&self, path: &SetPath) -> Vec<String> {
        if !self.order.is_empty() {
            return self.order.iter().map(|&(set, step)| path.label(set, &path.step_label(set, step))).collect();
        }
        let of = |at: usize| {
            let set = &path.sets[at];
            self.plans[at].pending(set).into_iter().map(move |label| path.label(at, &label))
        };
        (0..path.sets.len()).flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pgfleet_sql::annotation::Annotations;
    use pgfleet_sql::layout::{Kind, MigrationFile, Script};
    use proptest::prelude::*;

    use super::*;

    /// A migration by the numbers of its set and of its place in it.
    type Id = (usize, usize);

    fn path_of(sizes: &[usize], requires: &BTreeSet<(Id, Id)>) -> Result<SetPath, Error> {
        let mut sets: Vec<Set> = sizes
            .iter()
            .enumerate()
            .map(|(set, size)| {
                let migration = |at: usize| MigrationFile {
                    version: (at + 1).to_string().parse().unwrap(),
                    description: "m".to_owned(),
                    up: Script::from_text("m.sql", "select 1;".to_owned()),
                    down: None,
                    annotations: Annotations {
                        requires: requires
                            .iter()
                            .filter(|(who, _)| *who == (set, at))
                            .map(|(_, (set, at))| Requirement { set: format!("s{set}"), version: (at + 1).to_string() })
                            .collect(),
                        ..Annotations::default()
                    },
                    down_annotations: Annotations::default(),
                    kind: Kind::Forward,
                };
                Set::from_migrations(format!("s{set}"), (0..*size).map(migration).collect())
            })
            .collect();
        let own = sets.pop().unwrap();
        SetPath::new(sets, own)
    }

    /// Whether an order exists at all: take away what waits for nothing until nothing is left.
    fn has_order(sizes: &[usize], requires: &BTreeSet<(Id, Id)>) -> bool {
        let mut left: BTreeSet<Id> =
            sizes.iter().enumerate().flat_map(|(set, size)| (0..*size).map(move |at| (set, at))).collect();
        loop {
            let free: Vec<Id> = left
                .iter()
                .filter(|(set, at)| *at == 0 || !left.contains(&(*set, at - 1)))
                .filter(|id| !requires.iter().any(|(who, wanted)| who == *id && left.contains(wanted)))
                .copied()
                .collect();
            if free.is_empty() {
                return left.is_empty();
            }
            left.retain(|id| !free.contains(id));
        }
    }

    proptest! {
        #[test]
        fn the_order_of_several_sets_is_one_that_meets_every_requirement(
            sizes in prop::collection::vec(0..5_usize, 1..4),
            wanted in prop::collection::vec(((0..4_usize, 0..5_usize), (0..4_usize, 0..5_usize)), 0..6),
            applied in prop::collection::vec(0..5_usize, 4),
        ) {
            let is_there = |(set, at): &Id| sizes.get(*set).is_some_and(|size| at < size);
            let requires: BTreeSet<(Id, Id)> =
                wanted.into_iter().filter(|(who, wanted)| is_there(who) && is_there(wanted)).collect();
            let path = path_of(&sizes, &requires);
            prop_assert_eq!(path.is_ok(), has_order(&sizes, &requires));
            let Ok(path) = path else { return Ok(()) };

            // Some of each set are applied already, from the beginning as always.
            let there: Vec<usize> = sizes.iter().zip(&applied).map(|(size, applied)| *applied.min(size)).collect();
            let steps: Vec<Vec<Step>> =
                sizes.iter().zip(&there).map(|(size, there)| (*there..*size).map(Step::Migration).collect()).collect();
            let versions: Vec<Vec<Version>> = there
                .iter()
                .map(|there| (1..=*there).map(|version| version.to_string().parse().unwrap()).collect())
                .collect();
            let order = path.ordered(&steps, &versions, None);
            let order = order.map_err(|error| TestCaseError::fail(error.causes().join("; ")))?;
            let mut done: BTreeSet<Id> =
                there.iter().enumerate().flat_map(|(set, there)| (0..*there).map(move |at| (set, at))).collect();
            for (set, step) in order {
                let Step::Migration(at) = step else { unreachable!("the sets have none") };
                prop_assert!(at == 0 || done.contains(&(set, at - 1)), "out of its set's order");
                for (_, wanted) in requires.iter().filter(|(who, _)| *who == (set, at)) {
                    prop_assert!(done.contains(wanted), "before what it requires");
                }
                prop_assert!(done.insert((set, at)), "twice");
            }
            prop_assert_eq!(done.len(), sizes.iter().sum::<usize>(), "not all");
        }
    }
}
