//! Keeps a member connected.

use std::sync::Arc;
use std::time::Duration;

use lapin::Acker;
use pgfleet_events::Error;
use tokio::sync::{mpsc, oneshot};

use super::BROKER;
use super::link::Link;
use super::names::Group;
use super::session::Session;
use crate::error::unavailable;
use crate::partition::Partition;
use crate::pause::Pause;
use crate::window::{Hold, Shared};

/// How long it may take to be let in, and to look after the partitions.
///
/// A broker that has just come back takes connections, and may leave a question about a queue without a leader unanswered
/// for ever, on a connection that is alive.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
const BALANCE_WITHIN: Duration = Duration::from_secs(15);

type Ends = mpsc::UnboundedReceiver<(Partition, Hold)>;

pub(super) struct Member {
    pub(super) link: Arc<Link>,
    pub(super) group: Arc<Group>,
    pub(super) shared: Arc<Shared<Acker>>,
}

/// How a session came to its end.
enum End {
    Closed,
    Lost(Error),
}

impl Member {
    pub(super) async fn open(&self, again: bool) -> Result<(Session, Ends), Error> {
        let opening = Session::open(self.link.clone(), self.group.clone(), self.shared.clone(), again);
        match tokio::time::timeout(OPEN_WITHIN, opening).await {
            Ok(opened) => opened,
            Err(late) => Err(unanswered(&self.link, late)),
        }
    }

    /// Runs sessions, one after the other, until the subscriber is dropped, which closes `closing`.
    pub(super) async fn run(self, mut session: Session, mut ends: Ends, mut closing: oneshot::Receiver<()>) {
        loop {
            let end = live(&self.link, &mut session, &mut ends, &mut closing).await;
            self.shared.window().clear();
            match end {
                End::Closed => return session.close().await,
                End::Lost(error) => {
                    tracing::warn!(group = self.group.name(), error = %described(&error), "connecting to RabbitMQ again");
                }
            }
            // What is left of the old connection holds messages that the new one is to get.
            drop(session);
            let mut pause = Pause::default();
            (session, ends) = loop {
                tokio::select! {
                    _ = &mut closing => return,
                    () = tokio::time::sleep(pause.next()) => {}
                }
                tokio::select! {
                    _ = &mut closing => return,
                    opened = self.open(true) => match opened {
                        Ok(opened) => break opened,
                        Err(error) => {
                            // What a part of a session took in goes with it.
                            self.shared.window().clear();
                            tracing::debug!(error = %described(&error), "not connected yet");
                        }
                    }
                }
            };
            tracing::info!(group = self.group.name(), "connected to RabbitMQ again");
        }
    }
}

async fn live(link: &Link, session: &mut Session, ends: &mut Ends, closing: &mut oneshot::Receiver<()>) -> End {
    loop {
        tokio::select! {
            _ = &mut *closing => return End::Closed,
            ended = ends.recv() => match ended {
                Some((partition, hold)) if session.expected(partition, hold) => {}
                _ => {
                    let lost = Error::new(pgfleet_events::ErrorKind::Unavailable, "a consumer was ended by the broker");
                    return End::Lost(lost);
                }
            },
            () = tokio::time::sleep(session.round()) => {
                match tokio::time::timeout(BALANCE_WITHIN, session.balance()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return End::Lost(error),
                    Err(late) => return End::Lost(unanswered(link, late)),
                }
            }
        }
    }
}

fn unanswered(link: &Link, late: tokio::time::error::Elapsed) -> Error {
    unavailable(BROKER, &format!("{} is there and does not answer", link.at()), late)
}

fn described(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
