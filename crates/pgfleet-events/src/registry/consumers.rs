//! Groups of several stores.
//!
//! A group's positions are those of one store, which its name does not say: it is looked for. A
//! [`Group`](crate::group::Group) does not need this, as it asks for the store of what it reads.

use std::time::Duration;

use super::Events;
use crate::answer::Answer;
use crate::consumer::{ConsumerStore, GroupOffset, Lease};
use crate::error::{Error, ErrorKind};
use crate::position::Position;
use crate::store::EventStore;

impl Events {
    /// Finds the store that has a group; none when it is new.
    async fn store_of_group(&self, group: &str) -> Result<Option<&dyn EventStore>, Error> {
        let mut found: Option<usize> = None;
        for (index, store) in self.all().enumerate() {
            if store.offsets(Some(group)).await?.is_empty() {
                continue;
            }
            if let Some(other) = found {
                let (one, two) = (&self.0.stores[other].0, &self.0.stores[index].0);
                return Err(Error::invalid(format!("there is a group {group} in store {one} and in store {two}"))
                    .with_hint("take one store by its name, as `Events::store` does"));
            }
            found = Some(index);
        }
        Ok(found.map(|index| self.at(index)))
    }
}

impl ConsumerStore for Events {
    /// A group that is new can be begun where there is one store only.
    fn lease<'a>(
        &'a self,
        group: &'a str,
        member: &'a str,
        parts: u32,
        start: Position,
        time: Duration,
    ) -> Answer<'a, Vec<Lease>> {
        Box::pin(async move {
            let store = match self.store_of_group(group).await? {
                Some(store) => store,
                None => self.only()?,
            };
            store.lease(group, member, parts, start, time).await
        })
    }

    fn commit<'a>(&'a self, lease: &'a Lease, position: Position) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.store_of_group(&lease.group).await? {
                Some(store) => store.commit(lease, position).await,
                None => Err(Error::fenced(format!("part {} of group {}", lease.part, lease.group))),
            }
        })
    }

    fn leave<'a>(&'a self, group: &'a str, member: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.store_of_group(group).await? {
                Some(store) => store.leave(group, member).await,
                None => Ok(()),
            }
        })
    }

    fn offsets<'a>(&'a self, group: Option<&'a str>) -> Answer<'a, Vec<GroupOffset>> {
        Box::pin(async move {
            let mut all = Vec::new();
            for store in self.all() {
                all.extend(store.offsets(group).await?);
            }
            // A stable order: where two stores have a group of one name, those of each stay together.
            all.sort_by(|a, b| a.group.cmp(&b.group));
            Ok(all)
        })
    }

    fn reset<'a>(&'a self, group: &'a str, position: Position) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.store_of_group(group).await? {
                Some(store) => store.reset(group, position).await,
                None => Err(Error::new(ErrorKind::NotFound, format!("there is no group {group}"))),
            }
        })
    }

    fn forget<'a>(&'a self, group: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            match self.store_of_group(group).await? {
                Some(store) => store.forget(group).await,
                None => Ok(false),
            }
        })
    }
}
