//! Configurations and retention policies in tables.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgfleet_events::{
    Answer, ConfigStore, Error, ErrorKind, Removed, Retention, RetentionPolicy, StreamConfig, StreamKind,
};
use pgfleet_postgres::{quote_ident, quote_literal};
use tokio_postgres::Row;

use crate::error::failed;
use crate::retention::{Run, STEP};
use crate::store::Store;

/// The columns of a configuration; spans of time in microseconds.
const CONFIG: &str = "name, kind, max_attempts, (extract(epoch FROM visibility) * 1000000)::bigint, \
                      (extract(epoch FROM dedup_window) * 1000000)::bigint, park_keys, max_length, \
                      (extract(epoch FROM keep_dead) * 1000000)::bigint, \
                      (extract(epoch FROM max_age) * 1000000)::bigint, max_count, max_bytes, index_data, closed";

const POLICY: &str = "name, streams, (extract(epoch FROM max_age) * 1000000)::bigint, max_count, max_bytes, enabled";

pub(crate) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn time(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn retention(row: &Row, first: usize) -> Retention {
    Retention {
        max_age: row.get::<_, Option<i64>>(first).map(time),
        max_count: row.get::<_, Option<i64>>(first + 1).map(i64::unsigned_abs),
        max_bytes: row.get::<_, Option<i64>>(first + 2).map(i64::unsigned_abs),
    }
}

fn config_of(row: &Row) -> StreamConfig {
    StreamConfig {
        name: Arc::from(row.get::<_, &str>(0)),
        kind: if row.get::<_, &str>(1) == StreamKind::Queue.word() { StreamKind::Queue } else { StreamKind::Stream },
        max_attempts: row.get::<_, i32>(2).unsigned_abs(),
        visibility: time(row.get(3)),
        dedup_window: time(row.get(4)),
        park_keys: row.get(5),
        max_length: row.get::<_, i64>(6).unsigned_abs(),
        keep_dead: time(row.get(7)),
        retention: retention(row, 8),
        index_data: row.get(11),
        closed: row.get(12),
    }
}

fn policy_of(row: &Row) -> RetentionPolicy {
    RetentionPolicy {
        name: Arc::from(row.get::<_, &str>(0)),
        streams: Arc::from(row.get::<_, &str>(1)),
        retention: retention(row, 2),
        enabled: row.get(5),
    }
}

/// Whether a name is one that a pattern stands for.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

/// The configuration that holds for a stream: its own, else the longest pattern.
pub(crate) fn longest<'a>(configs: &'a [StreamConfig], name: &str) -> Option<&'a StreamConfig> {
    let fitting = configs.iter().filter(|config| config.kind == StreamKind::Stream && fits(&config.name, name));
    fitting.max_by_key(|config| (!config.name.ends_with('*'), config.name.len()))
}

/// The tighter one of each limit.
pub(crate) fn tighter(one: Retention, other: Retention) -> Retention {
    fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
    Retention {
        max_age: least(one.max_age, other.max_age),
        max_count: least(one.max_count, other.max_count),
        max_bytes: least(one.max_bytes, other.max_bytes),
    }
}

/// How old what is known of closed streams may become where somebody appends.
const FRESH: Duration = Duration::from_secs(2);

/// Which streams are closed by configuration: looked up now and then beside the appends, not with each.
///
/// A stream that another process closes takes events for a moment longer. Archiving is what closes one at once.
#[derive(Debug, Default)]
pub(crate) struct Closed(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Configurations of streams; none when nothing of it is closed.
    configs: Arc<[StreamConfig]>,
    looked: Option<Instant>,
}

impl Closed {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refresh(&self, store: &Store) -> Result<(), Error> {
        self.known().looked = Some(Instant::now());
        let mut configs = store.configs().await?;
        configs.retain(|config| config.kind == StreamKind::Stream);
        if !configs.iter().any(|config| config.closed) {
            configs.clear();
        }
        self.known().configs = configs.into();
        Ok(())
    }
}

impl Store {
    /// Refuses a stream that is known to be closed by configuration. `ask`: whether to look it up first where nothing is
    /// known yet, which needs a connection.
    pub(crate) async fn check_open(&self, stream: &str, ask: bool) -> Result<(), Error> {
        let (configs, looked) = {
            let known = self.0.closed.known();
            (Arc::clone(&known.configs), known.looked)
        };
        match looked {
            None if ask => self.0.closed.refresh(self).await?,
            _ if looked.is_none_or(|looked| looked.elapsed() > FRESH) => {
                self.0.closed.known().looked = Some(Instant::now());
                let store = self.clone();
                // Nobody waits for it. Where it fails, what was known stays, and the next append looks again later.
                tokio::spawn(async move { store.0.closed.refresh(&store).await });
            }
            _ => {}
        }
        let configs = if looked.is_none() { Arc::clone(&self.0.closed.known().configs) } else { configs };
        if longest(&configs, stream).is_some_and(|config| config.closed) {
            return Err(Error::new(ErrorKind::Refused, format!("stream {stream} is closed by configuration")));
        }
        Ok(())
    }
}

fn check(config: &StreamConfig) -> Result<(), Error> {
    if config.name.is_empty() || config.name.contains('\0') || config.name.len() > 1_000 {
        return Err(Error::invalid("a configuration's name has 1 to 1000 bytes, none of them zero"));
    }
    if config.kind == StreamKind::Queue && config.name.ends_with('*') {
        return Err(Error::invalid("a queue is configured by its own name"));
    }
    Ok(())
}

impl Store {
    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}.{name}", quote_ident(&self.0.options.schema))
    }

    /// Makes or removes the index of the JSON of some streams; built beside whoever appends.
    async fn index_data(&self, name: &str, wanted: bool) -> Result<(), Error> {
        let index = format!("events_data_{:08x}", crate::streams::hash_of(name).cast_unsigned());
        let db = self.0.connection().await?;
        let shown = db
            .query_one("SELECT to_regclass($1) IS NOT NULL", &[&self.table(&index)])
            .await
            .map_err(|error| failed("indexes could not be looked at", error))?;
        if shown.get::<_, bool>(0) == wanted {
            return Ok(());
        }
        let which = match name.strip_suffix('*') {
            Some(prefix) => format!("starts_with(stream, {})", quote_literal(prefix)),
            None => format!("stream = {}", quote_literal(name)),
        };
        let sql = if wanted {
            format!(
                "CREATE INDEX CONCURRENTLY {} ON {} USING gin (data jsonb_path_ops) WHERE {which}",
                quote_ident(&index),
                self.table("events")
            )
        } else {
            format!("DROP INDEX CONCURRENTLY IF EXISTS {}", self.table(&index))
        };
        // Built for as long as it takes. The connection is not used again: its settings are others now.
        db.discard();
        let doing = |error| failed(format!("the data of {name} could not be indexed"), error);
        db.batch("SET statement_timeout = 0").await.map_err(doing)?;
        db.batch("SET lock_timeout = '10s'").await.map_err(doing)?;
        if let Err(error) = db.batch(&sql).await {
            // What was begun is of no use to anybody.
            let _dropped = db.batch(&format!("DROP INDEX IF EXISTS {}", self.table(&index))).await;
            return Err(doing(error));
        }
        Ok(())
    }
}

impl ConfigStore for Store {
    fn configure<'a>(&'a self, config: &'a StreamConfig) -> Answer<'a, ()> {
        Box::pin(async move {
            check(config)?;
            let span = "::bigint * interval '1 microsecond'";
            let sql = format!(
                "INSERT INTO {} (name, kind, max_attempts, visibility, dedup_window, park_keys, max_length, keep_dead, \
                 max_age, max_count, max_bytes, index_data, closed) \
                 VALUES ($1, $2, $3, $4{span}, $5{span}, $6, $7, $8{span}, $9{span}, $10, $11, $12, $13) \
                 ON CONFLICT (kind, name) DO UPDATE SET (updated_at, max_attempts, visibility, dedup_window, park_keys, max_length, \
                 keep_dead, max_age, max_count, max_bytes, index_data, closed) = (excluded.updated_at, excluded.max_attempts, \
                 excluded.visibility, excluded.dedup_window, excluded.park_keys, excluded.max_length, \
                 excluded.keep_dead, excluded.max_age, excluded.max_count, excluded.max_bytes, excluded.index_data, \
                 excluded.closed)",
                self.table("stream_configurations")
            );
            let kept = &config.retention;
            {
                let db = self.0.connection().await?;
                db.execute(
                    &sql,
                    &[
                        &&*config.name,
                        &config.kind.word(),
                        &i32::try_from(config.max_attempts).unwrap_or(i32::MAX),
                        &micros(config.visibility),
                        &micros(config.dedup_window),
                        &config.park_keys,
                        &number(config.max_length),
                        &micros(config.keep_dead),
                        &kept.max_age.map(micros),
                        &kept.max_count.map(number),
                        &kept.max_bytes.map(number),
                        &config.index_data,
                        &config.closed,
                    ],
                )
                .await
                .map_err(|error| failed(format!("{} could not be configured", config.name), error))?;
            }
            self.0.closed.refresh(self).await?;
            match config.kind {
                StreamKind::Stream => self.index_data(&config.name, config.index_data).await,
                StreamKind::Queue => Ok(()),
            }
        })
    }

    fn config<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, StreamConfig> {
        Box::pin(async move {
            let configs = self.configs().await?;
            let found = match kind {
                StreamKind::Stream => longest(&configs, name),
                StreamKind::Queue => configs.iter().find(|config| config.kind == kind && *config.name == *name),
            };
            let made = found.cloned().unwrap_or_else(|| StreamConfig::new(name, kind));
            Ok(StreamConfig { name: Arc::from(name), ..made })
        })
    }

    fn configs(&self) -> Answer<'_, Vec<StreamConfig>> {
        Box::pin(async move {
            let sql = format!("SELECT {CONFIG} FROM {} ORDER BY name, kind", self.table("stream_configurations"));
            let db = self.0.connection().await?;
            let rows = db.query(&sql, &[]).await.map_err(|error| failed("configurations could not be read", error))?;
            Ok(rows.iter().map(config_of).collect())
        })
    }

    fn unconfigure<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, bool> {
        Box::pin(async move {
            let sql = format!("DELETE FROM {} WHERE name = $1 AND kind = $2", self.table("stream_configurations"));
            let removed = {
                let db = self.0.connection().await?;
                db.execute(&sql, &[&name, &kind.word()])
                    .await
                    .map_err(|error| failed(format!("the configuration of {name} could not be removed"), error))?
            };
            self.0.closed.refresh(self).await?;
            if kind == StreamKind::Stream {
                self.index_data(name, false).await?;
            }
            Ok(removed > 0)
        })
    }

    fn set_policy<'a>(&'a self, policy: &'a RetentionPolicy) -> Answer<'a, ()> {
        Box::pin(async move {
            if policy.name.is_empty() || policy.streams.is_empty() {
                return Err(Error::invalid("a retention policy has a name, and says for which streams it is"));
            }
            let sql = format!(
                "INSERT INTO {} VALUES ($1, $2, $3::bigint * interval '1 microsecond', $4, $5, $6) \
                 ON CONFLICT (name) DO UPDATE SET (streams, max_age, max_count, max_bytes, enabled) = \
                 (excluded.streams, excluded.max_age, excluded.max_count, excluded.max_bytes, excluded.enabled)",
                self.table("retention_policies")
            );
            let kept = &policy.retention;
            let db = self.0.connection().await?;
            db.execute(
                &sql,
                &[
                    &&*policy.name,
                    &&*policy.streams,
                    &kept.max_age.map(micros),
                    &kept.max_count.map(number),
                    &kept.max_bytes.map(number),
                    &policy.enabled,
                ],
            )
            .await
            .map_err(|error| failed(format!("policy {} could not be set", policy.name), error))?;
            Ok(())
        })
    }

    fn policies(&self) -> Answer<'_, Vec<RetentionPolicy>> {
        Box::pin(async move {
            let sql = format!("SELECT {POLICY} FROM {} ORDER BY name", self.table("retention_policies"));
            let db = self.0.connection().await?;
            let rows = db.query(&sql, &[]).await.map_err(|error| failed("policies could not be read", error))?;
            Ok(rows.iter().map(policy_of).collect())
        })
    }

    fn remove_policy<'a>(&'a self, name: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let sql = format!("DELETE FROM {} WHERE name = $1", self.table("retention_policies"));
            let db = self.0.connection().await?;
            let removed = db
                .execute(&sql, &[&name])
                .await
                .map_err(|error| failed(format!("policy {name} could not be removed"), error))?;
            Ok(removed > 0)
        })
    }

    fn apply_retention(&self) -> Answer<'_, Removed> {
        Box::pin(async move {
            let mut run = Run::new(self, STEP).await?;
            while run.step(self).await? {}
            Ok(Removed {
                streams: run.events.streams + run.messages.streams,
                events: run.events.events + run.messages.events,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pattern_counts_and_a_name_beats_it() {
        let configs: Vec<_> =
            ["*", "trip-*", "trip-1", "trip-12*"].map(|name| StreamConfig::new(name, StreamKind::Stream)).into();
        let of = |name: &str| longest(&configs, name).map(|config| config.name.to_string());
        assert_eq!(of("trip-1").as_deref(), Some("trip-1"));
        assert_eq!(of("trip-123").as_deref(), Some("trip-12*"));
        assert_eq!(of("trip-2").as_deref(), Some("trip-*"));
        assert_eq!(of("user-2").as_deref(), Some("*"));
    }

    #[test]
    fn the_tighter_limit_counts() {
        let one = Retention { max_count: Some(10), ..Retention::default() };
        let other = Retention { max_count: Some(5), max_bytes: Some(7), max_age: None };
        assert_eq!(tighter(one, other), other);
    }
}
