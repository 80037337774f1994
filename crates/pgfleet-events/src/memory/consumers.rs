//! Offsets and leases in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Memory;
use super::log::number;
use crate::answer::Answer;
use crate::consumer::{ConsumerStore, GroupOffset, Lease};
use crate::error::{Error, ErrorKind};
use crate::moment::Moment;
use crate::position::Position;

#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<Arc<str>, Group>);

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    parts: Vec<Part>,
    /// Until when members count as living.
    members: BTreeMap<Arc<str>, Moment>,
}

#[derive(Debug, Clone, Default)]
struct Part {
    position: Position,
    epoch: u64,
    holder: Option<(Arc<str>, Moment)>,
    committed_at: Option<Moment>,
}

impl Group {
    /// How many parts a member may have, so that all have about as many.
    fn share(&self, member: &str) -> usize {
        let (parts, members) = (self.parts.len(), self.members.len().max(1));
        let rank = self.members.keys().position(|name| &**name == member).unwrap_or(0);
        parts / members + usize::from(rank < parts % members)
    }

    fn lease(&mut self, member: &str, time: Duration, now: Moment) -> Vec<Lease> {
        self.members.retain(|_, until| *until > now);
        for part in &mut self.parts {
            // Who is not alive holds nothing; who is, and was only late, keeps what nobody has taken.
            if part.holder.as_ref().is_some_and(|(holder, until)| *until <= now && **holder != *member) {
                part.holder = None;
            }
        }
        let until = now.after(time);
        let member: Arc<str> = member.into();
        self.members.insert(Arc::clone(&member), until);
        let share = self.share(&member);
        let mut held = 0;
        for part in &mut self.parts {
            if part.holder.as_ref().is_some_and(|(holder, _)| *holder == member) {
                held += 1;
                part.holder = (held <= share).then(|| (Arc::clone(&member), until));
            }
        }
        for part in self.parts.iter_mut().filter(|part| part.holder.is_none()).take(share.saturating_sub(held)) {
            part.epoch += 1;
            part.holder = Some((Arc::clone(&member), until));
        }
        let parts = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let leases = (0..).zip(&self.parts).filter(|(_, part)| part.holder.as_ref().is_some_and(|(m, _)| *m == member));
        leases
            .map(|(index, part)| Lease {
                group: Arc::clone(&self.name),
                part: index,
                parts,
                member: Arc::clone(&member),
                epoch: part.epoch,
                position: part.position,
                until,
            })
            .collect()
    }
}

impl Memory {
    fn lease_now(
        &self,
        name: &str,
        member: &str,
        parts: u32,
        start: Position,
        time: Duration,
    ) -> Result<Vec<Lease>, Error> {
        if parts == 0 || name.is_empty() || member.is_empty() {
            return Err(Error::invalid("a group needs a name, members with names, and at least one part"));
        }
        let now = self.inner.clock.now();
        let mut groups = self.groups();
        let group = match groups.0.get_mut(name) {
            Some(group) => group,
            None => groups.0.entry(name.into()).or_insert_with(|| Group {
                name: name.into(),
                parts: vec![Part { position: start, ..Part::default() }; parts as usize],
                members: BTreeMap::new(),
            }),
        };
        if group.parts.len() != parts as usize {
            return Err(Error::invalid(format!("group {name} has {} parts, not {parts}", group.parts.len()))
                .with_hint("forget the group to give it another number of parts"));
        }
        Ok(group.lease(member, time, now))
    }

    fn commit_now(&self, lease: &Lease, position: Position) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let mut groups = self.groups();
        let part = groups.0.get_mut(&lease.group).and_then(|group| group.parts.get_mut(lease.part as usize));
        match part {
            Some(part) if part.epoch == lease.epoch => {
                part.position = position;
                part.committed_at = Some(now);
                Ok(())
            }
            _ => Err(Error::fenced(format!("part {} of group {}", lease.part, lease.group))),
        }
    }

    fn offsets_now(&self, name: Option<&str>) -> Vec<GroupOffset> {
        let now = self.inner.clock.now();
        let streams = self.streams();
        let groups = self.groups();
        let groups = groups.0.values().filter(|group| name.is_none_or(|name| *group.name == *name));
        let offsets = groups.flat_map(|group| {
            let parts = u32::try_from(group.parts.len()).unwrap_or(u32::MAX);
            (0..).zip(&group.parts).map(move |(index, part)| (group, index, parts, part))
        });
        offsets
            .map(|(group, index, parts, part)| GroupOffset {
                group: Arc::clone(&group.name),
                part: index,
                parts,
                position: part.position,
                member: part.holder.as_ref().filter(|(_, until)| *until > now).map(|(member, _)| Arc::clone(member)),
                epoch: part.epoch,
                committed_at: part.committed_at,
                lag: Some(streams.log.count_behind(number(part.position))),
                oldest: streams.log.behind(number(part.position)).next().map(|(_, event)| event.at),
            })
            .collect()
    }
}

impl ConsumerStore for Memory {
    fn lease<'a>(
        &'a self,
        group: &'a str,
        member: &'a str,
        parts: u32,
        start: Position,
        time: Duration,
    ) -> Answer<'a, Vec<Lease>> {
        Box::pin(async move { self.lease_now(group, member, parts, start, time) })
    }

    fn commit<'a>(&'a self, lease: &'a Lease, position: Position) -> Answer<'a, ()> {
        Box::pin(async move { self.commit_now(lease, position) })
    }

    fn leave<'a>(&'a self, group: &'a str, member: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Some(group) = self.groups().0.get_mut(group) {
                group.members.remove(member);
                for part in &mut group.parts {
                    part.holder.take_if(|(holder, _)| **holder == *member);
                }
            }
            Ok(())
        })
    }

    fn offsets<'a>(&'a self, group: Option<&'a str>) -> Answer<'a, Vec<GroupOffset>> {
        Box::pin(async move { Ok(self.offsets_now(group)) })
    }

    fn reset<'a>(&'a self, group: &'a str, to: Position) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut groups = self.groups();
            let Some(group) = groups.0.get_mut(group) else {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no group {group}")));
            };
            for part in &mut group.parts {
                // The new epoch refuses the commits of who reads still.
                *part = Part { position: to, epoch: part.epoch + 1, ..Part::default() };
            }
            group.members.clear();
            Ok(())
        })
    }

    fn forget<'a>(&'a self, group: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { Ok(self.groups().0.remove(group).is_some()) })
    }
}
