//! How a run behaves; the manifest's `[migrations]` section in typed form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::announce::Announce;

/// What to do about a finding: stop, say so, or go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnChanged {
    /// Stop before anything is applied.
    Error,
    /// Report it and go on.
    Warn,
}

/// What to do about a file whose version is below one that is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnOutOfOrder {
    /// Stop before anything is applied.
    Error,
    /// Apply it as if it came last.
    Apply,
}

/// What to do about a database that knows more than the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnAhead {
    /// An old program beside a newer schema is normal in a rolling deploy.
    Run,
    /// Stop.
    Error,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetryOn {
    /// What can pass by itself: connection, shutdown, lock time-out, deadlock, serialization.
    Transient,
    /// Everything.
    Any,
}

/// When a commit must be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// At the end of the run, whichever way it ends.
    Run,
    /// When it fails at the end of the run; else with a later commit in the same cluster, for which the
    /// caller waits before it tells anybody. A service's program does it at the end of the run.
    Later,
    /// At each commit.
    Each,
}

/// How an index is built that a file without a transaction says to build concurrently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concurrently {
    /// As the file says.
    AsWritten,
    /// Without `CONCURRENTLY` on a table that has no row.
    PlainWhenEmpty,
}

/// How a run behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long one statement may wait for a lock on a table.
    pub lock_timeout: Duration,
    /// How often a migration that met a lock time-out, a deadlock or a serialization failure is
    /// tried in all.
    pub lock_tries: u32,
    /// What makes the whole run start again.
    pub retry_on: RetryOn,
    /// How often the whole run is tried in all.
    pub max_tries: u32,
    /// Least wait between two tries of the run.
    pub min_retry_wait: Duration,
    /// Most wait between two tries of the run.
    pub max_retry_wait: Duration,
    /// How often to try to reach the server; 1 does not wait.
    pub wait_attempts: u32,
    /// Pause between two tries to reach the server.
    pub wait_delay: Duration,
    /// How long to wait for another run's lock; none waits for as long as it takes.
    pub lock_wait: Option<Duration>,
    /// When commits must be on disk.
    pub durability: Durability,
    /// How indexes are built concurrently.
    pub concurrently: Concurrently,
    /// An applied migration whose file was edited.
    pub on_changed: OnChanged,
    /// An applied migration without a file, below the newest known one.
    pub on_missing: OnChanged,
    /// Applied migrations above the newest known one.
    pub on_ahead: OnAhead,
    /// A pending migration below the newest applied one.
    pub on_out_of_order: OnOutOfOrder,
    /// Apply nothing above this version, of the chosen set or else of the service's own.
    pub to: Option<pgfleet_sql::version::Version>,
    /// Apply and seed this set of the path only.
    pub set: Option<String>,
    /// Who waits for another run's lock is content when the own set has this version; none waits
    /// for all of them.
    pub enough: Option<pgfleet_sql::version::Version>,
    /// The id under which everything is recorded; none makes a new one for each run.
    ///
    /// A run that was cut off and is taken up again under the same id reports all that was applied
    /// under it, and can be taken back as one: [`Goal::Run`](crate::revert::Goal::Run).
    pub run: Option<String>,
    /// Run every seed, also those that ran and did not change.
    pub always_seed: bool,
    /// Who is told what was applied; none leaves it to those who look later.
    pub announcer: Option<Announce>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Look at the database and change nothing, not even by creating it.
    pub look_only: bool,
    /// Ask for the lock before the first look: for who knows that something is pending. It spares a round trip to the
    /// database; where nothing is pending, or somebody has the lock, the run goes on as it does without.
    pub lock_first: bool,
    /// Who runs this, for the history: the person or job, and the machine.
    pub who: Who,
    /// Asks the run to stop.
    pub stop: Stop,
}

/// Who runs, for the audit columns of the history.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Who {
    /// The user of the operating system or the CI job.
    pub user: String,
    /// The machine.
    pub host: String,
}

impl Who {
    /// The user that this process runs as, and its machine.
    pub fn of_process() -> Self {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten()
            .map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Self { user, host }
    }
}

impl Options {
    /// Returns how long a file's statements may wait for a lock.
    ///
    /// Without a transaction the default is for ever: `CREATE INDEX CONCURRENTLY` waits for every
    /// older transaction as for a lock, and giving up leaves an invalid index behind.
    pub(crate) fn lock_timeout_of(&self, annotations: &pgfleet_sql::annotation::Annotations) -> Duration {
        let default = if annotations.no_transaction { Duration::ZERO } else { self.lock_timeout };
        annotations.lock_timeout.unwrap_or(default)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            lock_tries: 10,
            retry_on: RetryOn::Transient,
            max_tries: 3,
            min_retry_wait: Duration::from_secs(5),
            max_retry_wait: Duration::from_secs(15),
            wait_attempts: 1,
            wait_delay: Duration::from_secs(5),
            lock_wait: None,
            durability: Durability::Run,
            concurrently: Concurrently::AsWritten,
            on_changed: OnChanged::Error,
            on_missing: OnChanged::Error,
            on_ahead: OnAhead::Run,
            on_out_of_order: OnOutOfOrder::Error,
            to: None,
            set: None,
            enough: None,
            run: None,
            always_seed: false,
            announcer: None,
            dry_run: false,
            look_only: false,
            lock_first: false,
            who: Who::default(),
            stop: Stop::default(),
        }
    }
}

/// A request to stop that many runs can see.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug, Default)]
struct StopInner {
    asked: AtomicBool,
    wake: Notify,
}

impl Stop {
    /// Asks everybody who looks at this to stop.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.wake.notify_waiters();
    }

    /// Returns whether stopping was asked for.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Waits until stopping is asked for. Cancel safe.
    pub async fn asked(&self) {
        loop {
            // Registered before the look, so that an `ask` in between is not missed.
            let woken = self.0.wake.notified();
            if self.is_asked() {
                return;
            }
            woken.await;
        }
    }

    /// Sleeps, but ends early when stopping is asked for; says whether it was.
    pub async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.asked() => true,
            () = tokio::time::sleep(time) => false,
        }
    }
}
