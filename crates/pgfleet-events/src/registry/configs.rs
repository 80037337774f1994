//! Configurations of several stores.

use super::Events;
use crate::answer::Answer;
use crate::config::{ConfigStore, Removed, RetentionPolicy, StreamConfig, StreamKind};

impl Events {
    /// The stores that a configuration concerns.
    fn concerned(&self, name: &str, kind: StreamKind) -> Vec<usize> {
        match kind {
            StreamKind::Stream => self.0.routes.of_pattern(name),
            StreamKind::Queue => vec![self.0.routes.of(name)],
        }
    }
}

impl ConfigStore for Events {
    fn configure<'a>(&'a self, config: &'a StreamConfig) -> Answer<'a, ()> {
        Box::pin(async move {
            for index in self.concerned(&config.name, config.kind) {
                self.at(index).configure(config).await?;
            }
            Ok(())
        })
    }

    fn config<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, StreamConfig> {
        // All that a pattern concerns were configured the same.
        let index = self.concerned(name, kind)[0];
        self.at(index).config(name, kind)
    }

    fn configs(&self) -> Answer<'_, Vec<StreamConfig>> {
        Box::pin(async move {
            let mut all: Vec<StreamConfig> = Vec::new();
            for store in self.all() {
                for config in store.configs().await? {
                    if !all.iter().any(|known| known.kind == config.kind && known.name == config.name) {
                        all.push(config);
                    }
                }
            }
            all.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(all)
        })
    }

    fn unconfigure<'a>(&'a self, name: &'a str, kind: StreamKind) -> Answer<'a, bool> {
        Box::pin(async move {
            let mut was_there = false;
            for store in self.all() {
                was_there |= store.unconfigure(name, kind).await?;
            }
            Ok(was_there)
        })
    }

    fn set_policy<'a>(&'a self, policy: &'a RetentionPolicy) -> Answer<'a, ()> {
        Box::pin(async move {
            let concerned = self.0.routes.of_pattern(&policy.streams);
            for index in &concerned {
                self.at(*index).set_policy(policy).await?;
            }
            // One of that name may have been for other streams before.
            for (index, store) in self.all().enumerate() {
                if !concerned.contains(&index) {
                    store.remove_policy(&policy.name).await?;
                }
            }
            Ok(())
        })
    }

    fn policies(&self) -> Answer<'_, Vec<RetentionPolicy>> {
        Box::pin(async move {
            let mut all: Vec<RetentionPolicy> = Vec::new();
            for store in self.all() {
                let new: Vec<_> = store.policies().await?;
                all.extend(new);
            }
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all.dedup_by(|a, b| a.name == b.name);
            Ok(all)
        })
    }

    fn remove_policy<'a>(&'a self, name: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let mut was_there = false;
            for store in self.all() {
                was_there |= store.remove_policy(name).await?;
            }
            Ok(was_there)
        })
    }

    fn apply_retention(&self) -> Answer<'_, Removed> {
        Box::pin(async move {
            let mut removed = Removed::default();
            for store in self.all() {
                let one = store.apply_retention().await?;
                removed.streams += one.streams;
                removed.events += one.events;
            }
            Ok(removed)
        })
    }
}
