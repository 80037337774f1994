//! One run on one target: look, lock, look again, apply, seed, flush.

use std::time::Instant;

use pgfleet_postgres::lock::{self, LockKey};
use pgfleet_postgres::{Address, Connection, ErrorKind as PgErrorKind, Purpose, connect, quote_ident, retry};

use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer};
use crate::history::Record;
use crate::options::{Durability, Options, RetryOn};
use crate::plan::{Plan, State, Step};
use crate::report::{Outcome, Report};
use crate::seed::Seeds;
use crate::set::Set;
use crate::store::{self, Look};
use crate::target::Target;
use crate::unit::{Action, Draft, Unit};
use crate::work::Work;

/// Migrates and seeds one target.
///
/// Looks first, without a lock; when nothing is pending that was all. Otherwise takes the
/// database's lock, reads again and applies what is pending then, each migration in a transaction
/// with its history row. Returns when everything is committed and on disk.
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
    set: &Set,
    seeds: &Seeds,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    let run = Run { target, set, seeds, options, observer, id: uuid::Uuid::now_v7().to_string() };
    retrying(target, options, observer, || run.once()).await
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
    target: &'a Target,
    set: &'a Set,
    seeds: &'a Seeds,
    options: &'a Options,
    observer: &'a dyn Observer,
    id: String,
}

/// What one look led to.
struct Looked {
    plan: Plan,
    seeds: Vec<usize>,
    has_history: bool,
}

impl Run<'_> {
    async fn once(&self) -> Result<Report, Error> {
        let began = Instant::now();
        let (connection, created) = match open(self.target, self.options, self.observer).await? {
            Opened::Connected { connection, created } => (connection, created),
            Opened::Missing => {
                let plan = Plan::new(self.set, &[], self.options);
                let mut looked = Looked { plan, seeds: (0..self.seeds.files.len()).collect(), has_history: false };
                if self.options.dry_run {
                    looked.plan.check(self.set, &self.target.name, self.options)?;
                    self.units(&looked, &[])?;
                }
                let mut report = self.report(Outcome::Pending, &looked, false, began);
                report.entries = looked.plan.entries;
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
        let first = self.look(connection).await?;
        if self.options.look_only || self.options.dry_run {
            let mut first = first;
            let mut blocked = None;
            if self.options.dry_run {
                self.check(connection, &mut first).await?;
                self.units(&first, &[])?;
            } else {
                // A look tells what would stop a run instead of stopping.
                blocked = first
                    .plan
                    .check(self.set, &self.target.name, self.options)
                    .err()
                    .map(|error| format!("{error}: {}", error.causes().join(", ")));
                if first.has_history {
                    let stopped = self.interrupted(connection, &first).await?;
                    first.plan.mark_interrupted(&stopped);
                }
            }
            let nothing = first.plan.is_empty() && first.seeds.is_empty();
            let outcome = if nothing { Outcome::UpToDate } else { Outcome::Pending };
            let mut report = self.report(outcome, &first, created, began);
            report.entries = first.plan.entries;
            report.blocked = blocked;
            return Ok(report);
        }
        let mut looked = first;
        self.check(connection, &mut looked).await?;
        if looked.plan.is_empty() && looked.seeds.is_empty() {
            return Ok(self.report(Outcome::UpToDate, &looked, created, began));
        }
        // Files are checked before the lock is asked for: a typing error must not make others wait.
        let units = self.units(&looked, &[])?;
        if let Some(finished) = self.lock(connection).await? {
            self.flush(connection).await?;
            return Ok(self.report(Outcome::DoneByAnother, &finished, created, began));
        }
        let result = self.locked(connection, created, began, (looked, units)).await;
        // Freed at once for those who poll; if this fails, closing the connection frees it.
        let _freed = lock::unlock(connection, LockKey::Migrate).await;
        result
    }

    /// What happens under the lock; nothing read before counts.
    ///
    /// `ready` is what was made of the plan before: where the plan is the same still, a large file
    /// need not be read again.
    async fn locked(
        &self,
        connection: &Connection,
        created: bool,
        began: Instant,
        ready: (Looked, Vec<Unit<'_>>),
    ) -> Result<Report, Error> {
        let mut looked = self.look(connection).await?;
        self.check(connection, &mut looked).await?;
        if looked.plan.is_empty() && looked.seeds.is_empty() {
            self.flush(connection).await?;
            return Ok(self.report(Outcome::DoneByAnother, &looked, created, began));
        }
        if !looked.has_history {
            refuse_other_history(connection, self.target, self.set, "migrate").await?;
            if let Some(schema) = &self.target.schema {
                store::ensure_schema(connection, schema).await.map_err(|error| {
                    Error::connection(format!("cannot make the schema {schema} in {}", self.target.name), error)
                })?;
            }
        }
        let beside = store::Beside { seeds: !looked.seeds.is_empty(), attempts: self.any_without_transaction(&looked) };
        store::ensure(connection, &self.set.history, beside)
            .await
            .map_err(|error| Error::connection(format!("cannot make the history in {}", self.target.name), error))?;
        let interrupted = self.interrupted(connection, &looked).await?;
        let (before, units) = ready;
        let same = before.plan.steps == looked.plan.steps && before.seeds == looked.seeds;
        let units = if same && interrupted.is_empty() { units } else { self.units(&looked, &interrupted)? };
        self.observer.event(&self.target.name, &Event::Planned { steps: units.len() });
        let work = Work {
            connection,
            target: &self.target.name,
            table: &self.set.history,
            options: self.options,
            run: &self.id,
            observer: self.observer,
        };
        work.apply(&units).await?;
        let mut report = self.report(Outcome::Applied, &looked, created, began);
        report.applied = std::mem::take(&mut report.pending);
        report.seeded = std::mem::take(&mut report.pending_seeds);
        let newest = looked.plan.steps.iter().rev().find_map(|step| match step {
            Step::Migration(index) => Some(self.set.migrations[*index].version.clone()),
            Step::Repeatable(_) => None,
        });
        // An out-of-order migration does not lower the version.
        let before = report.from.as_ref().and_then(|from| from.parse().ok());
        report.to = newest.max(before).map(|version: pgfleet_sql::version::Version| version.to_string());
        Ok(report)
    }

    async fn look(&self, connection: &Connection) -> Result<Looked, Error> {
        let failed = |error| Error::connection(format!("cannot read the history of {}", self.target.name), error);
        let Look { rows, seeds } =
            store::look(connection, &self.set.history, !self.seeds.files.is_empty()).await.map_err(failed)?;
        let has_history = rows.is_some();
        let plan = Plan::new(self.set, &rows.unwrap_or_default(), self.options);
        // Seeds need the schema of the newest version: a run that stops below it runs none.
        let seeds = if self.options.to.is_some() { Vec::new() } else { self.seeds.pending(&seeds) };
        Ok(Looked { plan, seeds, has_history })
    }

    /// Applies the user's choices to what was found, and shows what was edited.
    async fn check(&self, connection: &Connection, looked: &mut Looked) -> Result<(), Error> {
        let Err(mut error) = looked.plan.check(self.set, &self.target.name, self.options) else { return Ok(()) };
        for entry in looked.plan.entries.iter().filter(|entry| entry.state == State::Edited) {
            let Ok(version) = entry.version.parse() else { continue };
            let Some(migration) = self.set.find(&version) else { continue };
            // The difference is a help; without it the error stands as it is.
            let recorded = entry.recorded.as_deref().unwrap_or(&entry.version);
            if let Ok(Some((applied, _))) = store::texts(connection, &self.set.history, recorded).await {
                error = error.cause(difference(&applied, &migration.up.text));
            }
        }
        Err(error)
    }

    /// Makes everything ready that will be applied.
    fn units<'b>(&'b self, looked: &Looked, interrupted: &[(String, i32)]) -> Result<Vec<Unit<'b>>, Error> {
        let mut units = Vec::with_capacity(looked.plan.steps.len() + looked.seeds.len());
        let who = &self.options.who;
        for step in &looked.plan.steps {
            let unit = match *step {
                Step::Migration(index) => {
                    let migration = &self.set.migrations[index];
                    self.required(migration)?;
                    let version = migration.version.to_string();
                    if migration.annotations.no_transaction
                        && let Some((_, done)) = interrupted.iter().find(|(found, _)| *found == version)
                    {
                        return Err(stopped_in_the_middle(
                            Action::Apply,
                            &migration.label(),
                            &version,
                            self.target,
                            self.set,
                            *done,
                        ));
                    }
                    migration_unit(self.set, migration, self.target, self.options, &self.id)?
                }
                Step::Repeatable(index) => {
                    let repeatable = &self.set.repeatables[index];
                    let name = format!("R__{}", repeatable.description);
                    let script = &repeatable.script;
                    let mut unit = self.unit(
                        Action::Apply,
                        name.clone(),
                        name,
                        repeatable.description.clone(),
                        script,
                        &repeatable.annotations,
                    )?;
                    unit.record = self.set.history.insert_sql(
                        &Record {
                            version: &unit.version,
                            description: &repeatable.description,
                            checksum: &repeatable.checksum(),
                            raw_hash: &script.bytes_hash,
                            sql: &script.text,
                            down: None,
                        },
                        who,
                        &self.id,
                        true,
                    );
                    unit
                }
            };
            units.push(unit);
        }
        for index in &looked.seeds {
            let seed = &self.seeds.files[*index];
            let mut unit = Unit::new(Draft {
                action: Action::Seed,
                label: seed.name.clone(),
                version: seed.name.clone(),
                description: String::new(),
                script: &seed.script,
                style: pgfleet_sql::placeholder::Style::Psql,
                values: &self.seeds.properties,
                no_transaction: false,
                lock_timeout: self.options.lock_timeout,
                target: &self.target.name,
            })?;
            unit.record = self.set.history.seed_sql(&seed.name, &seed.checksum, who, &self.id);
            units.push(unit);
        }
        Ok(units)
    }

    fn unit<'b>(
        &'b self,
        action: Action,
        label: String,
        version: String,
        description: String,
        script: &'b pgfleet_sql::layout::Script,
        annotations: &pgfleet_sql::annotation::Annotations,
    ) -> Result<Unit<'b>, Error> {
        Unit::new(Draft {
            action,
            label,
            version,
            description,
            script,
            style: self.set.placeholder_style(),
            values: &self.set.placeholders,
            no_transaction: annotations.no_transaction,
            lock_timeout: self.options.lock_timeout_of(annotations),
            target: &self.target.name,
        })
    }

    /// Refuses a migration that needs a set which is not in this target's path.
    fn required(&self, migration: &pgfleet_sql::layout::MigrationFile) -> Result<(), Error> {
        for requirement in &migration.annotations.requires {
            let known = requirement.set == self.set.name
                && requirement
                    .version
                    .parse()
                    .is_ok_and(|version| version < migration.version && self.set.find(&version).is_some());
            if !known {
                return Err(Error::new(
                    ErrorKind::Files,
                    Action::Apply.sentence(&migration.label(), &self.target.name),
                )
                .cause(format!("it requires {}@{}, which is not in this path", requirement.set, requirement.version))
                .at(crate::set::place(&migration.up, 0)));
            }
        }
        Ok(())
    }

    /// Returns which of the pending migrations without a transaction stopped in the middle.
    async fn interrupted(&self, connection: &Connection, looked: &Looked) -> Result<Vec<(String, i32)>, Error> {
        if !self.any_without_transaction(looked) {
            return Ok(Vec::new());
        }
        store::interrupted(connection, &self.set.history)
            .await
            .map_err(|error| Error::connection(format!("cannot read the attempts in {}", self.target.name), error))
    }

    /// Whether anything pending has no transaction, and so needs a journal.
    fn any_without_transaction(&self, looked: &Looked) -> bool {
        looked.plan.steps.iter().any(|step| match *step {
            Step::Migration(index) => self.set.migrations[index].annotations.no_transaction,
            Step::Repeatable(index) => self.set.repeatables[index].annotations.no_transaction,
        })
    }

    /// Takes the lock; returns what was found when another run did the work while we waited.
    async fn lock(&self, connection: &Connection) -> Result<Option<Looked>, Error> {
        crate::lock::acquire(connection, self.target, self.options, self.observer, || async {
            let looked = self.look(connection).await?;
            let unsettled = looked
                .plan
                .entries
                .iter()
                .any(|entry| matches!(entry.state, State::Edited | State::OutOfOrder | State::Missing));
            let done = looked.plan.is_empty() && looked.seeds.is_empty() && !unsettled;
            Ok(done.then_some(looked))
        })
        .await
    }

    /// Puts on disk what another run committed, before this one says that it is there.
    async fn flush(&self, connection: &Connection) -> Result<(), Error> {
        if self.options.durability == Durability::Each {
            return Ok(());
        }
        let failed = |error| Error::connection(format!("cannot migrate {}", self.target.name), error);
        store::flush(connection).await.map_err(failed)
    }

    fn report(&self, outcome: Outcome, looked: &Looked, created: bool, began: Instant) -> Report {
        Report {
            target: self.target.name.clone(),
            set: self.set.name.clone(),
            outcome,
            from: looked.plan.current.clone(),
            to: looked.plan.current.clone(),
            applied: Vec::new(),
            seeded: Vec::new(),
            pending: looked.plan.pending(self.set),
            pending_seeds: looked.seeds.iter().map(|index| self.seeds.files[*index].name.clone()).collect(),
            notes: looked.plan.notes.clone(),
            blocked: None,
            created,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            entries: Vec::new(),
        }
    }
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

/// Connects; waits for the server and creates the database when the options allow it.
pub(crate) async fn open(target: &Target, options: &Options, observer: &dyn Observer) -> Result<Opened, Error> {
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
            if options.look_only || options.dry_run {
                return Ok(Opened::Missing);
            }
            let Some(admin) = &target.admin else {
                return Err(Error::connection(format!("cannot migrate {}", target.name), error)
                    .hinted("the database does not exist: `pgfleet provision` makes it"));
            };
            if tried_to_create {
                return Err(Error::connection(format!("cannot migrate {}", target.name), error));
            }
            tried_to_create = true;
            created = create_database(admin, target).await?;
            if created {
                observer.event(&target.name, &Event::DatabaseCreated);
            }
            continue;
        }
        if !error.is_unreachable() || attempt >= options.wait_attempts {
            return Err(Error::connection(format!("cannot migrate {}", target.name), error));
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
