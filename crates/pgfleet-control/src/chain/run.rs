//! Taking messages and handling them, until it is to stop.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pgfleet_migrate::options::Stop;
use pgfleet_migrate::{Observer, Options};
use pgfleet_postgres::retry;

use super::broker::BrokerTransport;
use super::event::{ChainEvent, ChainListener, Troubles, line};
use super::handle::{Handled, Handler};
use super::message::Received;
use super::table::TableTransport;
use super::transport::Transport;
use crate::error::{Error, ErrorKind};
use crate::solution::Solution;

/// How often messages are asked for when there were none, and services' databases are looked at.
const POLL: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(5);

/// How often what is long past is forgotten.
const TIDY: Duration = Duration::from_hours(1);

/// How long to let a control database be that does not answer.
const TROUBLE: Duration = Duration::from_secs(5);

/// When a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is to stop.
    Stopped,
    /// When nothing is due any more, and the services' databases have been looked at.
    Idle,
    /// When it has run for so long and has nothing in work: whoever runs it again sees what the manifest
    /// and the passwords are by then.
    Rested(Duration),
}

/// How messages are handled.
#[derive(Debug, Clone)]
pub struct ChainOptions {
    /// How many messages are handled at a time.
    pub concurrency: usize,
    /// When it ends.
    pub until: Until,
    /// What carries the messages; none is what `chain` in `[events]` says: the table in the control database, or the broker.
    pub transport: Option<Arc<dyn Transport>>,
    /// The names of the variables that a hook would inherit; of pgfleet's own it gets none.
    pub surroundings: Vec<String>,
}

impl ChainOptions {
    /// Returns what a solution's manifest says.
    pub fn of(solution: &Solution, until: Until) -> Self {
        let concurrency = solution.manifest.migrations.concurrency as usize;
        Self { concurrency, until, transport: None, surroundings: Vec::new() }
    }
}

/// What has come to its end.
enum Ended {
    Message { received: Received, result: Result<Handled, Error>, took: Duration },
    Looked(Result<Vec<(String, pgfleet_migrate::Error)>, Error>),
}

type Running<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send + 'a>>>;

impl Solution {
    /// Handles the messages by which tenants follow their services, several at a time.
    ///
    /// Any number of these may run, on any number of machines: a message goes to one of them, and what a
    /// dead one had taken goes to the others. A message that fails is tried three times in all
    /// (`max_tries` of `[migrations]`), with a random wait between `min_retry_wait` and `max_retry_wait`;
    /// then it is set aside and shown, and so is its target, until somebody starts it by hand.
    ///
    /// Looks at the services' own databases, too, for what a service applied itself when it started.
    ///
    /// # Errors
    ///
    /// The control database is not there yet. One that goes away later is waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the messages in work to whoever looks next; `stop` ends it in an
    /// orderly way.
    pub async fn run_chain(
        &self,
        options: &ChainOptions,
        stop: &Stop,
        listener: &dyn ChainListener,
        observer: &Arc<dyn Observer>,
    ) -> Result<(), Error> {
        // Whether there is anything to do is said at once.
        self.tenant_catalogue().await?.close().await;
        let transport: Arc<dyn Transport> = match (&options.transport, self.chain_broker()?) {
            (Some(transport), _) => transport.clone(),
            (None, Some(broker)) => Arc::new(BrokerTransport::of(self, broker)),
            (None, None) => Arc::new(TableTransport::of(self)),
        };
        let runs = Options { stop: stop.clone(), ..self.options().clone() };
        let mut handler = Handler::new(self, &runs, observer.clone());
        handler.surroundings.clone_from(&options.surroundings);
        let chain = Chain {
            handler: &handler,
            transport: &*transport,
            attempts: self.manifest.migrations.max_tries,
            listener,
            stop,
        };
        Box::pin(chain.run(options)).await;
        // What is in work is given back; whoever closes badly has only lost his leases.
        let _stopped = transport.stop().await;
        handler.close().await;
        Ok(())
    }
}

struct Chain<'a> {
    handler: &'a Handler<'a>,
    transport: &'a dyn Transport,
    attempts: u32,
    listener: &'a dyn ChainListener,
    stop: &'a Stop,
}

impl<'a> Chain<'a> {
    async fn run(&self, options: &ChainOptions) {
        let mut running: Running<'_> = FuturesUnordered::new();
        let mut troubles = Troubles::new(self.listener);
        let concurrency = options.concurrency.max(1);
        let (mut messages, mut looking, mut looked) = (0, false, false);
        let began = Instant::now();
        let (mut ask, mut look, mut tidy) = (began, began, began);
        while !self.stop.is_asked() {
            let now = Instant::now();
            if now >= look && !looking {
                looking = true;
                running.push(Box::pin(async { Ended::Looked(self.handler.look_at_hosts().await) }));
            }
            if now >= tidy {
                tidy = now + TIDY;
                troubles.note("tidy", self.transport.tidy().await.err().as_ref());
            }
            let mut idle = false;
            if now >= ask && messages < concurrency {
                let received = self.transport.receive(concurrency - messages).await;
                ask = Instant::now() + if received.is_ok() { POLL } else { TROUBLE };
                troubles.note("messages", received.as_ref().err());
                let received = received.unwrap_or_default();
                idle = received.is_empty();
                messages += received.len();
                running.extend(received.into_iter().map(|received| self.begun(received)));
            }
            let ends = match options.until {
                Until::Stopped => false,
                Until::Idle => idle && looked,
                Until::Rested(time) => began.elapsed() >= time,
            };
            if ends && messages == 0 && !looking {
                break;
            }
            // Who ends makes room, and has messages asked for.
            let asks = (messages < concurrency).then_some(ask);
            let looks = (!looking).then_some(look);
            let until = [asks, looks].into_iter().flatten().fold(tidy, Instant::min);
            tokio::select! {
                Some(ended) = running.next() => match ended {
                    Ended::Message { received, result, took } => {
                        messages -= 1;
                        troubles.note("outcome", self.end(&received, result, took).await.err().as_ref());
                        // What follows from it may be there, and there is room again.
                        ask = Instant::now();
                    }
                    Ended::Looked(result) => {
                        (looking, looked, look) = (false, true, Instant::now() + LOOK);
                        // What was announced may have become a message.
                        ask = Instant::now();
                        self.note_look(&mut troubles, result);
                    }
                },
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.stop.asked() => {}
            }
        }
        // The runs were asked to stop, too.
        while let Some(ended) = running.next().await {
            if let Ended::Message { received, result, took } = ended {
                troubles.note("outcome", self.end(&received, result, took).await.err().as_ref());
            }
        }
    }

    fn begun<'b>(&'b self, received: Received) -> Pin<Box<dyn Future<Output = Ended> + Send + 'b>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let began = Instant::now();
            let result = self.handler.handle(&received).await;
            Ended::Message { received, result, took: began.elapsed() }
        })
    }

    /// Tells the transport how handling a message ended.
    async fn end(&self, received: &Received, result: Result<Handled, Error>, took: Duration) -> Result<(), Error> {
        let message = &received.message;
        match result {
            Ok(Handled { note, following }) => {
                if self.transport.ack(received, &following, &note).await? {
                    self.listener.happened(&ChainEvent::Handled { message, note: &note, took });
                }
            }
            Err(error) if error.kind() == ErrorKind::Stopped || self.stop.is_asked() => {
                self.transport.give_back(received).await?;
            }
            Err(error) if received.attempt < self.attempts => {
                let options = &self.handler.options;
                let wait = retry::between(options.min_retry_wait, options.max_retry_wait);
                if self.transport.retry(received, wait, &line(&error)).await? {
                    let (attempt, attempts) = (received.attempt, self.attempts);
                    let event = ChainEvent::TriedAgain { message, attempt, attempts, wait, error: &error };
                    self.listener.happened(&event);
                }
            }
            Err(error) => {
                if self.transport.fail(received, &line(&error)).await? {
                    self.listener.happened(&ChainEvent::Failed { message, error: &error });
                }
            }
        }
        Ok(())
    }

    fn note_look(&self, troubles: &mut Troubles<'_>, result: Result<Vec<(String, pgfleet_migrate::Error)>, Error>) {
        let failed = match result {
            Ok(failed) => {
                troubles.note("hosts", None);
                failed
            }
            Err(error) => return troubles.note("hosts", Some(&error)),
        };
        for service in &self.handler.solution.manifest.services {
            let error = failed.iter().find(|(of, _)| *of == service.name);
            let error = error.map(|(_, error)| Error::of_run(format!("cannot look at {}", service.name), error));
            troubles.note(&format!("service {}", service.name), error.as_ref());
        }
    }
}
