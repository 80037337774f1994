//! One run on one target: look, lock, look again, apply, seed, flush.

mod look;
mod open;
mod record;
mod report;
mod units;

use std::time::Instant;

use pgfleet_postgres::lock::LockKey;
use pgfleet_postgres::{Connection, ErrorKind as PgErrorKind, lock, retry};

use crate::announce::{Due, What};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer, Silent};
use crate::options::{Options, RetryOn};
use crate::path::SetPath;
use crate::report::{Outcome, Report};
use crate::target::Target;
use crate::unit::Unit;
use crate::work::Work;
use crate::{announce, store};

pub use crate::store::flush;
pub use look::looking;
use look::{Looked, newest_after};
pub(crate) use look::{refuse_other_history, stopped_in_the_middle};
pub(crate) use open::{Opened, open};
pub use record::make_seed_records;
use report::entries;
pub(crate) use units::{difference, migration_unit, record_of};

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
        let what = What { rows: &rows, due: Some(due), forced: None, known: target.known.as_ref() };
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
        let only_looks = self.options.look_only || self.options.dry_run;
        if self.options.lock_first && !only_looks {
            self.refuse_when_stopped()?;
            if let Some(looked) = self.lock_and_look(connection).await? {
                return self.locked(connection, created, began, None, looked).await;
            }
        }
        let mut looked = self.look(connection).await?;
        if only_looks {
            return self.only_looked(connection, looked, created, began).await;
        }
        self.check(connection, &mut looked).await?;
        if looked.is_empty() {
            return self.up_to_date(connection, &looked, created, began).await;
        }
        // Files are checked before the lock is asked for: a typing error must not make others wait.
        let units = self.units(&looked, &[])?;
        self.refuse_when_stopped()?;
        let again = match self.lock_and_look(connection).await? {
            Some(again) => again,
            None => match self.lock(connection).await? {
                Some(finished) => return self.done_by_another(connection, &finished, created, began).await,
                None => self.look(connection).await?,
            },
        };
        // The lock is freed with the connection, which is closed next.
        self.locked(connection, created, began, Some((looked, units)), again).await
    }

    fn refuse_when_stopped(&self) -> Result<(), Error> {
        if self.options.stop.is_asked() {
            return Err(Error::new(ErrorKind::Stopped, format!("stopped before {}", self.target.name)));
        }
        Ok(())
    }

    /// Asks for the lock and looks, in one round trip; none when somebody else has it. What is read behind a lock that
    /// was granted is read under it.
    async fn lock_and_look(&self, connection: &Connection) -> Result<Option<Looked>, Error> {
        lock::try_lock_and_read(connection, LockKey::Migrate, || self.look(connection))
            .await
            .map_err(|error| Error::connection(format!("cannot lock {}", self.target.name), error))?
            .transpose()
    }

    /// Reports that nothing is pending, and announces what nobody has heard of yet.
    async fn up_to_date(
        &self,
        connection: &Connection,
        looked: &Looked,
        created: bool,
        began: Instant,
    ) -> Result<Report, Error> {
        let mut report = self.report(Outcome::UpToDate, looked, created, began);
        if self.has_to_announce(&looked.rows) {
            // Another run may still be about to put them on disk.
            self.flush(connection).await?;
            self.announce(connection, &looked.rows, Some(Due::Unstamped), &mut report).await;
        }
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
        ready: Option<(Looked, Vec<Unit<'_>>)>,
        mut looked: Looked,
    ) -> Result<Report, Error> {
        self.check(connection, &mut looked).await?;
        if looked.is_empty() {
            // Without a look before, nobody needs to have been here.
            return match ready {
                Some(_) => self.done_by_another(connection, &looked, created, began).await,
                None => self.up_to_date(connection, &looked, created, began).await,
            };
        }
        self.make_room(connection, &looked).await?;
        let interrupted = self.interrupted(connection, &looked).await?;
        let same = |before: &Looked| before.plan.order == looked.plan.order && before.seeds == looked.seeds;
        let units = match ready {
            Some((before, units)) if same(&before) && interrupted.is_empty() => units,
            _ => self.units(&looked, &interrupted)?,
        };
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
}
