//! Configurations and retention in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Memory;
use crate::answer::Answer;
use crate::config::{ConfigStore, Removed, Retention, RetentionPolicy, StreamConfig, StreamKind};
use crate::error::{Error, ErrorKind};
use crate::moment::Moment;

#[derive(Debug, Default)]
pub(super) struct Configs {
    streams: BTreeMap<Arc<str>, StreamConfig>,
    queues: BTreeMap<Arc<str>, StreamConfig>,
    policies: BTreeMap<Arc<str>, RetentionPolicy>,
}

impl Configs {
    fn kind(&self, kind: StreamKind) -> &BTreeMap<Arc<str>, StreamConfig> {
        match kind {
            StreamKind::Stream => &self.streams,
            StreamKind::Queue => &self.queues,
        }
    }

    fn kind_mut(&mut self, kind: StreamKind) -> &mut BTreeMap<Arc<str>, StreamConfig> {
        match kind {
            StreamKind::Stream => &mut self.streams,
            StreamKind::Queue => &mut self.queues,
        }
    }

    /// What was configured for a name, if anything was.
    fn find(&self, name: &str, kind: StreamKind) -> Option<&StreamConfig> {
        let configs = self.kind(kind);
        if let Some(exact) = configs.get(name) {
            return Some(exact);
        }
        if kind == StreamKind::Queue {
            return None;
        }
        configs.values().filter(|config| fits(&config.name, name)).max_by_key(|config| config.name.len())
    }

    pub(super) fn get(&self, name: &str, kind: StreamKind) -> StreamConfig {
        self.find(name, kind).cloned().unwrap_or_else(|| StreamConfig::new(name, kind))
    }

    /// All retentions that hold for a stream, as one.
    fn retention(&self, name: &str) -> Retention {
        let configured = self.find(name, StreamKind::Stream).map(|config| config.retention);
        let policies =
            self.policies.values().filter(|policy| policy.enabled && fits(&policy.streams, name)).map(|p| p.retention);
        configured.into_iter().chain(policies).fold(Retention::default(), |all, one| Retention {
            max_age: smaller(all.max_age, one.max_age),
            max_count: smaller(all.max_count, one.max_count),
            max_bytes: smaller(all.max_bytes, one.max_bytes),
        })
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Whether a name is the pattern, or begins as one that ends with `*`.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// Says what is wrong with a name or the beginning of names.
fn check_pattern(pattern: &str) -> Result<(), Error> {
    if pattern.is_empty() {
        return Err(Error::invalid("a name is missing"));
    }
    if pattern.strip_suffix('*').unwrap_or(pattern).contains('*') {
        return Err(Error::invalid(format!("{pattern:?} has a * that is not at its end")));
    }
    Ok(())
}

impl Memory {
    /// Refuses what is new in a stream that is closed by configuration.
    pub(super) fn refuse_closed(&self, stream: &str) -> Result<(), Error> {
        let configs = self.configs();
        if !configs.streams.is_empty() && configs.find(stream, StreamKind::Stream).is_some_and(|config| config.closed) {
            return Err(Error::new(ErrorKind::Refused, format!("stream {stream} is closed")));
        }
        Ok(())
    }

    pub(super) fn queue_config(&self, queue: &str) -> StreamConfig {
        self.configs().get(queue, StreamKind::Queue)
    }

    fn retain(&self, now: Moment) -> Removed {
        let mut removed = Removed::default();
        let mut count = |events: u64| {
            removed.events += events;
            removed.streams += u64::from(events > 0);
        };
        let configs = self.configs();
        if !configs.streams.is_empty() || !configs.policies.is_empty() {
            let mut streams = self.streams_mut();
            for name in streams.all_names() {
                let retention = configs.retention(&name);
                if !retention.is_none() {
                    count(streams.retain(&name, &retention, now));
                }
            }
        }
        let mut queues = self.queues();
        for queue in queues.by_name.values_mut() {
            let config = configs.get(&queue.name, StreamKind::Queue);
            queue.expire(&config, now);
            count(queue.retain(&config, now));
        }
        removed
    }
}

impl ConfigStore for Memory {
    fn configure<'a>(&'a self, config: &'a StreamConfig) -> Answer<'a, ()> {
        Box::pin(async move {
            check_pattern(&config.name)?;
            if config.kind == StreamKind::Queue && config.visibility.is_zero() {
                return Err(Error::invalid("a delivery must be given some time"));
            }
            self.configs_mut().kind_mut(config.kind).insert(Arc::clone(&config.name), config.clone());
            Ok(())
        })
    }

    fn config<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, StreamConfig> {
        Box::pin(async move { Ok(self.configs().get(name, kind)) })
    }

    fn configs(&self) -> Answer<'_, Vec<StreamConfig>> {
        Box::pin(async move {
            let configs = self.configs();
            let mut all: Vec<_> = configs.streams.values().chain(configs.queues.values()).cloned().collect();
            all.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(all)
        })
    }

    fn unconfigure<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, bool> {
        Box::pin(async move { Ok(self.configs_mut().kind_mut(kind).remove(name).is_some()) })
    }

    fn set_policy<'a>(&'a self, policy: &'a RetentionPolicy) -> Answer<'a, ()> {
        Box::pin(async move {
            check_pattern(&policy.streams)?;
            if policy.name.is_empty() {
                return Err(Error::invalid("a policy needs a name"));
            }
            self.configs_mut().policies.insert(Arc::clone(&policy.name), policy.clone());
            Ok(())
        })
    }

    fn policies(&self) -> Answer<'_, Vec<RetentionPolicy>> {
        Box::pin(async move { Ok(self.configs().policies.values().cloned().collect()) })
    }

    fn remove_policy<'a>(&'a self, name: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { Ok(self.configs_mut().policies.remove(name).is_some()) })
    }

    fn apply_retention(&self) -> Answer<'_, Removed> {
        Box::pin(async move { Ok(self.retain(self.inner.clock.now())) })
    }
}
