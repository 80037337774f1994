//! What a service does with messages.

use std::marker::PhantomData;
use std::sync::Arc;

use pgfleet_events::Message;
use pgfleet_events_postgres::Consumer;
use pgfleet_events_postgres::inbox::{Failure, Handler};
use pgfleet_route::Tx;

use super::body::MessageBody;
use super::databases::Tenants;
use super::trace::Trace;
use crate::Scope;

/// Handles messages of a type.
pub trait Handle<M: MessageBody>: Send + Sync + 'static {
    /// Handles a message in a transaction of the database of its tenant, under the tenant's scope.
    ///
    /// The transaction is committed afterwards, together with the note that the message was handled: so its effect is there
    /// once. What is done outside of the transaction may be done again. What is published in it goes on with the message's
    /// trace.
    ///
    /// # Errors
    ///
    /// Whatever it fails with: the transaction is rolled back and the message is tried again later, behind which those of the
    /// same key wait. A [`hopeless`](Failure::hopeless) one becomes a dead letter at once.
    fn handle(&self, tx: &mut Tx, body: M, message: &Message) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A handler with the type that it is for.
struct Typed<M, H>(H, PhantomData<fn() -> M>);

impl<M: MessageBody, H: Handle<M>> Handler<Tx> for Typed<M, H> {
    async fn handle(&self, tx: &mut Tx, message: &Message) -> Result<(), Failure> {
        // Text that is no such type now is none the next time.
        let body: M = message.data.to().map_err(Failure::hopeless)?;
        let scope = match &message.meta.tenant {
            Some(tenant) => Scope::tenant(tenant.clone()),
            None => Scope::host(),
        };
        scope.run(Trace::of(message).run(self.0.handle(tx, body, message))).await
    }
}

type Register = dyn FnOnce(Consumer<Tenants>) -> Consumer<Tenants> + Send + Sync;

/// A handler that waits for its consumer.
pub(crate) struct Registered {
    pub(super) topic: &'static str,
    pub(super) register: Box<Register>,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registered").field(&self.topic).finish()
    }
}

impl Registered {
    pub(crate) fn new<M: MessageBody, H: Handle<M>>(handler: H) -> Self {
        let register = move |consumer: Consumer<Tenants>| {
            consumer.on(Arc::from(M::KIND), Typed(handler, PhantomData::<fn() -> M>))
        };
        Self { topic: M::TOPIC, register: Box::new(register) }
    }
}
