//! Keeps a member connected.

use std::sync::Arc;

use lapin::Acker;
use pgfleet_events::Error;
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::names::Group;
use super::session::Session;
use crate::partition::Partition;
use crate::pause::Pause;
use crate::window::{Hold, Shared};

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
        Session::open(self.link.clone(), self.group.clone(), self.shared.clone(), again).await
    }

    /// Runs sessions, one after the other, until the subscriber is dropped, which closes `closing`.
    pub(super) async fn run(self, mut session: Session, mut ends: Ends, mut closing: oneshot::Receiver<()>) {
        loop {
            let end = live(&mut session, &mut ends, &mut closing).await;
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

async fn live(session: &mut Session, ends: &mut Ends, closing: &mut oneshot::Receiver<()>) -> End {
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
                if let Err(error) = session.balance().await {
                    return End::Lost(error);
                }
            }
        }
    }
}

fn described(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
