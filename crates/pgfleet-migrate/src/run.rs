//! One run on one target: look, lock, look again, apply, seed, flush.

use std::time::Instant;

use pgfleet_postgres::lock::{self, LockKey};
use pgfleet_postgres::{Address, Connection, ErrorKind as PgErrorKind, Purpose, connect, quote_ident, retry};

use crate::announce::{self, Due, What};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer, Silent};
use crate::history::{Record, Row};
use crate::options::{Durability, Options, RetryOn};
use crate::path::{PathPlan, SetPath};
use crate::plan::{State, Step};
use crate::report::{Outcome, Report, SetReport};
use crate::set::Set;
use crate::store;
use crate::target::Target;
use crate::unit::{Action, Draft, Unit};
use crate::work::Work;

/// Migrates and seeds one target.
///
/// Looks first, without a lock; when nothing is pending that was all. Otherwise takes the
/// database's lock, reads again and applies what is pending then in all sets of the path, each
/// migration in a transaction with its history row. Returns when everything is committed and on
/// disk, and was announced where somebody is to be told.
///
/// What can pass by itself (connection, shutdown, lock time-out, deadlock, serialization) starts
/// the run again, `options.max_tries` times in all; nothing is applied twice, since each try reads
/// the history again.
///
/// # Errors
///
/// See [`ErrorKind`]; what was committed before the error stays.
///
/// # Cancel safety
///
/// Dropping the future closes the connection: the server rolls back the transaction that runs and
/// frees the lock. [`Options::stop`] ends a run in an orderly way.
pub async fn migrate(
    target: &Target,
    path: &SetPath,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    target.refuse_shared(Verb::Migrate.word())?;
    go(Verb::Migrate, target, path, options, observer).await
}

/// Seeds one target where no migration is pending; nothing else of it is changed.
///
/// Goes the way of [`migrate`], under the same lock, and never makes the database. In a database
/// that a tenant shares with the host ([`Target::shared`]) those seeds run that depend on the tenant
/// (that use `tenant`, or a property of [`SetPath::with_properties`]), and their record is the
/// tenant's; the others are the host's.
///
/// # Errors
///
/// [`ErrorKind::Findings`] when a migration is pending or the database does not exist; else as
/// [`migrate`].
///
/// # Cancel safety
///
/// As [`migrate`].
pub async fn seed(
    target: &Target,
    path: &SetPath,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    // Seeds need the newest schema, whatever is enough for somebody else.
    let options = Options { to: None, enough: None, ..options.clone() };
    go(Verb::Seed, target, path, &options, observer).await
}

/// Announces what earlier runs applied and the announcer of these options has not heard of: runs that
/// died before they could say so, and those that told somebody else.
///
/// `known` is the newest run that it has heard of. Nothing is applied. Says whether something was
/// announced; while a run is under way nothing is, since that run will do it.
///
/// # Errors
///
/// The database cannot be read, or the announcer refuses. A database that is not there is none.
pub async fn announce_left(
    target: &Target,
    path: &SetPath,
    options: &Options,
    known: Option<&str>,
) -> Result<bool, Error> {
    let Some(announcer) = &options.announcer else { return Ok(false) };
    let connection = match open(target, "read the history of", false, options, &Silent).await? {
        Opened::Connected { connection, .. } => connection,
        Opened::Missing => return Ok(false),
    };
    let due = Due::Since(known);
    let failed = |error| Error::connection(format!("cannot read the history of {}", target.name), error);
    let work = async {
        let rows = announce::rows(&connection, path).await.map_err(failed)?;
        if !announce::is_due(&rows, due) || !lock::try_lock(&connection, LockKey::Migrate).await.map_err(failed)? {
            return Ok(false);
        }
        // Who had the lock until now may have done it.
        let rows = announce::rows(&connection, path).await.map_err(failed)?;
        store::flush(&connection).await.map_err(failed)?;
        let what = What { rows: &rows, due: Some(due), forced: None };
        announce::announce(announcer, &connection, &target.name, path, what).await.map_err(|error| {
            Error::new(ErrorKind::Code, format!("cannot announce what was applied to {}", target.name))
                .cause(error.to_string())
        })?;
        Ok(true)
    };
    let result = work.await;
    // The lock belongs to the session and ends with it.
    connection.close().await;
    result
}

async fn go(
    verb: Verb,
    target: &Target,
    path: &SetPath,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    let path = &*path.bound_to(target.tenant.as_deref());
    let id = options.run.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let run = Run { verb, target, path, options, observer, id };
    retrying(target, options, observer, || run.once()).await
}

/// What a run is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Migrate,
    Seed,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Seed => "seed",
        }
    }
}

/// Repeats a whole piece of work by the three-tries rule.
pub(crate) async fn retrying<T, F>(
    target: &Target,
    options: &Options,
    observer: &dyn Observer,
    work: impl Fn() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut attempt = 1;
    loop {
        let error = match work().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let again = match options.retry_on {
            // Once it was there, a server that cannot be reached is one that comes back.
            RetryOn::Transient => error.is_retryable() && !(attempt == 1 && never_reached(&error)),
            RetryOn::Any => !matches!(error.kind(), ErrorKind::Stopped),
        };
        if !again || attempt >= options.max_tries || options.stop.is_asked() {
            return Err(error);
        }
        let wait = retry::between(options.min_retry_wait, options.max_retry_wait);
        let reason = error.causes().first().cloned().unwrap_or_else(|| error.to_string());
        let event = Event::Retry { attempt, attempts: options.max_tries, wait, reason };
        observer.event(&target.name, &event);
        if options.stop.sleep(wait).await {
            return Err(error);
        }
        attempt += 1;
    }
}

/// Whether not even a connection was had: waiting for a server has a rule of its own.
fn never_reached(error: &Error) -> bool {
    error.postgres().is_some_and(|error| error.kind() == PgErrorKind::Unreachable)
}

struct Run<'a> {
    verb: Verb,
    target: &'a Target,
    path: &'a SetPath,
    options: &'a Options,
    observer: &'a dyn Observer,
    id: String,
}

/// What one look led to.
struct Looked {
    plan: PathPlan,
    /// Seeds to run: the number of the set, and of the seed in it.
    seeds: Vec<(usize, usize)>,
    /// For each set the rows of its history.
    rows: Vec<Vec<Row>>,
    has_history: Vec<bool>,
    there: Vec<store::There>,
}

impl Looked {
    fn is_empty(&self) -> bool {
        self.plan.is_empty() && self.seeds.is_empty()
    }
}

impl Run<'_> {
    async fn once(&self) -> Result<Report, Error> {
        let began = Instant::now();
        let make = self.verb == Verb::Migrate && !self.options.look_only && !self.options.dry_run;
        let (connection, created) = match open(self.target, self.verb.word(), make, self.options, self.observer).await?
        {
            Opened::Connected { connection, created } => (connection, created),
            Opened::Missing if self.verb == Verb::Seed && !self.options.look_only => {
                return Err(Error::new(ErrorKind::Findings, format!("cannot seed {}", self.target.name))
                    .cause("the database does not exist")
                    .hinted("pgfleet migrate makes it and seeds"));
            }
            Opened::Missing => {
                let mut looked = self.looked(vec![store::Look::default(); self.path.sets().len()]);
                if self.options.dry_run {
                    self.check_plans(&mut looked)?;
                    self.units(&looked, &[])?;
                }
                let mut report = self.report(Outcome::Pending, &looked, false, began);
                report.entries = entries(self.path, looked.plan);
                report.notes.push("the database does not exist".to_owned());
                return Ok(report);
            }
        };
        let result = self.with(&connection, created, began).await;
        // Also the way out of an error: the lock belongs to the session and ends with it.
        connection.close().await;
        result
    }

    async fn with(&self, connection: &Connection, created: bool, began: Instant) -> Result<Report, Error> {
        let mut looked = self.look(connection).await?;
        if self.options.look_only || self.options.dry_run {
            return self.only_looked(connection, looked, created, began).await;
        }
        self.check(connection, &mut looked).await?;
        if looked.is_empty() {
            let mut report = self.report(Outcome::UpToDate, &looked, created, began);
            if self.has_to_announce(&looked.rows) {
                // Another run may still be about to put them on disk.
                self.flush(connection).await?;
                self.announce(connection, &looked.rows, Some(Due::Unstamped), &mut report).await;
            }
            return Ok(report);
        }
        // Files are checked before the lock is asked for: a typing error must not make others wait.
        let units = self.units(&looked, &[])?;
        if self.options.stop.is_asked() {
            return Err(Error::new(ErrorKind::Stopped, format!("stopped before {}", self.target.name)));
        }
        // In one round trip; what is read behind a lock that was granted is read under it.
        let asked = lock::try_lock_and_read(connection, LockKey::Migrate, || self.look(connection)).await;
        let again =
            match asked.map_err(|error| Error::connection(format!("cannot lock {}", self.target.name), error))? {
                Some(again) => again?,
                None => match self.lock(connection).await? {
                    Some(finished) => return self.done_by_another(connection, &finished, created, began).await,
                    None => self.look(connection).await?,
                },
            };
        // The lock is freed with the connection, which is closed next.
        self.locked(connection, created, began, (looked, units), again).await
    }

    /// Reports what a run would do, or what would stop it.
    async fn only_looked(
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

    /// What happens under the lock; nothing read before counts, only what was `looked` at under it.
    ///
    /// `ready` is what was made of the plan before: where the plan is the same still, a large file
    /// need not be read again.
    async fn locked(
        &self,
        connection: &Connection,
        created: bool,
        began: Instant,
        ready: (Looked, Vec<Unit<'_>>),
        mut looked: Looked,
    ) -> Result<Report, Error> {
        self.check(connection, &mut looked).await?;
        if looked.is_empty() {
            return self.done_by_another(connection, &looked, created, began).await;
        }
        self.make_room(connection, &looked).await?;
        let interrupted = self.interrupted(connection, &looked).await?;
        let (before, units) = ready;
        let same = before.plan.order == looked.plan.order && before.seeds == looked.seeds;
        let units = if same && interrupted.is_empty() { units } else { self.units(&looked, &interrupted)? };
        self.observer.event(&self.target.name, &Event::Planned { steps: units.len() });
        let work = Work {
            connection,
            target: &self.target.name,
            tenant: self.target.tenant.as_deref(),
            schema: self.target.schema.as_deref(),
            options: self.options,
            run: &self.id,
            observer: self.observer,
        };
        work.apply(&units).await?;
        let mut report = self.report(Outcome::Applied, &looked, created, began);
        report.applied.append(&mut report.pending);
        report.seeded = std::mem::take(&mut report.pending_seeds);
        for (at, set) in self.path.sets().iter().enumerate() {
            let to = newest_after(set, &looked, at);
            if at + 1 == self.path.sets().len() {
                report.to.clone_from(&to);
            }
            if let Some(own) = report.sets.get_mut(at) {
                own.to = to;
            }
        }
        if self.options.announcer.is_some() {
            self.announce(connection, &self.rows_after(&looked), Some(Due::Unstamped), &mut report).await;
        }
        report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// Makes the schemas and tables that the run writes to.
    async fn make_room(&self, connection: &Connection, looked: &Looked) -> Result<(), Error> {
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

    async fn look(&self, connection: &Connection) -> Result<Looked, Error> {
        let failed = |error| Error::connection(format!("cannot read the history of {}", self.target.name), error);
        let record = self.target.guest().map_or(store::Record::Whole, store::Record::Guest);
        let record = (!self.options.always_seed).then_some(record);
        let looks = store::look_all(connection, self.path, record).await.map_err(failed)?;
        Ok(self.looked(looks))
    }

    /// Makes the plan of what was found.
    fn looked(&self, looks: Vec<store::Look>) -> Looked {
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
    fn rows_after(&self, looked: &Looked) -> Vec<Vec<Row>> {
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
    fn check_plans(&self, looked: &mut Looked) -> Result<(), Error> {
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
    async fn check(&self, connection: &Connection, looked: &mut Looked) -> Result<(), Error> {
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

    /// Makes everything ready that will be applied.
    ///
    /// `interrupted`: files without a transaction that stopped, by set and version.
    fn units<'b>(&'b self, looked: &Looked, interrupted: &[(usize, String, i32)]) -> Result<Vec<Unit<'b>>, Error> {
        let mut units = Vec::with_capacity(looked.plan.order.len() + looked.seeds.len());
        for &(at, step) in &looked.plan.order {
            let set = &self.path.sets()[at];
            let mut unit = match step {
                Step::Migration(index) => {
                    let migration = &set.migrations[index];
                    let version = migration.version.to_string();
                    if migration.annotations.no_transaction
                        && let Some((.., done)) =
                            interrupted.iter().find(|(of, found, _)| *of == at && *found == version)
                    {
                        return Err(stopped_in_the_middle(
                            Action::Apply,
                            &self.path.label(at, &migration.label()),
                            &version,
                            self.target,
                            set,
                            *done,
                        ));
                    }
                    migration_unit(set, migration, self.target, self.options, &self.id)?
                }
                Step::Repeatable(index) => self.repeatable_unit(set, index)?,
            };
            unit.label = self.path.label(at, &unit.label);
            units.push(unit);
        }
        for &(at, index) in &looked.seeds {
            let set = &self.path.sets()[at];
            let seed = &set.seeds.files[index];
            let mut unit = Unit::new(Draft {
                action: Action::Seed,
                set,
                label: self.path.label(at, &seed.name),
                version: seed.name.clone(),
                description: String::new(),
                script: &seed.script,
                code: seed.code.as_ref(),
                style: pgfleet_sql::placeholder::Style::Psql,
                values: &set.seeds.properties,
                no_transaction: false,
                lock_timeout: self.options.lock_timeout,
                target: &self.target.name,
            })?;
            let guest = self.target.guest();
            unit.record = set.history.seed_sql(&seed.name, &seed.checksum, guest, &self.options.who, &self.id);
            units.push(unit);
        }
        Ok(units)
    }

    fn repeatable_unit<'b>(&'b self, set: &'b Set, index: usize) -> Result<Unit<'b>, Error> {
        let repeatable = &set.repeatables[index];
        let name = format!("R__{}", repeatable.description);
        let script = &repeatable.script;
        let mut unit = Unit::new(Draft {
            action: Action::Apply,
            set,
            label: name.clone(),
            version: name,
            description: repeatable.description.clone(),
            script,
            code: None,
            style: set.placeholder_style(),
            values: &set.placeholders,
            no_transaction: repeatable.annotations.no_transaction,
            lock_timeout: self.options.lock_timeout_of(&repeatable.annotations),
            target: &self.target.name,
        })?;
        let record = Record {
            version: &unit.version,
            description: &repeatable.description,
            checksum: &repeatable.checksum(),
            raw_hash: &script.bytes_hash,
            sql: &script.text,
            down: None,
        };
        unit.record = set.history.insert_sql(&record, &self.options.who, &self.id, true);
        Ok(unit)
    }

    /// Returns which of the pending migrations without a transaction stopped in the middle: the
    /// set, the version and the statement.
    async fn interrupted(&self, connection: &Connection, looked: &Looked) -> Result<Vec<(usize, String, i32)>, Error> {
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
    async fn note_backfills(&self, connection: &Connection, looked: &mut Looked) -> Result<(), Error> {
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
    async fn lock(&self, connection: &Connection) -> Result<Option<Looked>, Error> {
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

    /// Puts on disk what another run committed, before this one says that it is there.
    async fn flush(&self, connection: &Connection) -> Result<(), Error> {
        if self.options.durability == Durability::Each {
            return Ok(());
        }
        let failed = |error| Error::connection(format!("cannot {} {}", self.verb.word(), self.target.name), error);
        store::flush(connection).await.map_err(failed)
    }

    /// Ends a run whose work another did while it waited.
    async fn done_by_another(
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

    /// The run's id, when it is announced whatever it did.
    fn forced(&self) -> Option<&str> {
        self.options.always_seed.then_some(self.id.as_str())
    }

    /// Whether there is something to tell where a look found nothing to do.
    fn has_to_announce(&self, rows: &[Vec<Row>]) -> bool {
        let left = self.target.guest().is_none() && announce::is_due(rows, Due::Unstamped);
        self.options.announcer.is_some() && (left || self.forced().is_some())
    }

    /// Tells what is on disk to whom it concerns; failing to is no failure of the run.
    async fn announce(&self, connection: &Connection, rows: &[Vec<Row>], due: Option<Due<'_>>, report: &mut Report) {
        let Some(announcer) = &self.options.announcer else { return };
        // What was applied to a database that tenants share is the host's to tell.
        let due = due.filter(|_| self.target.guest().is_none());
        let what = What { rows, due, forced: self.forced() };
        if let Err(error) = announce::announce(announcer, connection, &self.target.name, self.path, what).await {
            report.notes.push(format!("the run is not announced yet, the next one tries again: {error}"));
        }
    }

    /// What was applied under this run's id before: by a process that was cut off.
    fn earlier(&self, looked: &Looked) -> Vec<String> {
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
    fn before(&self, looked: &Looked, at: usize) -> Option<String> {
        let layout = self.path.sets()[at].layout;
        let others = looked.rows[at].iter().filter(|row| row.run != self.id);
        others.filter_map(|row| row.parsed(layout)).max().map(|version| version.to_string())
    }

    fn report(&self, outcome: Outcome, looked: &Looked, created: bool, began: Instant) -> Report {
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
fn entries(path: &SetPath, plan: PathPlan) -> Vec<crate::plan::Entry> {
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

/// The newest version of a set when its steps are applied.
fn newest_after(set: &Set, looked: &Looked, at: usize) -> Option<String> {
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
fn any_without_transaction(set: &Set, steps: &[Step]) -> bool {
    steps.iter().any(|step| match *step {
        Step::Migration(index) => set.migrations[index].annotations.no_transaction,
        Step::Repeatable(index) => set.repeatables[index].annotations.no_transaction,
    })
}

/// Whether a step works in batches, and so keeps where it stands.
fn any_backfill(set: &Set, steps: &[Step]) -> bool {
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

/// Makes a migration ready to be applied.
pub(crate) fn migration_unit<'a>(
    set: &'a Set,
    migration: &'a pgfleet_sql::layout::MigrationFile,
    target: &Target,
    options: &Options,
    run: &str,
) -> Result<Unit<'a>, Error> {
    let mut unit = Unit::new(Draft {
        action: Action::Apply,
        set,
        code: set.code_of(migration),
        label: migration.label(),
        version: migration.version.to_string(),
        description: migration.description.clone(),
        script: &migration.up,
        style: set.placeholder_style(),
        values: &set.placeholders,
        no_transaction: migration.annotations.no_transaction,
        lock_timeout: options.lock_timeout_of(&migration.annotations),
        target: &target.name,
    })?;
    unit.record =
        set.history.insert_sql(&record_of(migration, &unit.version, &migration.checksum()), &options.who, run, false);
    Ok(unit)
}

/// What the record of a migration holds.
pub(crate) fn record_of<'a>(
    migration: &'a pgfleet_sql::layout::MigrationFile,
    version: &'a str,
    checksum: &'a str,
) -> Record<'a> {
    Record {
        version,
        description: &migration.description,
        checksum,
        raw_hash: &migration.up.bytes_hash,
        sql: &migration.up.text,
        down: migration.down.as_ref().map(|down| down.text.as_str()),
    }
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

/// A connection, or the answer that there is no database.
pub(crate) enum Opened {
    Connected { connection: Box<Connection>, created: bool },
    Missing,
}

/// Connects; waits for the server as the options say.
///
/// `verb` is what cannot be done when it fails; `make` is whether a missing database is made.
pub(crate) async fn open(
    target: &Target,
    verb: &str,
    make: bool,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Opened, Error> {
    let sentence = || format!("cannot {verb} {}", target.name);
    let purpose = target.purpose(options);
    let mut created = false;
    let mut tried_to_create = false;
    let mut attempt = 1;
    loop {
        if options.stop.is_asked() {
            return Err(Error::new(ErrorKind::Stopped, format!("stopped before {}", target.name)));
        }
        let connected = tokio::select! {
            connected = connect(&target.address, &purpose) => connected,
            () = options.stop.asked() => continue,
        };
        let error = match connected {
            Ok(connection) => return Ok(Opened::Connected { connection: Box::new(connection), created }),
            Err(error) => error,
        };
        if error.kind() == PgErrorKind::DatabaseMissing {
            if !make {
                return Ok(Opened::Missing);
            }
            let Some(admin) = &target.admin else {
                return Err(Error::connection(sentence(), error)
                    .hinted("the database does not exist: `pgfleet provision` makes it"));
            };
            if tried_to_create {
                return Err(Error::connection(sentence(), error));
            }
            tried_to_create = true;
            created = create_database(admin, target).await?;
            if created {
                observer.event(&target.name, &Event::DatabaseCreated);
            }
            continue;
        }
        if !error.is_unreachable() || attempt >= options.wait_attempts {
            return Err(Error::connection(sentence(), error));
        }
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        observer.event(&target.name, &Event::Waiting { attempt, attempts: options.wait_attempts, reason });
        options.stop.sleep(options.wait_delay).await;
        attempt += 1;
    }
}

/// Creates the target's database; says whether it was us or somebody else at the same moment.
async fn create_database(admin: &Address, target: &Target) -> Result<bool, Error> {
    let name = target.address.database();
    let failed = |error: pgfleet_postgres::Error| {
        Error::connection(format!("cannot create database {name} for {}", target.name), error)
    };
    let connection = connect(admin, &Purpose::new("pgfleet create database")).await.map_err(failed)?;
    let mut attempt = 0;
    let created = loop {
        attempt += 1;
        let Err(error) = connection.execute_all(&format!("CREATE DATABASE {}", quote_ident(name))).await else {
            break true;
        };
        match error.sql_state() {
            // Made by another process: before us, or at the same moment.
            Some("42P04" | "23505") => break false,
            // Somebody is connected to the template; the server has waited 5 s already.
            Some("55006") if attempt < 5 => {}
            _ => return Err(failed(error)),
        }
    };
    connection.close().await;
    Ok(created)
}

/// Shows what changed between the applied text and the file, without the parts that are the same.
pub(crate) fn difference(applied: &str, present: &str) -> String {
    let diff = similar::TextDiff::from_lines(applied, present);
    let mut text = String::from("applied (-) and present (+) text differ:");
    let lines: Vec<String> =
        diff.unified_diff().context_radius(1).to_string().lines().map(|line| format!("\n    {line}")).collect();
    let shown = lines.len().min(40);
    text.extend(lines[..shown].iter().map(String::as_str));
    if shown < lines.len() {
        text.push_str(&format!("\n    … {} more lines", lines.len() - shown));
    }
    text
}
