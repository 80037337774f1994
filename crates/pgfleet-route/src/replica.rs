//! Replicas: how far behind each is, and whether it is read.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgfleet_postgres::lsn::Lsn;
use pgfleet_postgres::pool::{Budget, Pool, Pooled};
use pgfleet_postgres::{Address, Error as PgError};

/// When replicas are read, and when not.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// Bytes of log by which a replica may be behind.
    pub max_lag_bytes: u64,
    /// Time by which a replica may be behind.
    pub max_lag: Duration,
    /// How often each is looked at, while there are readers.
    pub interval: Duration,
    /// How many good looks in a row, each with at most half the lag allowed, bring a banned one back.
    pub good_looks: u32,
    /// How long a reader waits for a replica to replay what its caller wrote, before it goes to the primary.
    pub token_wait: Duration,
}

impl Default for ReplicaOptions {
    /// 16 MB, 10 s, looked at once a second, two good looks, 50 ms.
    fn default() -> Self {
        Self {
            max_lag_bytes: 16 << 20,
            max_lag: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            good_looks: 2,
            token_wait: Duration::from_millis(50),
        }
    }
}

/// How long a look at a server may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// One replica; all databases of its server share it.
pub(crate) struct Replica {
    name: String,
    /// The service's main database there.
    pool: Pool,
    budget: Budget,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    /// None before the first look.
    system: Option<u64>,
    timeline: u32,
    /// Why it is not read; none when it is.
    banned: Option<String>,
    good: u32,
    lag_bytes: Option<u64>,
    lag: Duration,
    /// A position of the primary that it has not replayed, and since when.
    awaited: Option<(Lsn, Instant)>,
}

/// How a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its server.
    pub server: String,
    /// Why it is not read; none when it is.
    pub banned: Option<String>,
    /// Bytes of log that it has not replayed; none when the primary was not reached.
    pub lag_bytes: Option<u64>,
    /// For how long it has not had what the primary had then.
    pub lag: Duration,
}

/// What a look at a replica found.
struct Look {
    system: u64,
    timeline: u32,
    in_recovery: bool,
    replayed: Option<Lsn>,
    /// How old what it replayed last is, when it has received more than that.
    age: Duration,
}

/// Reads what a replica says of itself. The timeline is that of its last restart point, which may be old but never too
/// new.
const LOOK: &str = "SELECT s.system_identifier, greatest(c.timeline_id, r.min_recovery_end_timeline), \
     pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text, \
     CASE WHEN pg_catalog.pg_last_wal_replay_lsn() >= pg_catalog.pg_last_wal_receive_lsn() THEN 0 \
          ELSE greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() \
               - pg_catalog.pg_last_xact_replay_timestamp()))::float8 END \
     FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r";

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.status())
    }
}

impl Replica {
    pub(crate) fn new(budget: Budget, pool: Pool) -> Self {
        let state = State {
            system: None,
            timeline: 0,
            banned: Some("it was not looked at yet".to_owned()),
            good: 0,
            lag_bytes: None,
            lag: Duration::ZERO,
            awaited: None,
        };
        Self { name: pool.address().server(), pool, budget, state: Mutex::new(state) }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(crate) fn address(&self) -> &Address {
        self.pool.address()
    }

    /// Returns the cluster and its timeline, when it may be read.
    pub(crate) fn serving(&self) -> Option<(u64, u32)> {
        let state = self.state();
        if state.banned.is_some() { None } else { state.system.map(|system| (system, state.timeline)) }
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        let state = self.state().clone();
        ReplicaStatus { server: self.name.clone(), banned: state.banned, lag_bytes: state.lag_bytes, lag: state.lag }
    }

    /// Stops reading it after a failure; looks bring it back.
    pub(crate) fn ban(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut state = self.state();
        if state.banned.is_none() {
            tracing::warn!(replica = self.name, reason, "a replica is no longer read");
        }
        state.banned = Some(reason);
        state.good = 0;
    }

    /// Looks at it; `primary` is where the log ends there.
    pub(crate) async fn look(&self, primary: Option<Lsn>, options: &ReplicaOptions) {
        let look = async {
            let db = self.pool.get().await?;
            read(&db).await
        };
        match tokio::time::timeout(LOOK_LIMIT, look).await {
            Ok(Ok(look)) => self.judge(&look, primary, options),
            Ok(Err(error)) => {
                self.pool.flush();
                let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                self.ban(cause);
            }
            Err(_) => {
                self.pool.flush();
                self.ban(format!("it did not answer within {} s", LOOK_LIMIT.as_secs()));
            }
        }
    }

    fn judge(&self, look: &Look, primary: Option<Lsn>, options: &ReplicaOptions) {
        let lag_bytes = match (primary, look.replayed) {
            (Some(primary), Some(replayed)) => Some(primary.0.saturating_sub(replayed.0)),
            _ => None,
        };
        let mut state = self.state();
        let is_first = state.system.is_none();
        let lag = state.lag(primary, look);
        let bytes = lag_bytes.unwrap_or(0);
        let why = if look.in_recovery && bytes > options.max_lag_bytes {
            Some(format!("it is {bytes} bytes behind"))
        } else if look.in_recovery && lag > options.max_lag {
            Some(format!("it is {:.1} s behind", lag.as_secs_f64()))
        } else {
            None
        };
        let is_near = bytes <= options.max_lag_bytes / 2 && lag <= options.max_lag / 2;
        state.system = Some(look.system);
        state.timeline = look.timeline;
        state.lag_bytes = lag_bytes;
        state.lag = lag;
        match (why, state.banned.is_some()) {
            (Some(why), true) => {
                state.banned = Some(why);
                state.good = 0;
            }
            (Some(why), false) => {
                drop(state);
                self.ban(why);
            }
            (None, true) if is_near => {
                state.good += 1;
                if is_first || state.good >= options.good_looks {
                    state.banned = None;
                    if !is_first {
                        tracing::info!(replica = self.name, "a replica is read again");
                    }
                }
            }
            (None, true) => state.good = 0,
            (None, false) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// For how long the replica has not had what the primary had then.
    ///
    /// By our own clock and between looks: how old the last replayed commit is says little, since that grows on an idle
    /// primary, and is nothing on a replica that lost its primary.
    fn lag(&mut self, primary: Option<Lsn>, look: &Look) -> Duration {
        let Some(replayed) = look.replayed else { return Duration::ZERO };
        if self.awaited.is_none_or(|(position, _)| replayed >= position) {
            self.awaited = primary.map(|position| (position, Instant::now()));
        }
        match self.awaited {
            Some((position, since)) if replayed < position => since.elapsed().max(look.age),
            Some(_) => Duration::ZERO,
            None => look.age,
        }
    }
}

async fn read(db: &Pooled) -> Result<Look, PgError> {
    let row = db.query_one(LOOK, &[]).await?;
    Ok(Look {
        system: row.get::<_, i64>(0).cast_unsigned(),
        timeline: row.get::<_, i32>(1).cast_unsigned(),
        in_recovery: row.get(2),
        replayed: row.get::<_, Option<&str>>(3).and_then(|text| text.parse().ok()),
        age: Duration::try_from_secs_f64(row.get::<_, Option<f64>>(4).unwrap_or(0.0)).unwrap_or(Duration::MAX),
    })
}

/// Looks at all replicas of a primary, side by side.
pub(crate) async fn look_at_all(primary: &Pool, replicas: &[Arc<Replica>], options: &ReplicaOptions) {
    let position = async {
        let db = primary.get().await.ok()?;
        db.token().await.ok().map(|token| token.lsn)
    };
    let began = Instant::now();
    let primary = tokio::time::timeout(LOOK_LIMIT, position).await.ok().flatten();
    if primary.is_none() {
        tracing::debug!(took = began.elapsed().as_secs_f64(), "the primary does not say where its log ends");
    }
    let looks = replicas.iter().map(|replica| replica.look(primary, options));
    futures_util::future::join_all(looks).await;
}
