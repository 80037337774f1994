//! What a member of a group holds in its hand.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::Acker;
use lapin::options::BasicAckOptions;
use pgfleet_events::{Answer, Delivered, Error, Subscriber};
use tokio::sync::oneshot;

use super::link::Link;
use super::member::Member;
use super::names::Group;
use crate::window::Shared;

pub(super) struct Consumer {
    group: Arc<Group>,
    shared: Arc<Shared<Acker>>,
    /// Closed when this is dropped, which ends the member's connection.
    _closing: oneshot::Sender<()>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("group", &self.group.name()).finish_non_exhaustive()
    }
}

impl Consumer {
    pub(super) async fn start(link: Arc<Link>, group: Group) -> Result<Self, Error> {
        let member = Member { link, group: Arc::new(group), shared: Arc::new(Shared::new()) };
        let (session, ends) = member.open(false).await?;
        let (closing, closed) = oneshot::channel();
        let consumer = Self { group: member.group.clone(), shared: member.shared.clone(), _closing: closing };
        tokio::spawn(member.run(session, ends, closed));
        Ok(consumer)
    }
}

impl Subscriber for Consumer {
    fn receive(&mut self, max: usize, most: Duration) -> Answer<'_, Vec<Delivered>> {
        Box::pin(async move { Ok(self.shared.receive(max, self.group.subscription.prefetch, most).await) })
    }

    fn acknowledge<'a>(&'a mut self, delivered: &'a [Delivered]) -> Answer<'a, ()> {
        Box::pin(async move {
            let ackers: Vec<Acker> = {
                let mut window = self.shared.window();
                delivered.iter().filter_map(|delivered| window.end(&delivered.receipt)).collect()
            };
            let acks = ackers.iter().map(|acker| acker.ack(BasicAckOptions::default()));
            for acked in join_all(acks).await {
                // The connection is gone, and the message comes again.
                if let Err(error) = acked {
                    tracing::debug!(%error, "an acknowledgement came too late");
                }
            }
            self.shared.ring();
            Ok(())
        })
    }

    fn give_back<'a>(&'a mut self, delivered: &'a Delivered, delay: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            self.shared.window().give_back(&delivered.receipt, delay, Instant::now());
            self.shared.ring();
            Ok(())
        })
    }
}
