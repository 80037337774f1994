//! Publishing.

use pgfleet_events::NewMessage;
use pgfleet_events_postgres::Executor;

use super::body::MessageBody;
use super::trace::Trace;
use super::workers::Workers;
use crate::Scope;
use crate::error::Error;
use crate::service::Service;

/// The outbox of a service: messages that are published when a transaction commits.
#[derive(Debug, Clone, Copy)]
pub struct Outbox<'a> {
    workers: &'a Workers,
}

impl Service {
    /// Returns the outbox, whose table is in the database of the current tenant.
    ///
    /// The service needs the module: `.module(Module::outbox())`, and `modules = ["outbox"]` in the manifest.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox { workers: &self.0.workers }
    }
}

impl Outbox<'_> {
    /// Publishes a message when the transaction commits, to every service that handles its type.
    ///
    /// The transaction may be pgfleet's, tokio-postgres's or, with the feature `sqlx`, sqlx's. The message carries the tenant
    /// of the current [`Scope`] and the current [`Trace`].
    ///
    /// # Errors
    ///
    /// What the statement fails with; the transaction has failed then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the row was added: roll the transaction back.
    pub async fn publish<E, M>(&self, tx: &mut E, body: &M) -> Result<(), Error>
    where
        E: Executor + ?Sized,
        M: MessageBody,
    {
        self.send(tx, message(body)?).await
    }

    /// Publishes messages of one type, in this order, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_all<E, M>(&self, tx: &mut E, bodies: &[M]) -> Result<(), Error>
    where
        E: Executor + ?Sized,
        M: MessageBody,
    {
        let messages = bodies.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        self.send_all(tx, messages).await
    }

    /// Publishes a message that was put together by hand: with a delay, a topic, headers.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn send<E: Executor + ?Sized>(&self, tx: &mut E, message: NewMessage) -> Result<(), Error> {
        self.send_all(tx, vec![message]).await
    }

    /// Publishes messages that were put together by hand, in this order, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn send_all<E: Executor + ?Sized>(&self, tx: &mut E, mut messages: Vec<NewMessage>) -> Result<(), Error> {
        let (scope, trace) = (Scope::current(), Trace::current());
        for message in &mut messages {
            trace.fill(&mut message.meta);
            if message.meta.tenant.is_none() {
                message.meta.tenant = scope.tenant_name().map(Into::into);
            }
        }
        self.workers.writer().publish_all(tx, &messages).await?;
        self.workers.wake_after(tx, &scope);
        Ok(())
    }

    /// Has the relay look at once: after the commit of a client library's transaction, of which nobody else tells it.
    ///
    /// Without it what was published there is found within milliseconds of its commit, and within seconds at the latest. A
    /// transaction of pgfleet's own tells the relay by itself.
    pub fn wake(&self) {
        self.workers.wake(&Scope::current());
    }
}

fn message<M: MessageBody>(body: &M) -> Result<NewMessage, Error> {
    let mut message = NewMessage::of(M::KIND, body)?.topic(M::TOPIC);
    message.key = body.key().map(Into::into);
    Ok(message)
}
